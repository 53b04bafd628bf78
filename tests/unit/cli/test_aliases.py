"""Scripts for boilerhouse find the words and forms that they know."""

import json
from pathlib import Path

import pytest
from claw_runtime.cli import aliases
from claw_runtime.cli import main as cli


@pytest.mark.parametrize(
    ("program", "arguments", "form"),
    [
        ("/usr/local/bin/boilerhouse", ["claim", "alice", "-p", "openclaw"], "json"),
        ("boilerhouse", ["status", "alice"], "json"),
        ("boilerhouse", ["release", "alice"], "text"),
        ("boilerhouse", ["sync:cat", "alice", "status"], "text"),
        ("boilerhouse", [], "text"),
        ("/usr/local/bin/claw-runtime", ["claim", "alice"], "text"),
    ],
)
def test_a_link_named_boilerhouse_prints_json(program: str, arguments: list[str], form: str) -> None:
    """For the verbs whose answers its users pass to jq, and for no other."""
    assert aliases.default_form(program, arguments) == form


@pytest.mark.parametrize(("options", "is_json"), [([], True), (["-o", "text"], False)])
def test_the_name_of_the_program_decides(
    options: list[str],
    is_json: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Errors have that form too; a form on the command line wins."""
    monkeypatch.setenv("CLAW_HOME", str(tmp_path))
    monkeypatch.setenv("CLAW_RUN", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["/opt/boilerhouse"])
    with pytest.raises(SystemExit):
        cli.main(["claim", "alice", *options])
    said = capsys.readouterr()
    if is_json:
        assert json.loads(said.err)["messageType"] == "exit_error"
    else:
        assert "{" not in said.out + said.err
