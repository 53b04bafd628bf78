"""The claims about an image: each holds for a small good one, and fails with one clear line for a bad one."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.documents import changed

TOP = Path(__file__).parents[2]
CONTRACT = TOP / "images/openclaw-nix/contract.json"
TEMPLATE = TOP / "images/openclaw-nix/openclaw.json"
TINY: dict[str, Any] = {
    "name": "tiny",
    "application": {"name": "tiny", "version": "1.2.3"},
    "environment": {"PATH": "/usr/local/bin:/usr/bin", "HOME": "/state/home"},
    "exec": {"argv": ["/usr/local/bin/tiny"]},
    "template": {"source": "/etc/claw/tiny.json"},
    "ports": {"gateway": 8080},
    "volumes": {"/state": {"kind": "state"}},
    "writable": ["/state"],
    "tools": {"tiny": ["tiny", "--version"]},
}
ROOT: dict[str, dict[str, Any]] = {
    "etc": {},
    "etc/passwd": {"text": "root:x:0:0::/:/bin/sh"},
    "etc/group": {"text": "root:x:0:"},
    "etc/nsswitch.conf": {"text": "hosts: files"},
    "etc/claw": {},
    "etc/claw/tiny.json": {"text": "{}"},
    "usr/local/bin/tiny": {"link": "../../bin/tiny"},
    "usr/bin/tiny": {"text": "#!/bin/sh\necho tiny 1.2.3\n", "mode": 0o755},
    "state": {"mode": 0o1777},
}
HELLO = f"/nix/store/{'a' * 32}-hello-2.12"
TOOL = f"/nix/store/{'b' * 32}-my-tool"
NODES = (
    {"path": HELLO, "narHash": "sha256:" + "0" * 52, "narSize": 7, "references": []},
    {"path": TOOL, "narHash": "sha256:" + "1" * 52, "narSize": 9, "references": [HELLO, TOOL]},
)
LIST = {"path": f"/nix/store/{'c' * 32}-roots", "narHash": "", "narSize": 1, "references": [HELLO, TOOL]}
Claim = Callable[..., str]
Archive = Callable[..., Path]


def config(contract: dict[str, Any] = TINY) -> dict[str, Any]:
    """The configuration that the contract asks of an image."""
    return {
        "Entrypoint": ["/usr/bin/python3"],
        "Env": [f"{name}={value}" for name, value in contract["environment"].items()],
        "ExposedPorts": {f"{port}/tcp": {} for port in contract["ports"].values()},
        "Labels": {
            "io.claw.contract": json.dumps(contract),
            "org.opencontainers.image.title": contract["name"],
            "org.opencontainers.image.version": contract["application"]["version"],
        },
    }


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    (tmp_path / "contract.json").write_text(json.dumps(TINY))
    return tmp_path / "contract.json"


class TestConfiguration:
    """image-keeps-contract"""

    def test_a_good_archive_keeps_it(self, claim: Claim, archive: Archive, tiny: Path) -> None:
        """Links of the image are followed as in a container."""
        assert claim("image-keeps-contract", archive(config(), ROOT), tiny) == ""

    @pytest.mark.parametrize(
        ("key", "value", "said"),
        [
            ("User", "1000", "User is set"),
            ("Healthcheck", {"Test": ["CMD"]}, "Healthcheck is set"),
            ("Cmd", ["sh"], "Cmd is set"),
            ("Env", ["PATH=/bin", "HOME=/state/home"], "Env PATH is '/bin', contract"),
            ("ExposedPorts", {"1/tcp": {}}, "exposed ports are ['1/tcp']"),
            ("Labels", {}, "label io.claw.contract is missing"),
            ("Entrypoint", [], "there is no Entrypoint"),
        ],
    )
    def test_another_configuration_is_refused(
        self, claim: Claim, archive: Archive, tiny: Path, key: str, value: Any, said: str
    ) -> None:
        """Each promise fails by its name."""
        assert said in claim("image-keeps-contract", archive({**config(), key: value}, ROOT), tiny)

    @pytest.mark.parametrize("gone", ["usr/bin/tiny", "etc/claw/tiny.json", "state"])
    def test_a_missing_path_is_refused(self, claim: Claim, archive: Archive, tiny: Path, gone: str) -> None:
        """What the contract names is there, at the end of every link and after the last layer."""
        folder, _, name = gone.rpartition("/")
        assert "not in the image: /" in claim(
            "image-keeps-contract", archive(config(), ROOT, {f"{folder}/.wh.{name}": {"text": ""}}), tiny
        )


class TestFiles:
    """image-has-no-surprises"""

    def test_a_good_archive_has_none(self, claim: Claim, archive: Archive, tiny: Path) -> None:
        """Promised directories are open, accounts are files, and every entry has the one time."""
        assert claim("image-has-no-surprises", archive(config(), ROOT), tiny, "1") == ""

    @pytest.mark.parametrize(
        ("entries", "said"),
        [
            ({"usr/bin/su": {"text": "x", "mode": 0o4755}}, "setuid or setgid: /usr/bin/su"),
            ({"opt": {"mode": 0o777}}, "open to everybody and not in the contract: /opt"),
            ({"etc/hosts": {"text": "x", "mode": 0o666}}, "open to everybody and not in the contract: /etc/hosts"),
            ({"state": {"mode": 0o755}}, "/state is promised to be writable and has mode 755"),
            ({"etc/passwd": {"link": "/nix/store/x"}}, "/etc/passwd is not a regular file"),
            ({"etc/x": {"text": "AKIA" + "ABCDEFGHIJKLMNOP"}}, "/etc/x looks as if it had a credential"),
            ({"etc/x": {"text": "x", "time": 7}}, "/etc/x has the time 7, not 1"),
            ({"etc/x": {"text": "x", "owner": 1000}}, "/etc/x belongs to 1000:1000"),
        ],
    )
    def test_a_surprise_is_refused(
        self, claim: Claim, archive: Archive, tiny: Path, entries: dict[str, Any], said: str
    ) -> None:
        """Modes, kinds, contents, times and owners: the first surprise is named with its path."""
        assert said in claim("image-has-no-surprises", archive(config(), ROOT, entries), tiny, "1")

    def test_a_secret_of_its_owner_alone_is_none(self, claim: Claim, archive: Archive, tiny: Path) -> None:
        """Only what everybody can read counts."""
        entries = {"etc/x": {"text": "AKIA" + "ABCDEFGHIJKLMNOP", "mode": 0o600}}
        assert claim("image-has-no-surprises", archive(config(), ROOT, entries), tiny) == ""

    def test_a_secret_that_a_later_layer_hides_is_found(self, claim: Claim, archive: Archive, tiny: Path) -> None:
        """It is shipped all the same."""
        first = {**ROOT, "etc/x": {"text": "AKIA" + "ABCDEFGHIJKLMNOP"}}
        assert "/etc/x looks" in claim(
            "image-has-no-surprises", archive(config(), first, {"etc/.wh.x": {"text": ""}}), tiny
        )

    def test_no_archive_is_said_to_be_none(self, claim: Claim, tmp_path: Path, tiny: Path) -> None:
        """A file that is no archive fails in one line as well."""
        (tmp_path / "x").write_text("x")
        assert "cannot be read" in claim("image-has-no-surprises", tmp_path / "x", tiny)


class TestTools:
    """tools-answer"""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        place = tmp_path / "root"
        (place / "usr/local/bin").mkdir(parents=True)
        (place / "usr/bin").mkdir()
        (place / "usr/bin/tiny").write_text("#!/bin/sh\necho tiny 1.2.3\n")
        (place / "usr/bin/tiny").chmod(0o755)
        (place / "usr/local/bin/tiny").symlink_to("/usr/bin/tiny")
        return place

    def test_a_tool_answers(self, claim: Claim, root: Path, tiny: Path) -> None:
        """Absolute links mean the image's root, not this machine's."""
        assert claim("tools-answer", root, tiny) == ""

    def test_a_script_finds_its_interpreter_in_the_image(self, claim: Claim, root: Path, tiny: Path) -> None:
        """`#!/usr/bin/env` looks in the image's PATH."""
        (root / "usr/bin/tiny").write_text("#!/usr/bin/env shell\necho tiny 1.2.3\n")
        (root / "usr/bin/shell").symlink_to(root / "usr/bin/sh")
        shutil.copy(os.path.realpath("/bin/sh"), root / "usr/bin/sh")
        (root / "usr/bin/shell").unlink()
        (root / "usr/bin/shell").symlink_to("sh")
        assert claim("tools-answer", root, tiny) == ""

    @pytest.mark.parametrize(
        ("script", "said"),
        [
            ("echo broken >&2; exit 3", "tiny: `tiny --version` exits 3: broken"),
            ("exit 0", "tiny: `tiny --version` exits 0: no answer"),
            ("echo tiny 9", "tiny: is tiny 9, the contract says 1.2.3"),
        ],
    )
    def test_a_tool_that_does_not_answer_is_refused(
        self, claim: Claim, root: Path, tiny: Path, script: str, said: str
    ) -> None:
        """One that fails, says nothing, or is another version."""
        (root / "usr/bin/tiny").write_text(f"#!/bin/sh\n{script}\n")
        assert said in claim("tools-answer", root, tiny)

    def test_a_tool_that_is_not_there_is_refused(self, claim: Claim, root: Path, tiny: Path) -> None:
        """It is looked for in the image alone, wherever this machine has it."""
        contract = changed(tiny, tiny, lambda c: c["tools"].update(tiny=["python3", "--version"]))
        assert "tiny: there is no python3 on the image's PATH" in claim("tools-answer", root, contract)


class TestPlugins:
    """plugins-are-trusted"""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        contract = json.loads(CONTRACT.read_text())
        for entry in contract["plugins"]["entries"]:
            place = tmp_path / "root" / entry["path"].lstrip("/")
            place.mkdir(parents=True)
            told = {"name": entry["package"], "version": contract["application"]["version"]}
            (place / "package.json").write_text(json.dumps(told))
            (place / "openclaw.plugin.json").write_text("{}")
        return tmp_path / "root"

    def test_plugins_are_where_they_are_loaded_from(self, claim: Claim, root: Path) -> None:
        """Contract, template and image speak of the same places."""
        assert claim("plugins-are-trusted", root, CONTRACT, TEMPLATE) == ""

    def test_a_missing_plugin_is_refused(self, claim: Claim, root: Path) -> None:
        """The plugin is named."""
        shutil.rmtree(root / "opt/openclaw/plugins/matrix")
        assert "matrix: there is no plugin at /opt" in claim("plugins-are-trusted", root, CONTRACT, TEMPLATE)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda t: t["plugins"]["load"]["paths"].pop(), "whatsapp: the template does not load"),
            (lambda t: t["plugins"]["load"]["paths"].append("/state/x"), "loads /state/x, which is no plugin"),
            (lambda t: t["plugins"]["entries"].pop("matrix"), "matrix: the template does not enable it"),
        ],
    )
    def test_a_template_of_other_plugins_is_refused(
        self, claim: Claim, root: Path, tmp_path: Path, change: Callable[[Any], object], said: str
    ) -> None:
        """Neither more nor fewer than the contract has."""
        template = changed(TEMPLATE, tmp_path / "t.json", change)
        assert said in claim("plugins-are-trusted", root, CONTRACT, template)

    def test_another_version_is_refused(self, claim: Claim, root: Path) -> None:
        """A plugin of another release than the gateway's is not trusted."""
        manifest = root / "opt/openclaw/plugins/matrix/node_modules/@openclaw/matrix/package.json"
        changed(manifest, manifest, lambda package: package.update(version="2020.1.1"))
        assert "matrix: @openclaw/matrix 2020.1.1 is there" in claim("plugins-are-trusted", root, CONTRACT, TEMPLATE)


class TestTemplate:
    """template-is-valid, with a program in the application's place"""

    WORDS = (CONTRACT, TEMPLATE, TOP / "entrypoint")

    @pytest.fixture
    def root(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.chdir(tmp_path)
        return tmp_path / "root"

    def answering(self, root: Path, script: str) -> None:
        """Every program of the contract's command is this shell script."""
        for word in json.loads(CONTRACT.read_text())["exec"]["argv"]:
            if word.startswith("/"):
                place = root / word.lstrip("/")
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text(f"#!/bin/sh\n{script}\n")
                place.chmod(0o755)

    def test_temporary_files_stay_in_the_build(self, claim: Claim, root: Path, tmp_path: Path) -> None:
        """The application gets a TMPDIR of its own in the build directory, and nothing stays there."""
        self.answering(root, 'test -d "$TMPDIR" && printf %s "$TMPDIR"\nexit 1')
        said = claim("template-is-valid", root, *self.WORDS)
        assert re.fullmatch(rf"template-is-valid: with every value: {re.escape(str(tmp_path))}/\w+/tmp", said)
        assert [entry.name for entry in tmp_path.iterdir()] == ["root"]

    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            ("Error: unsafe directory\n    at first\n    at last", "Error: unsafe directory at first at last"),
            ('{"issues": [{"path": "a", "message": "b"}, {"path": "c", "message": "d"}]}', "a: b; c: d"),
            ('{"issues": []}\nError: it broke', '{"issues": []} Error: it broke'),
            ("", "no answer"),
        ],
    )
    def test_the_whole_reason_is_shown(self, claim: Claim, root: Path, answer: str, said: str) -> None:
        """Every issue of a refusal, or all that the application wrote."""
        self.answering(root, f"printf %s {shlex.quote(answer)}\nexit 1")
        assert claim("template-is-valid", root, *self.WORDS) == f"template-is-valid: with every value: {said}"


class TestBill:
    """sbom-has-its-shape, over what nix/sbom.py writes"""

    def bill(self, folder: Path, nodes: object) -> Path:
        (folder / "attributes.json").write_text(json.dumps({"closure": [LIST, *nodes], "leftOut": LIST["path"]}))
        words = [sys.executable, "-B", TOP / "nix/sbom.py", folder / "attributes.json", "tiny", "1.2.3"]
        (folder / "sbom.json").write_bytes(subprocess.run(words, capture_output=True, check=True).stdout)
        return folder / "sbom.json"

    @pytest.fixture
    def image(self, archive: Archive) -> Path:
        return archive(config(), {node["path"]: {} for node in NODES})

    def test_a_bill_lists_the_closure(self, claim: Claim, tmp_path: Path, image: Path) -> None:
        """Each store path of the image with name, version, hash, and what it needs."""
        bill = self.bill(tmp_path, NODES)
        document = json.loads(bill.read_text())
        assert claim("sbom-has-its-shape", bill, image) == ""
        assert [(part["name"], part["version"]) for part in document["components"]] == [
            ("hello", "2.12"),
            ("my-tool", ""),
        ]
        assert document["dependencies"][1]["dependsOn"] == [Path(HELLO).name]

    def test_a_bill_does_not_depend_on_the_order(self, tmp_path: Path) -> None:
        """The same closure gives the same bytes."""
        first = self.bill(tmp_path, NODES).read_bytes()
        assert self.bill(tmp_path, NODES[::-1]).read_bytes() == first

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda d: d["components"].pop(), "is in the image and not in the bill"),
            (lambda d: d["components"][0].pop("purl"), "hello has no purl"),
            (lambda d: d["components"][0]["properties"].pop(1), "hello has no narHash"),
            (lambda d: d.update(bomFormat="SPDX"), "it is SPDX 1.5, not CycloneDX 1.5"),
            (lambda d: d["metadata"].update(timestamp="now"), "it has a time"),
            (lambda d: d["components"].append(d["components"][0]), "a store path is listed twice"),
        ],
    )
    def test_a_bad_bill_is_refused(
        self, claim: Claim, tmp_path: Path, image: Path, change: Callable[[Any], object], said: str
    ) -> None:
        """A missing path or field, another form, and what would make two bills differ."""
        bill = self.bill(tmp_path, NODES)
        assert said in claim("sbom-has-its-shape", changed(bill, bill, change), image)
