"""One seeding, in this process: what is in /config afterwards, and when there is nothing."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from claw_entrypoint.contract import load
from claw_entrypoint.errors import SeedError
from claw_entrypoint.log import Log
from claw_entrypoint.seed import seed
from fakes.image_root import contract_document, events, furnish, hand_over


def run(root: Path, *, strict: bool = True, **environment: str) -> None:
    """Seed this root."""
    seed(load(str(root / "etc/claw/contract.json")), environment, Log(strict=strict), str(root))


def config(root: Path) -> dict[str, Any]:
    """The configuration that the gateway would read."""
    document: dict[str, Any] = json.loads((root / "config/openclaw.json").read_text())
    return document


def wanting(**need: dict[str, object]) -> dict[str, object]:
    """The real contract's values and these."""
    values: dict[str, object] = contract_document()["values"]
    return values | need


def test_the_configuration_is_private_and_alone(tmp_path: Path) -> None:
    """It is 0600, and nothing of an earlier start is left beside it; the directory is the same one."""
    root = furnish(tmp_path)
    (root / "config/stale/deep").mkdir(parents=True)
    (root / "config/openclaw.json.last-good").write_text("{}")
    (root / "config/openclaw.json").mkdir()
    inode = (root / "config").stat().st_ino

    run(root)

    assert os.listdir(root / "config") == ["openclaw.json"]
    assert stat.S_IMODE((root / "config/openclaw.json").stat().st_mode) == 0o600
    assert inode == (root / "config").stat().st_ino


def test_every_start_renders_anew(tmp_path: Path) -> None:
    """What the gateway or the tenant wrote into the configuration does not outlive the start."""
    root = furnish(tmp_path)
    run(root, OPENROUTER_API_KEY="one")
    (root / "config/openclaw.json").write_text('{"evil": true}')

    run(root, OPENROUTER_API_KEY="two")

    assert config(root)["env"]["vars"] == {"OPENROUTER_API_KEY": "two"}
    assert "evil" not in config(root)


def test_a_value_from_the_runtime_reaches_the_configuration(tmp_path: Path) -> None:
    """And the generated token is made only when none was given."""
    root = furnish(tmp_path)
    hand_over(root, OPENCLAW_GATEWAY_TOKEN="given")

    run(root, OPENCLAW_GATEWAY_TOKEN="environment")

    assert config(root)["gateway"]["auth"]["token"] == "given"
    assert not (root / "state/.claw").exists()


def test_the_generated_token_is_the_gateway_s(tmp_path: Path) -> None:
    """Without any value the configuration has the token that is kept in the state."""
    root = furnish(tmp_path)

    run(root)

    assert (root / "state/.claw/gateway-token").read_text().strip() == config(root)["gateway"]["auth"]["token"]


def test_required_values_that_are_missing_end_the_start(tmp_path: Path) -> None:
    """One message has all their names and what to do, and /config holds nothing stale."""
    need = {"need": "required", "secret": True}
    root = furnish(tmp_path, values=wanting(ONE=need, TWO=need, THREE=need))
    (root / "config/openclaw.json").write_text("{}")

    with pytest.raises(SeedError, match="required value missing: ONE, THREE") as caught:
        run(root, TWO="x")

    assert "ONE_FILE" in caught.value.hint
    assert caught.value.exit_code == 78
    assert os.listdir(root / "config") == []


def test_a_command_gets_a_configuration_without_the_required_value(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Leniently a missing value is a warning."""
    root = furnish(tmp_path, values=wanting(ONE={"need": "required", "secret": True}))

    run(root, strict=False)

    assert config(root)["gateway"]["mode"] == "local"
    messages = [event.get("message", "") for event in events(capfd.readouterr().err)]
    assert "required value missing: ONE" in messages


def test_a_default_stands_in_for_a_missing_value(tmp_path: Path) -> None:
    """The feature stays on, with the default."""
    values = wanting(OPENROUTER_API_KEY={"need": "optional", "secret": False, "default": "anonymous"})
    root = furnish(tmp_path, values=values)

    run(root)

    assert config(root)["env"]["vars"] == {"OPENROUTER_API_KEY": "anonymous"}


def test_only_a_gateway_s_start_sweeps(tmp_path: Path) -> None:
    """A shell beside a running gateway leaves its locks alone."""
    root = furnish(tmp_path)
    lock = root / "state/.openclaw/tmp/lock"
    lock.parent.mkdir(parents=True)
    lock.write_text("x")

    run(root, strict=False)
    assert lock.exists()
    run(root)
    assert not lock.exists()


def test_nothing_of_the_tenant_s_is_deleted(tmp_path: Path) -> None:
    """A full state is afterwards what it was, and the stubs and the token beside it."""
    root = furnish(tmp_path)
    kept = [root / "state" / place for place in ("workspace/a", ".openclaw/agents/main/b", "home/.cache/c", "odd/d")]
    for path in (*kept, root / "logs/openclaw.log"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("precious")

    run(root)

    assert all(path.read_text() == "precious" for path in (*kept, root / "logs/openclaw.log"))


@pytest.mark.parametrize("text", [None, "{", "[]", '{"a": "${HOME}"}', '{"${OPENROUTER_API_KEY}": 1}'])
def test_a_bad_template_ends_the_start(tmp_path: Path, text: str | None) -> None:
    """Missing, broken, no object, or with a name or key that may not be: exit code 78, and an empty /config."""
    root = furnish(tmp_path)
    template = root / "etc/claw/openclaw.json"
    template.unlink()
    if text is not None:
        template.write_text(text)

    with pytest.raises(SeedError, match="template"):
        run(root, HOME="/root")

    assert os.listdir(root / "config") == []


def test_a_config_that_cannot_be_used_ends_the_start(tmp_path: Path) -> None:
    """The message says how to mount one."""
    root = furnish(tmp_path)
    (root / "config").rmdir()
    (root / "config").symlink_to(root / "logs")

    with pytest.raises(SeedError, match="cannot use /config") as caught:
        run(root)

    assert "--tmpfs /config" in caught.value.hint
    assert os.listdir(root / "logs") == []


def test_the_template_is_read_from_the_image_alone(tmp_path: Path) -> None:
    """A template that the tenant keeps in its state has no say."""
    root = furnish(tmp_path)
    (root / "state/openclaw.json").write_text('{"evil": true}')
    (root / "state/.openclaw").mkdir()
    (root / "state/.openclaw/openclaw.json").write_text('{"evil": true}')

    run(root)

    assert "evil" not in config(root)
