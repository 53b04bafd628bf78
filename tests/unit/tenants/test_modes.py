"""A tenant may take every permission from its own state and logs: nothing of it can then block a claim or a release."""

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from claw_runtime.errors import UploadFailed
from claw_runtime.safefs.removal import remove_tree
from claw_runtime.tenancy import TenantId
from claw_runtime.tenants.purge import Purge
from claw_runtime.tenants.trees import Trees
from fakes.trees import grow, look
from fakes.world import PARKED, WORKLOAD, World

ALICE = TenantId("alice")
MODES = (0o000, 0o100, 0o200, 0o400, 0o500, 0o555, 0o600)
COMM = ".claw-volumes/comm"
WITH_COMM = WORKLOAD.replace("logs: {target: /logs}", "logs: {target: /logs}, comm: {target: /comm}")


@pytest.fixture(params=[WORKLOAD, PARKED], ids=["cold", "parked"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """Once with nothing left at rest, once with parked trees."""
    made = World(tmp_path, workload=request.param)
    made.keep()
    yield made
    made.close()
    remove_tree(tmp_path)  # pytest cannot remove every tree


def claimed(world: World) -> tuple[Path, Path]:
    """Alice's live /state and /logs, with something in each."""
    world.tenants.claim(ALICE, "small")
    state = world.state(ALICE)
    logs = state.with_name("logs")
    for root in (state, logs):
        (root / "d").mkdir(exist_ok=True)
        (root / "d" / "inner").touch()
        (root / "f").write_text(root.name)
    return state, logs


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("where", ["state", "logs", "state/d", "logs/d", "state/f", "logs/f"])
def test_no_mode_blocks_a_life(world: World, where: str, mode: int) -> None:
    """Commit, release, claim, release without a sync, and claim again; stored modes are the tenant's."""
    state, _ = claimed(world)
    (state.parent / where).chmod(mode)
    world.tenants.sync(ALICE)

    assert stat.S_IMODE((state.parent / where).stat().st_mode) == mode
    assert world.tenants.release(ALICE).generation is not None
    assert world.saved(ALICE) == {"d/inner": "", "f": "state"}
    world.tenants.claim(ALICE, "small")
    if where.startswith("state/"):
        assert stat.S_IMODE((world.state(ALICE).parent / where).lstat().st_mode) == mode
    world.state(ALICE).chmod(mode)
    world.state(ALICE).with_name("logs").chmod(mode)
    world.tenants.release(ALICE, sync=False)
    world.tenants.claim(ALICE, "small")
    world.state(ALICE).with_name("logs").chmod(0o700)
    assert (world.state(ALICE).with_name("logs") / "f").lstat().st_size == 4
    world.tenants.release(ALICE)
    assert world.leftovers() == []
    Purge(world.store, world.repository, Trees(world.layout), world.tenants.still).clean(ALICE)
    assert not world.layout.parked_tree(ALICE).exists()


@pytest.mark.parametrize("mode", MODES)
def test_no_mode_blocks_a_kept_tree(world: World, mode: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree whose upload failed is moved away and back, and is committed in the end."""
    state, _ = claimed(world)
    (state / "d").chmod(mode)
    state.chmod(mode)
    with monkeypatch.context() as patch:
        patch.setattr(world.repository.committer, "commit", _fail)
        with pytest.raises(UploadFailed):
            world.tenants.release(ALICE)
    world.tenants.claim(ALICE, "small")

    assert world.tenants.release(ALICE).generation is not None
    assert world.saved(ALICE) == {"d/inner": "", "f": "state"}


@pytest.mark.parametrize("seed", range(3))
def test_any_tree_comes_back(world: World, seed: int) -> None:
    """Through a commit and a claim, with modes, attributes, holes and times; also where its directory has no right."""
    world.tenants.claim(ALICE, "small")
    before = look(grow(world.state(ALICE), seed))
    world.state(ALICE).chmod(0)

    world.tenants.release(ALICE, affinity=False)
    world.tenants.claim(ALICE, "small")

    assert look(world.state(ALICE)) == before
    world.tenants.release(ALICE)


@pytest.mark.parametrize("mode", MODES)
def test_no_mode_blocks_a_volume(tmp_path: Path, mode: int) -> None:
    """A volume is a mount of the container: both its directory and the one above it may be closed."""
    world = World(tmp_path, workload=WITH_COMM)
    world.keep()
    world.tenants.claim(ALICE, "small")
    world.write(ALICE, {f"{COMM}/a": "1"})
    for path in (COMM, ".claw-volumes"):
        (world.state(ALICE) / path).chmod(mode)

    world.tenants.release(ALICE)
    world.tenants.claim(ALICE, "small")

    (world.state(ALICE) / ".claw-volumes").chmod(0o700)
    (world.state(ALICE) / COMM).chmod(0o700)
    assert (world.state(ALICE) / COMM / "a").read_text() == "1"
    world.tenants.release(ALICE)
    world.close()


def _fail(_request: object) -> None:
    raise UploadFailed("the store is down", hint="wait")
