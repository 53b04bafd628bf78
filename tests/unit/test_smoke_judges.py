"""The smoke QA's own judges: each must be able to say no, or its evidence would be worth nothing."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from smoke import expected_config, ready

SMOKE = Path(ready.__file__).resolve().parent


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (200, '{"ready":true}', True),
        (503, '{"ready":false,"failing":["whatsapp"]}', True),
        (503, '{"ready":false,"failing":["whatsapp","matrix"]}', False),
        (503, '{"ready":false,"failing":["startup-sidecars"]}', False),
        (503, '{"ready":false,"failing":[]}', False),
        (503, "gateway starting", False),
        (500, '{"failing":["whatsapp"]}', False),
        (0, "connection refused", False),
    ],
)
def test_ready_is_what_the_policy_says(status: int, body: str, verdict: bool) -> None:
    """Ready is a 200, or a 503 whose every failing part may be ignored; nothing else."""
    assert ready.is_ready(status, body, ["whatsapp"]) is verdict


TEMPLATE = {"a": {"token": "${TOKEN}", "url": "x/${URL}/y"}, "on": True, "list": ["${URL}", "kept"]}
CONTRACT = {
    "values": {
        "TOKEN": {"need": "generated", "file": "/state/.claw/token"},
        "URL": {"need": "optional", "feature": "web"},
    },
    "features": {"web": [{"op": "replace", "path": "/on", "value": False}, {"op": "remove", "path": "/gone/x"}]},
}


@pytest.fixture
def judged(tmp_path: Path) -> Any:
    """Judge a seeded document; the generated token is 64 times `t` and its file private unless told otherwise."""
    (tmp_path / ".claw").mkdir()
    token = tmp_path / ".claw" / "token"
    token.write_text("t" * 64)
    token.chmod(0o600)

    def judge(seeded: Any, *given: str, mode: int = 0o600) -> int:
        token.chmod(mode)
        for name, document in (("contract", CONTRACT), ("template", TEMPLATE), ("seeded", seeded)):
            (tmp_path / name).write_text(json.dumps(document))
        return expected_config.main(*(str(tmp_path / name) for name in ("contract", "template", "seeded", "")), *given)

    return judge


WITHOUT_URL = {"a": {"token": "t" * 64}, "on": False, "list": ["kept"]}
WITH_URL = {"a": {"token": "t" * 64, "url": "x/$${HOME}/y"}, "on": True, "list": ["$${HOME}", "kept"]}


def test_the_right_document_is_accepted(judged: Any) -> None:
    """A missing value leaves its leaf out and its feature off; a given one is put in, with its own ${…} escaped."""
    assert judged(WITHOUT_URL) == 0
    assert judged(WITH_URL, "URL=${HOME}") == 0


@pytest.mark.parametrize(
    "change", [{"on": True}, {"list": ["kept", "more"]}, {"extra": 1}, {"a": {"token": "u" * 64}}, {"a": {}}]
)
def test_any_difference_is_refused(judged: Any, change: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """One leaf too many, too few or other than expected is an error that tells its place and no value."""
    assert judged(WITHOUT_URL | change) == 1
    told = capsys.readouterr().out
    assert f"/{next(iter(change))}" in told
    assert "t" * 64 not in told


def test_a_readable_token_is_refused(judged: Any) -> None:
    """A generated value that others can read is an error even when the document is right."""
    assert judged(WITHOUT_URL, mode=0o644) == 1


def smoke(tmp_path: Path, body: str) -> tuple[int, str, str]:
    """Status, standard error and evidence of a smoke script with this body, on a Podman that only answers."""
    (tmp_path / "bin").mkdir()
    podman = tmp_path / "bin" / "podman"
    podman.write_text('#!/bin/sh\necho "podman $*"\n')
    podman.chmod(0o755)
    script = tmp_path / "99-sample.sh"
    script.write_text(f'set -euo pipefail\n. "{SMOKE}/lib.sh"\nbegin task-9-sample.txt "it holds"\n{body}\n')
    environment = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "EVIDENCE_DIR": f"{tmp_path}/evidence"}
    environment |= {"TMPDIR": str(tmp_path), "CLAW_CGROUP_PARENT": "/parent"}
    result = subprocess.run(["bash", script], env=environment, capture_output=True, text=True, check=False)
    assert list(tmp_path.glob("claw-smoke.*")) == []
    return result.returncode, result.stderr, (tmp_path / "evidence" / "task-9-sample.txt").read_text()


@pytest.mark.spawns
def test_a_script_that_holds_passes(tmp_path: Path) -> None:
    """The evidence has the command, its output and its status, and ends with the verdict."""
    status, _, evidence = smoke(tmp_path, "must 'echo seen'\nwant_line '^seen$' 'a line'")
    assert (status, evidence.splitlines()[-1]) == (0, "verdict: PASS - it holds")
    assert "$ echo seen\nseen\n[status 0]\n" in evidence


@pytest.mark.spawns
@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("must 'echo oh; false'", "expected status 0; saw status 1: oh"),
        ("must 'echo seen'; want_line '^other$' 'another line'", "expected another line"),
        ("must 'echo seen'; want_no_line '^seen$' 'no line'", "expected no line"),
        ("want_equal colour blue red", "expected colour to be blue; saw red"),
        ("attempt -t 0.2 'sleep 5'", "expected an end within 0.2 s of: sleep 5; saw none"),
        ("ls /nowhere/at/all", "ended with status 2 in the middle of the script"),
    ],
)
def test_a_script_that_does_not_hold_fails_loudly(tmp_path: Path, body: str, told: str) -> None:
    """Status 1, with what was expected and what was seen, both on standard error and as the evidence's verdict."""
    status, error, evidence = smoke(tmp_path, body)
    assert status == 1
    assert told in error
    assert evidence.splitlines()[-1].startswith("verdict: FAIL - ")
    assert told in evidence


@pytest.mark.spawns
def test_commands_run_as_printed_with_what_this_host_needs(tmp_path: Path) -> None:
    """The cgroup parent and the clean-up label are added to `podman run`, and only there, without being written."""
    _, _, evidence = smoke(tmp_path, "must 'podman run --rm image true'\nmust 'podman ps'")
    assert "$ podman run --rm image true\npodman run --label io.claw.smoke=" in evidence
    assert "--cgroup-parent /parent --rm image true\n" in evidence
    assert "$ podman ps\npodman ps\n" in evidence
