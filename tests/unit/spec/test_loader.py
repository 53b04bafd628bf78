"""A workload file either is what its author meant, merged with what the image promises, or is refused at its place."""

import copy
import dataclasses
import json
import re
import textwrap
from pathlib import Path

import pytest
from claw_runtime.errors import InvalidSpec
from claw_runtime.logs import MASK, mask
from claw_runtime.spec import contract, loader, plan
from claw_runtime.spec.marks import MAX_BYTES
from claw_runtime.tenancy import tenant_id
from hypothesis import given
from hypothesis import strategies as st

REPOSITORY = Path(__file__).resolve().parents[3]
EXAMPLE = REPOSITORY / "docs/examples/openclaw/workload.yaml"
CONTRACT = (REPOSITORY / "images/openclaw-nix/contract.json").read_text()
BARE = """\
id: web
image: localhost/web:1
volumes:
  state: {target: /data}
healthcheck: {path: /health}
ports:
  - container: 8080
"""
HEAD = "id: a\nimage: b\n"


def parse(text: str) -> loader.Document:
    """Load a text as `w.yaml`."""
    return loader.parse(textwrap.dedent(text), Path("w.yaml"))


def refused(text: str | bytes) -> InvalidSpec:
    """The refusal of a text, by the loader or by the plan."""
    with pytest.raises(InvalidSpec) as caught:
        plan.make(loader.parse(text, Path("w.yaml")), CONTRACT if "openclaw" in str(text) else None)
    return caught.value


# --- the file -----------------------------------------------------------------------------------------------------


def test_a_minimal_file_has_defaults() -> None:
    """id and image are enough for an image with a contract; the defaults are hardened."""
    file = parse(HEAD).workload
    assert (file.id, file.image, file.network, file.read_only) == ("a", "b", "private", True)
    assert (file.pool.min_size, file.pool.max_size, file.pool.idle_timeout) == (1, 10, None)


def test_a_whole_file_is_read() -> None:
    """Every key, with units, in the shapes of Compose."""
    file = parse(
        """
        id: nano
        name: Nano Assistant
        image: localhost/nano@sha256:0123
        contract: nano.json
        command: [node, index.js]
        environment: {NODE_ENV: production, PORT: 8080, WHO: "x-${tenantId}", MODE: "0755", COST: $5}
        volumes:
          state: {target: /app/data}
          logs: {target: /app/logs}
          secrets: {target: /secrets, read_only: true}
          books: {source: /srv/books, target: /books}
        healthcheck: {path: "/health?full=1", port: 3847, timeout: 1m30s, ignore_failing: [whatsapp]}
        ports: [{container: 3847, protocol: tcp}]
        deploy: {resources: {limits: {cpus: "1.5", memory: 2G, pids: 256}}}
        read_only: false
        network: none
        pool: {min_size: 0, max_size: 3, idle_timeout: 10m}
        sync: {exclude: ["*.lock", cache/]}
        """
    ).workload
    limits = file.deploy.resources.limits
    assert (limits.cpus, limits.memory, limits.pids) == (1.5, 2 << 30, 256)
    assert file.environment == {
        "NODE_ENV": "production",
        "PORT": "8080",
        "WHO": "x-${tenantId}",
        "MODE": "0755",
        "COST": "$5",
    }
    assert (file.healthcheck.timeout, file.healthcheck.ignore_failing) == (90, ("whatsapp",))
    assert (file.pool.min_size, file.pool.idle_timeout, file.ports[0].container) == (0, 600, 3847)
    assert (file.command, file.sync.exclude) == (("node", "index.js"), ("*.lock", "cache/"))


REFUSALS = {
    "unknown key": ("id: a\nimag: b\n", 2, 1, "unknown key 'imag'", "did you mean 'image'?"),
    "unknown nested key": (
        HEAD + "pool:\n  min_siz: 1\n",
        4,
        3,
        "unknown key 'pool.min_siz'",
        "did you mean 'min_size'?",
    ),
    "unknown key in a list": (
        HEAD + "ports:\n  - container: 1\n    protocl: tcp\n",
        5,
        5,
        "ports[0].protocl",
        "'protocol'?",
    ),
    "unknown key in a mapping": (HEAD + "volumes:\n  state: {targt: /s}\n", 4, 11, "volumes.state.targt", "'target'?"),
    "unlike anything": (HEAD + "zzz: 1\n", 3, 1, "unknown key 'zzz'", "known here: command, contract,"),
    "missing": ("id: a\n", 1, 1, "'image' is missing", "add image"),
    "missing nested": (HEAD + "volumes:\n  state: {}\n", 4, 10, "'volumes.state.target' is missing", "add"),
    "duplicate key": (
        "id: a\nimage: b\nid: c\n",
        3,
        1,
        "the key 'id' again: it is on line 1 and on line 3",
        "keep only one",
    ),
    "nested duplicate": (
        HEAD + "pool:\n  min_size: 1\n  min_size: 2\n",
        5,
        3,
        "on line 4 and on line 5",
        "keep only one",
    ),
    "wrong unit": (HEAD + "deploy: {resources: {limits: {memory: 2X}}}", 3, 39, "'2X' is not a size", ""),
    "memory without unit": (HEAD + "deploy: {resources: {limits: {memory: 2048}}}", 3, 39, "2048m or 2048g", ""),
    "cores": (HEAD + "deploy: {resources: {limits: {cpus: two}}}", 3, 37, "'two' is not a number of cores", ""),
    "duration without unit": (HEAD + "pool: {idle_timeout: '10'}", 3, 22, "write 10s for seconds", ""),
    "zero duration": (HEAD + "pool: {idle_timeout: 0}", 3, 22, "greater than 0", ""),
    "text for a flag": (HEAD + "read_only: no\n", 3, 12, "read_only: 'no' is not true or false", "without quotes"),
    "text for a number": (HEAD + "pool: {max_size: '3'}", 3, 18, "'3' is not a whole number", "without quotes"),
    "fraction": (HEAD + "pool: {max_size: 3.5}", 3, 18, "3.5 is not a whole number", ""),
    "number for a text": ("id: 7\nimage: b\n", 1, 5, "id: 7 is not a text", "quotes"),
    "null": ("id: a\nimage:\n", 2, 7, "image: null is not a text", ""),
    "scalar for a mapping": (HEAD + "pool: 3\n", 3, 7, "pool: 3 is not a mapping", ""),
    "text for a list": (HEAD + "command: sh\n", 3, 10, "command: 'sh' is not a list", "[one, two]"),
    "network": (HEAD + "network: host\n", 3, 10, "'private' or 'none'", ""),
    "pool order": (HEAD + "pool:\n  min_size: 5\n  max_size: 2\n", 4, 13, "min_size 5 is more than max_size 2", ""),
    "negative": (HEAD + "pool: {min_size: -1}", 3, 18, "greater than or equal to 0", ""),
    "id": ("id: ../x\nimage: b\n", 1, 5, "'../x' is not an id", ""),
    "image": ("id: a\nimage: --privileged\n", 2, 8, "'--privileged' is not an image", ""),
    "variable": (HEAD + "environment:\n  HOME2: ${HOME}\n", 4, 10, "uses ${HOME}, which is not declared", ""),
    "unclosed variable": (HEAD + 'environment: {A: "${tenantId"}', 3, 18, "uses ${tenantId", ""),
    "boolean variable": (HEAD + "environment: {DEBUG: true}", 3, 22, "put quotes around it", ""),
    "fraction variable": (HEAD + "environment: {VERSION: 1.10}", 3, 24, "put quotes around it", ""),
    "variable's name": (HEAD + "environment: {A-B: x}", 3, 20, "'A-B' is not a variable's name", ""),
    "nul": (HEAD + 'environment: {A: "x\\0"}', 3, 18, "NUL", ""),
    "no source": (HEAD + "volumes: {data: {target: /x}}", 3, 17, "no source", ""),
    "relative source": (HEAD + "volumes: {data: {source: x, target: /x}}", 3, 26, "not a directory on the host", ""),
    "dotted source": (HEAD + "volumes: {data: {source: /a/.., target: /x}}", 3, 26, "without '..'", ""),
    "writable custom": (HEAD + "volumes: {d: {source: /a, target: /x, read_only: false}}", 3, 50, "read-only", ""),
    "source of state": (HEAD + "volumes: {state: {source: /a, target: /x}}", 3, 27, "chooses the directory", ""),
    "read-only state": (HEAD + "volumes: {state: {target: /x, read_only: true}}", 3, 42, "always writable", ""),
    "target": (HEAD + "volumes: {state: {target: data}}", 3, 27, "not a path in the container", ""),
    "dotted target": (HEAD + "volumes: {state: {target: /a/../b}}", 3, 27, "without '..'", ""),
    "root target": (HEAD + "volumes: {state: {target: /}}", 3, 27, "not a path in the container", ""),
    "overlap": (
        HEAD + "volumes: {state: {target: /a}, logs: {target: /a/b}}",
        3,
        47,
        "overlaps with volume 'state'",
        "",
    ),
    "volume's name": (HEAD + "volumes: {A b: {source: /a, target: /x}}", 3, 16, "not a volume's name", ""),
    "port": (HEAD + "ports: [{container: 70000}]", 3, 21, "less than or equal to 65535", ""),
    "udp": (HEAD + "ports: [{container: 53, protocol: udp}]", 3, 35, "'tcp'", ""),
    "path": (HEAD + "healthcheck: {path: health}", 3, 21, "should match pattern", ""),
    "empty command": (HEAD + "command: []", 3, 10, "the command is empty", ""),
    "alias": ("id: &a a\nimage: *a\n", 2, 8, "the alias *a", "write the value out"),
    "merge key": (HEAD + "pool:\n  <<: {min_size: 1}\n", 4, 3, "unknown key 'pool.<<'", "known here"),
    "tag": ("id: !!python/name:os.system x\n", 1, 5, "the tag", "tags are not accepted"),
    "two documents": (HEAD + "---\nid: b\n", 3, 1, "a second document", "put one workload in each file"),
    "key that is a list": ("[a]: 1\n", 1, 1, "a key that is not a string", "quotes"),
    "key that is a number": (HEAD + "environment: {1: x}\n", 3, 15, "a key that is not a string", "quotes"),
    "not a mapping": ("- 1\n", 1, 1, "not a workload", "id and image"),
    "empty": ("", 1, 1, "not a workload", "id and image"),
    "tab": ("id: a\n\timage: b\n", 2, 1, "not YAML", ""),
    "variable in braces": (HEAD + "environment: {A: x-${tenantId}, B: y}", 3, 21, "not YAML", "in quotes"),
    "unclosed": ("id: [a\n", 2, 1, "not YAML", ""),
    "control character": ("id: a\x01\n", 1, 1, "not YAML", ""),
}


@pytest.mark.parametrize(("text", "line", "column", "what", "hint"), REFUSALS.values(), ids=REFUSALS)
def test_a_mistake_is_refused_at_its_place(text: str, line: int, column: int, what: str, hint: str) -> None:
    """File, line and column of the mistake, what is wrong, and what to do."""
    with pytest.raises(InvalidSpec) as caught:
        parse(text)
    assert caught.value.brief.startswith(f"w.yaml:{line}:{column}: ")
    assert what in caught.value.brief
    assert hint in caught.value.hint
    assert (caught.value.facts["line"], caught.value.facts["column"]) == (line, column)
    assert "\n" not in caught.value.brief


def test_every_mistake_is_listed() -> None:
    """One run tells all of them; the unknown key, which explains the missing one, comes first."""
    error = refused("id: A\nimag: b\npool: 3\n")
    assert error.brief == "w.yaml:2:1: unknown key 'imag'"
    assert error.why.startswith("and 3 more: ")
    assert [re.match(r"w.yaml:(\d+)", problem)[1] for problem in error.facts["problems"]] == ["2", "1", "1", "3"]


BOMBS = {
    "billion laughs": "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n",
    "self": "a: &a [*a]\n",
    "deep flow": "[" * 200_000,
    "deep mapping": "{a: " * 50_000,
    "deep block": "\n".join("  " * n + "a:" for n in range(60)),
    "large": "# " + "x" * MAX_BYTES,
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_refused(text: str) -> None:
    """Aliases, depth and size end in a refusal, quickly and without recursion."""
    assert re.search("alias|nested deeper|larger than", refused(text).brief)


def test_a_file_at_the_limit_is_read() -> None:
    """The cap is on what is larger than 256 KiB, not on what is that large."""
    text = HEAD + "#"
    assert parse(text + "x" * (MAX_BYTES - len(text))).workload.id == "a"


def test_text_that_is_not_utf8_is_refused() -> None:
    """A file in another encoding says so instead of being read wrongly."""
    assert "UTF-8" in refused(b"id: \xff\n").brief


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """A missing file and a directory are InvalidSpec with the system's reason."""
    for path in (tmp_path / "nothing.yaml", tmp_path):
        with pytest.raises(InvalidSpec, match="cannot be read") as caught:
            loader.load(path)
        assert caught.value.why


@given(st.text(max_size=200) | st.from_regex(r"(id: a\n)?([a-z]{1,5}: [\[\]{}&*!|>'\"%@`a-z0-9 ,:#?-]{0,20}\n){0,6}"))
def test_no_text_breaks_the_loader(text: str) -> None:
    """Whatever is in the file, the answer is a document or a refusal with a position."""
    brief = "w.yaml:1:1: read"
    try:
        loader.parse(text.encode("utf-8", "surrogatepass"), Path("w.yaml"))
    except InvalidSpec as error:
        brief = error.brief
    assert re.match(r"w\.yaml:\d+:\d+: .", brief)


def test_what_was_read_does_not_change() -> None:
    """Models are frozen: services can share them between threads."""
    file = parse(HEAD).workload
    with pytest.raises(ValueError, match="frozen"):
        file.pool.min_size = 5


# --- the contract -------------------------------------------------------------------------------------------------


def test_the_image_promises_what_its_contract_says() -> None:
    """The committed contract of the OpenClaw image, read through the entrypoint's own reader."""
    promise = contract.promise(CONTRACT, "image")
    document = json.loads(CONTRACT)
    assert (promise.application, promise.version) == ("openclaw", document["application"]["version"])
    assert promise.argv == tuple(document["exec"]["argv"])
    assert (promise.port, promise.ready_path, promise.live_path) == (18789, "/readyz", "/healthz")
    assert (promise.ignore_failing, promise.ready_timeout) == (("whatsapp",), 120)
    assert promise.stop_timeout == document["stop"]["timeout"]
    assert (promise.state, promise.logs, promise.values) == ("/state", "/logs", "/run/claw")
    assert promise.ephemeral == ("/config", "/tmp", "/var/tmp")
    assert promise.allowlist["OPENCLAW_GATEWAY_TOKEN"] == contract.Allowed(need="generated", secret=True)
    assert set(promise.allowlist) == set(document["values"])
    assert promise.exclude == tuple(document["sync"]["exclude"])
    assert promise.limits == contract.Limits(memory=2 << 30, pids=512)
    assert promise.plugins == ("matrix", "whatsapp")


def broken(change) -> str:
    """The contract after a change, as JSON."""
    document = copy.deepcopy(json.loads(CONTRACT))
    change(document)
    return json.dumps(document)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", "not JSON"),
        ("[]", "contract"),
        (broken(lambda d: d.update(contract=99)), "/contract"),
        (broken(lambda d: d["ports"].clear()), "/ports/gateway"),
        (broken(lambda d: d["ports"].update(gateway=99_999)), "/ports/gateway"),
        (broken(lambda d: d["exec"].update(argv=["node"])), "/exec/argv/0"),
        (broken(lambda d: d["volumes"].update({"/more": {"kind": "values"}})), "2 are of kind values"),
        (broken(lambda d: d["limits"].update(memory="2X")), "/limits/memory"),
        (broken(lambda d: d["limits"].update(cpus="many")), "/limits/cpus"),
        (broken(lambda d: d["limits"].update(pids=True)), "/limits/pids"),
        (broken(lambda d: d["limits"].update(disk="1g")), "/limits/disk"),
    ],
)
def test_a_wrong_contract_is_refused_with_its_origin(text: str, what: str) -> None:
    """The image, the place in its contract, and what to do."""
    with pytest.raises(InvalidSpec) as caught:
        contract.promise(text, "localhost/x:1")
    assert caught.value.brief.startswith("localhost/x:1: ")
    assert what in caught.value.brief
    assert caught.value.hint


# --- both ---------------------------------------------------------------------------------------------------------


def test_the_example_is_true() -> None:
    """The documented workload loads, and with the image's contract it is the pool that the documentation promises."""
    workload = plan.make(loader.load(EXAMPLE), CONTRACT)
    assert (workload.id, workload.image) == ("openclaw", "localhost/openclaw-nix:dev")
    assert workload.image == json.loads(CONTRACT)["image"]
    assert (workload.pool.min_size, workload.pool.max_size) == (2, 20)
    assert workload.limits == contract.Limits(memory=2 << 30, cpus=2.0, pids=512)
    assert (workload.network, workload.read_only, workload.port) == ("private", True, 18789)


def test_the_commented_lines_of_the_example_are_true_as_well() -> None:
    """Whoever removes a `#` from a setting gets a file that loads."""
    text = re.sub(r"^( *)#(?=\S|  )", r"\1", EXAMPLE.read_text(), flags=re.MULTILINE)
    workload = plan.make(loader.parse(text, EXAMPLE), CONTRACT)
    assert workload.values["CLAW_MODEL_ID"] == "my-model"
    assert workload.values_for(tenant_id("alice"))["OPENCLAW_MATRIX_USER_ID"] == "@alice:example.org"
    assert workload.binds[0].target == "/handbook"
    assert "workspace/**/node_modules/" in workload.exclude


def test_the_contract_fills_in() -> None:
    """A file of two lines gets everything else from the image."""
    workload = plan.make(parse(HEAD), CONTRACT)
    promise = workload.promise
    assert promise is not None
    assert (workload.port, workload.ready_path, workload.stop_timeout) == (18789, "/readyz", promise.stop_timeout)
    assert (workload.state_target, workload.logs_target, workload.values_target) == ("/state", "/logs", "/run/claw")
    assert (workload.ephemeral, workload.command, workload.limits) == (promise.ephemeral, (), promise.limits)
    assert (workload.exclude, workload.allowlist, workload.name) == (promise.exclude, promise.allowlist, "a")


def test_the_file_wins() -> None:
    """What the operator says overrides the image, one limit at a time; excludes of both count."""
    text = """
        command: [sh, -c, run]
        healthcheck: {path: /ok, ready_timeout: 5s, ignore_failing: []}
        ports: [{container: 99}]
        volumes: {state: {target: /data}, logs: {target: /var/log/x}, secrets: {target: /secrets}}
        deploy: {resources: {limits: {pids: 9}}}
        sync: {exclude: ["*.lock", mine/]}
        """
    workload = plan.make(parse(HEAD + textwrap.dedent(text)), CONTRACT)
    assert (workload.command, workload.port, workload.ready_path) == (("sh", "-c", "run"), 99, "/ok")
    assert (workload.ready_timeout, workload.ignore_failing) == (5, ())
    assert (workload.state_target, workload.logs_target, workload.values_target) == ("/data", "/var/log/x", "/secrets")
    assert workload.limits == contract.Limits(memory=2 << 30, pids=9)
    assert workload.exclude.count("*.lock") == 1
    assert workload.exclude[-1] == "mine/"


def test_allowlisted_variables_become_values() -> None:
    """Only they may name the tenant; they are no environment, and a secret one is masked from then on."""
    text = HEAD + "environment: {TZ: UTC, CLAW_MODEL_ID: 'm-${tenantId}', CLAW_MODEL_API_KEY: canary-4711}"
    workload = plan.make(parse(text), CONTRACT)
    assert workload.environment == {"TZ": "UTC"}
    values = workload.values_for(tenant_id("bob"))
    assert values == {"CLAW_MODEL_ID": "m-bob", "CLAW_MODEL_API_KEY": "canary-4711"}
    assert "canary" not in repr(workload)
    assert mask("key canary-4711") == f"key {MASK}"


def test_the_tenant_cannot_be_in_a_plain_variable() -> None:
    """A slot is made before its tenant is known, so the file is refused instead of the text being passed on."""
    error = refused(HEAD + "environment: {WHO: 'openclaw-${tenantId}'}")
    assert error.brief.startswith("w.yaml:3:20: environment.WHO uses ${tenantId}")
    assert "before its tenant is known" in error.why
    assert "CLAW_MODEL_ID" in error.hint


def test_a_workload_without_a_contract_says_the_rest_itself() -> None:
    """Port, path and state are enough; the rest is Podman's own default and nothing is allowlisted."""
    workload = plan.make(parse(BARE))
    assert (workload.port, workload.ready_path, workload.state_target) == (8080, "/health", "/data")
    assert (workload.stop_timeout, workload.ready_timeout, workload.ephemeral) == (10, 60, ("/tmp", "/var/tmp"))
    assert workload.logs_target is workload.values_target is workload.promise is None
    assert workload.limits == contract.Limits()
    assert not workload.allowlist


@pytest.mark.parametrize(
    ("gone", "missing"),
    [
        ("ports:\n  - container: 8080\n", "ports"),
        ("healthcheck: {path: /health}\n", "healthcheck.path"),
        ("volumes:\n  state: {target: /data}\n", "volumes.state.target"),
    ],
)
def test_a_workload_without_a_contract_cannot_leave_it_out(gone: str, missing: str) -> None:
    """Nobody can guess it; the message names the image that does not say it."""
    assert gone in BARE
    error = refused(BARE.replace(gone, ""))
    assert missing in error.brief
    assert "localhost/web:1" in error.why
    assert "contract" in error.hint


def test_the_probed_port_is_the_published_one() -> None:
    """Two ports in one file are a mistake; healthcheck.port alone is a port."""
    assert refused(BARE.replace("{path: /health}", "{path: /health, port: 9}")).brief.startswith("w.yaml:5:36: ")
    text = BARE.replace("ports:\n  - container: 8080\n", "").replace("{path: /health}", "{path: /health, port: 9}")
    assert plan.make(parse(text)).port == 9


@pytest.mark.parametrize("target", ["/state", "/state/x", "/config", "/run", "/run/claw/values", "/tmp/x"])
def test_a_mount_cannot_hide_one_of_the_image(target: str) -> None:
    """A custom directory over, in or around a mount of the contract is refused at its target."""
    error = refused(HEAD + f"volumes: {{openclaw-books: {{source: /srv, target: {target}}}}}")
    assert re.match(r"w\.yaml:3:\d+: volumes\.openclaw-books overlaps with", error.brief)


def test_a_custom_directory_is_a_read_only_bind() -> None:
    """It keeps its name, source and target."""
    workload = plan.make(
        parse(HEAD + "volumes: {books: {source: /srv/books, target: /books, read_only: true}}"), CONTRACT
    )
    assert workload.binds == (plan.HostBind(name="books", source=Path("/srv/books"), target="/books"),)


def test_a_contract_file_stands_in_for_a_label(tmp_path: Path) -> None:
    """It is found beside the workload file; the label of the image, when there is one, is what counts."""
    (tmp_path / "c.json").write_text(CONTRACT)
    path = tmp_path / "w.yaml"
    path.write_text(HEAD + "contract: c.json\n")
    assert plan.make(loader.load(path)).port == 18789
    label = broken(lambda document: document["ports"].update(gateway=7))
    assert plan.make(loader.load(path), label).port == 7
    (tmp_path / "c.json").unlink()
    with pytest.raises(InvalidSpec, match=r"c\.json: cannot be read") as caught:
        plan.make(loader.load(path))
    assert "contract:" in caught.value.hint


def test_a_plan_is_frozen() -> None:
    """Services share it."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.make(parse(BARE)).port = 1
