"""A start prepares the tenant's volumes, keeps what is the tenant's, and steps into no trap."""

import json
import os
import stat
from pathlib import Path

import pytest
from claw_entrypoint import state
from claw_entrypoint.contract import Contract, Value, parse
from claw_entrypoint.errors import SeedError
from claw_entrypoint.log import Log
from fakes.image_root import contract_document, events

STRICT, LENIENT = Log(strict=True), Log(strict=False)
MATRIX = "state/.openclaw/npm/projects/openclaw-matrix-e2adb32e7f"
LINK = f"{MATRIX}/node_modules/@openclaw/matrix"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    (tmp_path / "logs").mkdir()
    return tmp_path


@pytest.fixture
def contract() -> Contract:
    return parse(contract_document())


@pytest.fixture
def token(contract: Contract) -> Value:
    return contract.values["OPENCLAW_GATEWAY_TOKEN"]


def names(capfd: pytest.CaptureFixture[str]) -> list[str]:
    """The events logged so far."""
    return [event["event"] for event in events(capfd.readouterr().err)]


def test_every_directory_of_the_environment_is_made(root: Path, contract: Contract) -> None:
    """The skeleton exists, private, and a second start changes nothing in it."""
    (root / "state/home").mkdir(mode=0o755)
    (root / "state/home/.bashrc").write_text("mine")
    for _ in range(2):
        state.skeleton(contract, STRICT, str(root))

        assert all((root / path[1:]).is_dir() for path in contract.skeleton)
        assert stat.S_IMODE((root / "state/.openclaw").stat().st_mode) == 0o700
        assert stat.S_IMODE((root / "state/home").stat().st_mode) == 0o755
        assert (root / "state/home/.bashrc").read_text() == "mine"


@pytest.mark.parametrize("planted", ["link", "dangling", "file"])
def test_a_trap_in_the_skeleton_s_place_is_reported_and_left(
    root: Path, contract: Contract, planted: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is made through a link, the start goes on with the other directories, and the trap stays."""
    (root / "outside").mkdir()
    place = root / "state/.openclaw"
    if planted == "file":
        place.write_text("x")
    else:
        place.symlink_to(root / "outside" / ("" if planted == "link" else "made"))

    state.skeleton(contract, STRICT, str(root))

    assert os.listdir(root / "outside") == []
    assert names(capfd) == ["skeleton.not_a_directory"]
    assert not place.is_dir() or place.is_symlink()
    assert (root / "state/workspace").is_dir()


def test_what_a_killed_gateway_left_is_swept(root: Path, contract: Contract) -> None:
    """Captures and locks below the contract's sweep go; the directory and its neighbours stay."""
    tmp = root / "state/.openclaw/tmp"
    (tmp / "plugin-captures/x/y").mkdir(parents=True)
    (tmp / "plugin-captures/x/y/file").write_text("x")
    (tmp / "lock").symlink_to(root / "state/.openclaw/keep")
    (root / "state/.openclaw/keep").write_text("x")

    state.sweep(contract, STRICT, str(root))

    assert os.listdir(tmp) == []
    assert sorted(os.listdir(root / "state/.openclaw")) == ["keep", "tmp"]


def test_locks_of_an_ended_container_do_not_meet_the_next(root: Path, contract: Contract) -> None:
    """Those of the program's own directories go, at any level that the contract names. A user's locks and other files
    stay, and no link is followed."""
    state_dir = root / "state"
    gone = [".openclaw/a.lock", ".openclaw/agents/main/agent/s/b.lock", ".openclaw/credentials/c.lock"]
    stays = [".openclaw/other/d.lock", ".openclaw/agents/main/e.txt", "workspace/uv.lock", "outside/f.lock"]
    for name in (*gone, *stays):
        (state_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (state_dir / name).write_text("7")
    (state_dir / ".openclaw/agents/g.lock").mkdir()
    (state_dir / ".openclaw/agents/link").symlink_to(state_dir / "outside")

    state.sweep(contract, STRICT, str(root))

    assert [name for name in gone if (state_dir / name).exists()] == []
    assert [name for name in stays if not (state_dir / name).exists()] == []
    assert sorted(os.listdir(state_dir / ".openclaw/agents")) == ["link", "main"]


def test_a_sweep_without_anything_to_sweep_is_silent(
    root: Path, contract: Contract, capfd: pytest.CaptureFixture[str]
) -> None:
    """A new tenant has no tmp yet."""
    state.sweep(contract, STRICT, str(root))

    assert names(capfd) == []


@pytest.mark.parametrize("where", ["state/.openclaw", "state/.openclaw/tmp"])
def test_a_sweep_is_not_led_astray(
    root: Path, contract: Contract, where: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """With a link in the path nothing is deleted anywhere, and the start goes on."""
    (root / "outside/tmp").mkdir(parents=True)
    (root / "outside/tmp/precious").write_text("x")
    (root / where).parent.mkdir(exist_ok=True)
    (root / where).symlink_to(root / ("outside/tmp" if where.endswith("tmp") else "outside"))

    state.sweep(contract, STRICT, str(root))

    assert (root / "outside/tmp/precious").exists()
    assert names(capfd) == ["sweep.skipped"]


def test_plugins_are_linked_to_this_image(root: Path, contract: Contract, capfd: pytest.CaptureFixture[str]) -> None:
    """Each project names the package in the contract's version, and links to the baked directory."""
    state.plugins(contract, STRICT, str(root))

    expected = {"private": True, "dependencies": {"@openclaw/matrix": contract.version}}
    assert expected == json.loads((root / MATRIX / "package.json").read_text())
    assert contract.plugins[0].path == os.readlink(root / LINK)
    assert (root / "state/.openclaw/npm/projects/openclaw-whatsapp-290d7f7427/package.json").is_file()
    assert names(capfd) == []


def test_a_second_start_touches_no_plugin(root: Path, contract: Contract) -> None:
    """What is right already keeps its inode, so that nothing of it is new to a snapshot."""
    state.plugins(contract, STRICT, str(root))
    before = [os.lstat(root / place).st_ino for place in (LINK, f"{MATRIX}/package.json")]

    state.plugins(contract, STRICT, str(root))

    assert before == [os.lstat(root / place).st_ino for place in (LINK, f"{MATRIX}/package.json")]


def plant(root: Path, what: str) -> None:
    """Leave something else where the stub of the matrix plugin belongs."""
    outside, project, link = root / "outside", root / MATRIX, root / LINK
    link.parent.mkdir(parents=True)
    match what:
        case "a dangling link":
            link.symlink_to("/nix/store/gone")
        case "a link elsewhere":
            link.symlink_to(outside)
        case "a directory":
            link.mkdir()
            (link / "evil.js").write_text("x")
        case "a file":
            link.write_text("x")
        case "node_modules as a link":
            link.parent.rmdir()
            (project / "node_modules").rmdir()
            (project / "node_modules").symlink_to(outside)
        case "the project as a link":
            link.parent.rmdir()
            (project / "node_modules").rmdir()
            project.rmdir()
            project.symlink_to(outside)
        case "package.json as a link":
            (project / "package.json").symlink_to(outside / "precious")
        case "package.json as a directory":
            (project / "package.json/in").mkdir(parents=True)
        case "package.json as a FIFO":
            os.mkfifo(project / "package.json")
        case "another version":
            (project / "package.json").write_text('{"private": true, "dependencies": {"@openclaw/matrix": "1"}}')


@pytest.mark.parametrize(
    "what",
    [
        "a dangling link",
        "a link elsewhere",
        "a directory",
        "a file",
        "node_modules as a link",
        "the project as a link",
        "package.json as a link",
        "package.json as a directory",
        "package.json as a FIFO",
        "another version",
    ],
)
def test_anything_in_a_plugin_s_place_gives_way(root: Path, contract: Contract, what: str) -> None:
    """The stub is right afterwards, nothing was written through a link, and no file of the tenant is destroyed."""
    (root / "outside").mkdir()
    (root / "outside/precious").write_text("precious")
    plant(root, what)

    state.plugins(contract, STRICT, str(root))

    assert contract.plugins[0].path == os.readlink(root / LINK)
    assert contract.version in (root / MATRIX / "package.json").read_text()
    assert not (root / MATRIX).is_symlink()
    assert os.listdir(root / "outside") == ["precious"]
    assert (root / "outside/precious").read_text() == "precious"
    if what == "a directory":
        assert [path.name for path in (root / LINK).parent.glob(".claw-replaced-*/*")] == ["evil.js"]


def test_a_trap_above_the_projects_costs_only_the_plugins(
    root: Path, contract: Contract, capfd: pytest.CaptureFixture[str]
) -> None:
    """A link where the projects' parent belongs is not followed; the start warns and goes on."""
    (root / "outside").mkdir()
    (root / "state/.openclaw").mkdir()
    (root / "state/.openclaw/npm").symlink_to(root / "outside")

    state.plugins(contract, STRICT, str(root))

    assert os.listdir(root / "outside") == []
    assert names(capfd) == ["plugin.unavailable"] * 2


def test_a_generated_value_is_made_once(root: Path, token: Value, capfd: pytest.CaptureFixture[str]) -> None:
    """It has 256 bits, is kept 0600, and is the same at the next start; only its place is logged."""
    first = state.generated(token, STRICT, str(root))
    place = root / token.file[1:]

    assert first is not None
    assert len(bytes.fromhex(first)) == 32
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert [place.name] == os.listdir(place.parent)
    assert first == state.generated(token, STRICT, str(root))
    text = capfd.readouterr().err
    assert [event["event"] for event in events(text)] == ["value.generated", "value.kept"]
    assert all(event["place"] == token.file for event in events(text))
    assert first not in text


def test_no_two_tenants_get_the_same_value(root: Path, tmp_path: Path, token: Value) -> None:
    """Each state has its own."""
    made = set()
    for name in "abc":
        (root / name / "state").mkdir(parents=True)
        made.add(state.generated(token, STRICT, str(root / name)))

    assert len(made) == 3


def test_an_empty_file_is_not_taken_for_a_token(root: Path, token: Value) -> None:
    """A crash of some other writer cannot leave a gateway with an empty token."""
    (root / "state/.claw").mkdir()
    (root / "state/.claw/gateway-token").write_text("\n")

    assert state.generated(token, STRICT, str(root))


@pytest.mark.parametrize("planted", ["link", "link to its directory", "directory", "FIFO", "not UTF-8", "NUL"])
def test_something_planted_for_a_token_ends_the_start(
    root: Path, token: Value, planted: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither read nor replaced: exit code 78 with the place, and for a command a warning and no value."""
    (root / "outside").mkdir()
    (root / "outside/secret").write_text("sesame")
    place = root / "state/.claw/gateway-token"
    if planted == "link to its directory":
        place.parent.symlink_to(root / "outside")
    else:
        place.parent.mkdir()
    match planted:
        case "link":
            place.symlink_to(root / "outside/secret")
        case "directory":
            place.mkdir()
        case "FIFO":
            os.mkfifo(place)
        case "not UTF-8":
            place.write_bytes(b"sesame\xff")
        case "NUL":
            place.write_bytes(b"ses\0ame")

    with pytest.raises(SeedError, match="OPENCLAW_GATEWAY_TOKEN") as caught:
        state.generated(token, STRICT, str(root))
    assert token.file in caught.value.brief
    assert caught.value.hint
    assert None is state.generated(token, LENIENT, str(root))
    assert "sesame" not in capfd.readouterr().err + caught.value.brief
    assert os.listdir(root / "outside") == ["secret"]
