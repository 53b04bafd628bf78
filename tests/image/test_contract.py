"""An image's contract and its configuration template agree with each other and with what is known of OpenClaw."""

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from claw_entrypoint.contract import Contract, parse
from claw_entrypoint.render import tokens
from claw_runtime.images.versions import read_contract, supported

IMAGES = sorted((Path(__file__).parents[2] / "images").glob("*/contract.json"))
VERSIONS = [
    (path, version)
    for path in IMAGES
    for version in (supported(path.parent) if (path.parent / "versions").is_dir() else [""])
]


@pytest.fixture(params=VERSIONS, ids=lambda each: f"{each[0].parent.name}-{each[1] or 'only'}")
def each(request: pytest.FixtureRequest) -> tuple[Path, str]:
    """A contract's file, and a version that it supports; empty where a recipe has one version alone."""
    found: tuple[Path, str] = request.param
    return found


@pytest.fixture
def place(each: tuple[Path, str]) -> Path:
    return each[0]


@pytest.fixture
def contract(each: tuple[Path, str]) -> Contract:
    path, version = each
    return parse(read_contract(path.parent, version=version) if version else json.loads(path.read_text()))


@pytest.fixture
def template(place: Path, contract: Contract) -> Any:
    return json.loads((place.parent / Path(contract.template.source).name).read_text())


def leaves(node: object, where: str = "") -> Iterator[tuple[str, str]]:
    """JSON pointer and text of every string in a document."""
    if isinstance(node, str):
        yield where, node
    elif isinstance(node, dict):
        for key, item in node.items():
            yield from leaves(item, f"{where}/{key}")
    elif isinstance(node, list):
        for index, item in enumerate(node):
            yield from leaves(item, f"{where}/{index}")


def names(text: str) -> list[str]:
    """The placeholders of one leaf."""
    return [name for _, _, name, escaped in tokens(text) if not escaped]


def at(document: Any, path: tuple[str, ...]) -> Any:
    """What an operation's path points at; KeyError when there is nothing."""
    for part in path:
        document = document[int(part) if isinstance(document, list) else part]
    return document


def test_there_is_an_image() -> None:
    """The other tests of this file do look at something."""
    assert {("openclaw-nix", "2026.6.11"), ("openclaw-nix", "2026.9.6")} <= {(p.parent.name, v) for p, v in VERSIONS}


def test_the_contract_lies_in_the_directory_of_its_name(place: Path, contract: Contract) -> None:
    """The image's name is its directory's and its reference's."""
    assert place.parent.name == contract.name
    assert contract.image.rpartition("/")[2].partition(":")[0] == contract.name


def test_each_version_has_an_image_of_its_own() -> None:
    """Two versions never share a tag, so that neither replaces the other in a store."""
    images = [read_contract(path.parent, version=version)["image"] for path, version in VERSIONS if version]
    assert len(images) == len(set(images))


def test_every_placeholder_is_allowlisted_and_every_value_has_a_use(contract: Contract, template: Any) -> None:
    """Nothing is substituted that is not in the contract, and nothing is asked for in vain."""
    used = {name for _, text in leaves(template) for name in names(text)}
    chosen = {contract.discovery.value} if contract.discovery else set()

    assert used | chosen == set(contract.values)
    assert not used & chosen


def test_no_secret_is_a_literal(contract: Contract, template: Any) -> None:
    """Every leaf that holds a credential is one placeholder of a secret value, and the environment holds none."""
    words = ("token", "key", "secret", "password", "credential")
    found = 0
    for where, text in leaves(template):
        last = where.rpartition("/")[2].lower()
        if any(last.endswith(word) for word in words):
            found += 1
            assert len(names(text)) == 1, f"{where} is not one placeholder"
            assert text == "${" + names(text)[0] + "}", f"{where} has text of its own"
            assert contract.values[names(text)[0]].secret, f"{where} is not marked secret"
    assert found >= 2
    assert not contract.values.keys() & (contract.environment.keys() | contract.exec.environment.keys())


def test_what_is_named_like_a_secret_is_treated_as_one(contract: Contract) -> None:
    """No TOKEN, KEY, SECRET or PASSWORD is plain."""
    for value in contract.values.values():
        if value.name.endswith(("TOKEN", "KEY", "SECRET", "PASSWORD")):
            assert value.secret, value.name


def test_no_credential_is_used_for_another_service(contract: Contract, template: Any) -> None:
    """A secret appears in one leaf only; the OpenRouter key is its own value and never the matrix token."""
    for value in contract.values.values():
        if value.secret:
            assert [where for where, text in leaves(template) if value.name in text] != []
            assert len([where for where, text in leaves(template) if value.name in text]) == 1, value.name
    texts = dict(leaves(template))
    assert texts.get("/env/vars/OPENROUTER_API_KEY", "${OPENROUTER_API_KEY}") == "${OPENROUTER_API_KEY}"


def test_the_gateway_is_executed_by_absolute_paths(contract: Contract) -> None:
    """Program and script are in the image, never in a volume that a tenant can write, nor found through PATH."""
    program, *arguments = contract.exec.argv
    script = next(argument for argument in arguments if not argument.startswith("-"))
    for path in (program, script):
        assert path.startswith("/")
        assert contract.volume_of(path) == ""


def test_everything_that_the_environment_points_at_is_made(contract: Contract) -> None:
    """Each directory below a volume is in the skeleton, a volume, or the configuration; PATH's as well."""
    made = {*contract.skeleton, *contract.volumes, contract.template.target}
    for name, text in contract.environment.items():
        for path in text.split(":"):
            if path.startswith("/") and contract.volume_of(path):
                # npm makes `bin` below its own prefix
                assert path in made or path.removesuffix("/bin") in made, f"{name}={text}"


def test_what_must_be_writable_is_a_volume(contract: Contract) -> None:
    """The image's own file system is read-only."""
    assert set(contract.writable) == {path for path, volume in contract.volumes.items() if volume.kind != "values"}


def test_operations_find_their_place(contract: Contract, template: Any) -> None:
    """Each feature's operations change something that the template has."""
    for operations in contract.features.values():
        for operation in operations:
            before = at(template, operation.path)
            assert operation.op == "remove" or before != operation.value, operation.path


def test_a_feature_is_off_without_its_values(contract: Contract, template: Any) -> None:
    """An operation removes every leaf of a feature that would stay half-filled, or disables its channel."""
    for feature, operations in contract.features.items():
        members = {value.name for value in contract.values.values() if value.feature == feature}
        mixed = [where for where, text in leaves(template) if members & set(names(text)) and len(text) > 2]
        assert mixed
        assert operations or all(text == "${" + names(text)[0] + "}" for w, text in leaves(template) if w in mixed)


class TestOpenClaw:
    """What holds for images of OpenClaw alone."""

    @pytest.fixture(autouse=True)
    def only_openclaw(self, contract: Contract) -> None:
        if contract.application != "openclaw":
            pytest.skip("another application")

    def test_the_template_speaks_of_the_contract_s_places(self, contract: Contract, template: Any) -> None:
        """Port, workspace, log file, state and configuration path are the same in both."""
        assert template["gateway"]["port"] == contract.ports["gateway"]
        assert template["agents"]["defaults"]["workspace"] in contract.skeleton
        assert contract.volumes[contract.volume_of(template["logging"]["file"])].kind == "logs"
        assert contract.environment["OPENCLAW_CONFIG_PATH"] == contract.template.target
        assert contract.environment["OPENCLAW_STATE_DIR"] in contract.skeleton
        assert contract.plugin_projects == contract.environment["OPENCLAW_STATE_DIR"] + "/npm/projects"

    def test_the_gateway_cannot_be_reached_without_a_token(self, contract: Contract, template: Any) -> None:
        """It listens beyond loopback, so it has token authentication, with a value that is never missing."""
        auth = template["gateway"]["auth"]

        assert auth["mode"] == "token"
        assert contract.values[names(auth["token"])[0]].need in ("required", "generated")
        assert contract.probes.bearer in ("", *names(auth["token"]))

    def test_plugins_are_loaded_from_where_they_are_trusted(self, contract: Contract, template: Any) -> None:
        """Load paths are exactly the baked plugins; each is enabled, with its channel; the registry is not disabled."""
        assert template["plugins"]["load"]["paths"] == [plugin.path for plugin in contract.plugins]
        assert template["plugins"]["entries"] == {plugin.id: {"enabled": True} for plugin in contract.plugins}
        assert all(template["channels"][plugin.id]["enabled"] for plugin in contract.plugins)
        assert contract.environment["OPENCLAW_DISABLE_PERSISTED_PLUGIN_REGISTRY"] == "0"

    def test_projects_have_npm_s_names(self, contract: Contract) -> None:
        """OpenClaw's name of a managed project: the package's, and ten digits of its SHA-256."""
        for plugin in contract.plugins:
            slug = plugin.package.removeprefix("@").replace("/", "-")
            digest = hashlib.sha256(plugin.package.encode()).hexdigest()[:10]

            assert plugin.project == f"{slug}-{digest}"
            assert plugin.path.endswith("/node_modules/" + plugin.package) or plugin.path.startswith("/nix/store/")

    def test_only_the_gateway_is_kept_from_installing(self, contract: Contract) -> None:
        """npm is offline for the gateway alone; a tenant's own `npm install` works."""
        assert contract.exec.environment["NPM_CONFIG_OFFLINE"] == "true"
        assert "NPM_CONFIG_OFFLINE" not in contract.environment

    def test_tool_calls_have_a_person_s_environment(self, contract: Contract, place: Path) -> None:
        """The shell of tool calls removes what only the gateway has, and restores what OpenClaw keeps from them."""
        shell = place.parent / Path(contract.exec.environment["SHELL"]).name
        kept = {name: value for name, value in contract.environment.items() if name != "PYTHONUSERBASE"}

        done = subprocess.run(
            [shell, "-c", 'env; echo "$0 $*"', "a", "b c"],
            env={**kept, **contract.exec.environment, "PATH": "/usr/bin:/bin"},
            check=True,
            capture_output=True,
            text=True,
        )

        *lines, last = done.stdout.splitlines()
        shown = dict(line.split("=", 1) for line in lines if not line.startswith(("PWD=", "_=", "SHLVL=")))
        assert shown == {**contract.environment, "PATH": "/usr/bin:/bin"}
        assert last == "a b c"

    def test_an_unlinked_channel_does_not_keep_a_tenant_from_being_ready(
        self, contract: Contract, template: Any
    ) -> None:
        """WhatsApp is enabled and fails readiness until a person links it; the contract lets it."""
        assert template["channels"]["whatsapp"]["enabled"]
        assert "whatsapp" in contract.probes.ignore_failing
        assert set(contract.probes.ignore_failing) <= set(template["channels"])

    def test_the_template_is_valid_in_both_known_versions(self, template: Any) -> None:
        """2026.6.11 refuses `models.catalogRefresh`, 2026.9.6 has no `agents.list` and fewer reload modes."""
        assert "catalogRefresh" not in template["models"]
        assert set(template["agents"]) == {"defaults"}
        assert template["gateway"]["reload"]["mode"] in ("off", "hybrid")
        assert isinstance(template["logging"]["file"], str)
