"""A contract is read whole, or refused with the place and the reason."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from claw_entrypoint.contract import Operation, Stop, is_name, load, parse
from claw_entrypoint.errors import ContractError, SeedError
from fakes.image_root import IMAGE, contract_document, template_document

Change = Callable[[dict[str, Any]], object]


def test_every_field_reaches_its_reader() -> None:
    """What the document says is what the contract holds, for the entrypoint and for the runtime."""
    document = contract_document()
    contract = load(str(IMAGE / "contract.json"))

    assert (contract.application, contract.version) == ("openclaw", "2026.6.11")
    assert tuple(document["exec"]["argv"]) == contract.exec.argv
    assert Stop(signal="SIGTERM", timeout=330) == contract.stop
    assert (
        contract.probes.live,
        contract.probes.ready,
        contract.probes.ignore_failing,
        contract.probes.timeout,
    ) == ("/healthz", "/readyz", ("whatsapp",), 120)
    assert document["ports"] == contract.ports
    assert document["environment"] == contract.environment
    assert tuple(document["sync"]["exclude"]) == contract.sync_exclude
    assert Operation(op="remove", path=("models", "providers", "claw"), value=None) == contract.features["model"][0]
    assert contract.values["OPENCLAW_MATRIX_TOKEN"].feature == "matrix"
    assert [plugin.id for plugin in contract.plugins] == ["matrix", "whatsapp"]


def test_a_contract_cannot_be_changed() -> None:
    """Nobody who was handed a contract can change it for the others."""
    with pytest.raises(AttributeError, match="read-only"):
        parse(contract_document()).name = "other"


def test_a_workload_without_plugins_features_or_sweep_needs_not_name_them() -> None:
    """Only what every image has is required."""
    document = contract_document()
    optional = ("plugins", "sweep", "skeleton", "sync", "tools", "boot_tuning", "limits", "capabilities", "ports")
    for key in (*optional, "prewarm", "discovery"):
        document.pop(key, None)

    contract = parse(document)

    assert (contract.plugins, contract.sweep, contract.plugin_projects, contract.ports) == ((), (), "", {})


def test_a_pointer_is_decoded() -> None:
    """`~1` and `~0` in an operation's path stand for `/` and `~`."""
    document = contract_document()
    document["features"]["matrix"] = [{"op": "remove", "path": "/a~1b/~01"}]

    assert parse(document).features["matrix"][0].path == ("a/b", "~1")


REFUSED: list[tuple[str, str, Change]] = [
    ("/contract", "version 1", lambda d: d.update(contract=2)),
    ("/contract", "version 1", lambda d: d.update(contract=True)),
    ("/contract", "missing", lambda d: d.pop("contract")),
    ("/exec", "missing", lambda d: d.pop("exec")),
    ("/exec/argv", "empty", lambda d: d["exec"].update(argv=[])),
    ("/exec/argv", "array", lambda d: d["exec"].update(argv="node")),
    ("/exec/argv/0", "absolute", lambda d: d["exec"].update(argv=["node"])),
    ("/exec/argv/1", "text", lambda d: d["exec"].update(argv=["/bin/node", 1])),
    ("/exec/env", "is not one of", lambda d: d["exec"].update(env={})),
    ("/exec/environment/A", "text", lambda d: d["exec"].update(environment={"A": 1})),
    ("/exec/environment/A", "NUL", lambda d: d["exec"].update(environment={"A": "\0"})),
    ("/stop/timeout", "positive", lambda d: d["stop"].update(timeout=0)),
    ("/stop/timeout", "positive", lambda d: d["stop"].update(timeout=True)),
    ("/probes/live", "missing", lambda d: d["probes"].pop("live")),
    ("/probes/ready/bearer", "not in", lambda d: d["probes"]["ready"].update(bearer="OTHER")),
    ("/volumes/~1state/kind", "expected ephemeral", lambda d: d["volumes"]["/state"].update(kind="tmp")),
    ("/volumes/state", "absolute", lambda d: d["volumes"].update(state={"kind": "state"})),
    ("/skeleton/0", "absolute", lambda d: d.update(skeleton=["/state/../etc"])),
    ("/skeleton/0", "not below", lambda d: d.update(skeleton=["/etc/x"])),
    ("/skeleton/0", "not below", lambda d: d.update(skeleton=["/statex"])),
    ("/sweep/0", "not below", lambda d: d.update(sweep=["/logs/tmp"])),
    ("/sweep/0", "whole volume", lambda d: d.update(sweep=["/state"])),
    ("/template/target", "not below", lambda d: d["template"].update(target="/state/openclaw.json")),
    ("/template/target", "volume itself", lambda d: d["template"].update(target="/config/a/openclaw.json")),
    ("/values/a", "A-Z", lambda d: d["values"].update(a={"need": "required", "secret": True})),
    ("/values/A/need", "required", lambda d: d["values"].update(A={"need": "wanted", "secret": True})),
    ("/values/A/secret", "true or false", lambda d: d["values"].update(A={"need": "required", "secret": 1})),
    ("/values/A/file", "generated", lambda d: d["values"].update(A={"need": "generated", "secret": True})),
    ("/values/A/sceret", "is not one of", lambda d: d["values"].update(A={"need": "required", "sceret": True})),
    ("/values/OPENROUTER_API_KEY/feature", "not in", lambda d: d["features"].pop("openrouter")),
    ("/features/matrix/0/op", "replace or remove", lambda d: d["features"]["matrix"][0].update(op="add")),
    ("/features/matrix/0/value", "replace needs", lambda d: d["features"]["matrix"][0].pop("value")),
    ("/features/matrix/0/path", "pointer", lambda d: d["features"]["matrix"][0].update(path="enabled")),
    ("/plugins/projects", "not below", lambda d: d["plugins"].update(projects="/opt/projects")),
    ("/plugins/entries/0/project", "absolute", lambda d: d["plugins"]["entries"][0].update(project="../x")),
    ("/plugins/entries/0/package", "absolute", lambda d: d["plugins"]["entries"][0].update(package="a/../../x")),
    ("/capabilities/prewarm", "true or false", lambda d: d["capabilities"].update(prewarm="no")),
    (
        "/capabilities/prewarm",
        "only then",
        lambda d: d["capabilities"].update(prewarm=not d["capabilities"]["prewarm"]),
    ),
    ("/discovery/source", "absolute", lambda d: d["discovery"].update(source="extensions")),
    ("/discovery/value", "not in /values", lambda d: d["values"].pop("CLAW_BUNDLED_EXTENSIONS")),
    ("/discovery/features/x", "not in /features", lambda d: d["discovery"].update(features={"x": ["y"]})),
    ("/discovery/sources", "is not one of", lambda d: d["discovery"].update(sources="/x")),
    ("/prewarm/argv/0", "absolute", lambda d: d.update(prewarm={"argv": ["node"], "modules": "/x"})),
    ("/prewarm/modules", "missing", lambda d: d.update(prewarm={"argv": ["/node"]})),
    ("/prewarm/module", "is not one of", lambda d: d.update(prewarm={"argv": ["/node"], "module": "/x"})),
]


@pytest.mark.parametrize(("where", "what", "change"), REFUSED, ids=[f"{w} {t}" for w, t, _ in REFUSED])
def test_a_defect_is_named_with_its_place(where: str, what: str, change: Change) -> None:
    """A contract with one defect is refused, and the error points at that defect."""
    document = contract_document()
    change(document)

    with pytest.raises(ContractError) as caught:
        parse(document)

    assert where == caught.value.where
    assert what in caught.value.what


@pytest.mark.parametrize("document", [None, [], "x", 3, True])
def test_something_else_than_an_object_is_refused(document: object) -> None:
    """A document that is no object is refused as a whole."""
    with pytest.raises(ContractError, match="expected an object"):
        parse(document)


def test_a_file_that_cannot_be_read_is_a_contract_error(tmp_path: Path) -> None:
    """A missing, broken or binary file is the same kind of error, exit code 78, with the file's name."""
    broken, binary = tmp_path / "broken.json", tmp_path / "binary.json"
    broken.write_text(json.dumps(contract_document())[:-1])
    binary.write_bytes(b"\xff")
    for path in (tmp_path / "none.json", broken, binary):
        with pytest.raises(SeedError, match=path.name) as caught:
            load(str(path))

        assert caught.value.exit_code == 78


@pytest.mark.parametrize(("text", "good"), [("A", True), ("_9", True), ("A_B9", True), ("", False), ("9A", False)])
def test_a_name_is_upper_case(text: str, good: bool) -> None:
    """A name is of OpenClaw's grammar."""
    assert good is is_name(text)
    assert not is_name(text + "a")
    assert not is_name(text + "\n")
    assert not is_name(text + "É")


def test_a_tool_call_finds_the_tenant_s_programs_where_a_shell_does() -> None:
    """OpenClaw puts the state's directories last in the PATH of its tool calls, unless its configuration names them."""
    mine = [path for path in contract_document()["environment"]["PATH"].split(":") if path.startswith("/state/")]
    assert template_document()["tools"]["exec"]["pathPrepend"] == mine
