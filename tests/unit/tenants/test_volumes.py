"""A tenant's volumes besides its state, and what a tenant or a crash may make of them."""

from pathlib import Path
from typing import Any

import pytest
from claw_runtime.errors import StoreUnavailable, UploadFailed
from claw_runtime.tenancy import TenantId
from claw_runtime.tenants import trees
from fakes.refusals import refuse
from fakes.world import WORKLOAD, World

ALICE = TenantId("alice")
OWN = ".claw-volumes"
WITH_COMM = (
    WORKLOAD.replace("logs: {target: /logs}", "logs: {target: /logs}, comm: {target: /comm}")
    .replace("affinity_timeout: 0", "affinity_timeout: 60s, warmth: {created: 1, tree: 1}")
    .replace("min_size: 2, ", "")
)
pytestmark = pytest.mark.world(workload=WITH_COMM)


def kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alice's tree, with three files in its volume, is kept on this host."""
    world.tenants.claim(ALICE, "small")
    world.write(ALICE, {f"{OWN}/comm/a": "1", f"{OWN}/comm/b": "2", "colour": "blue"})
    with monkeypatch.context() as patch:
        patch.setattr(world.store, "put", refuse(StoreUnavailable("down")))
        with pytest.raises(UploadFailed):
            world.tenants.release(ALICE)


WHOLE = {f"{OWN}/comm/a": "1", f"{OWN}/comm/b": "2", "colour": "blue"}


class TestHalfMoved:
    def half_moved(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """The disk fails while a kept tree moves into its slot: one file of the volume is there, one is not."""
        real = trees.move_entries

        def failing(source: Path, target: Path, *, into: Any = ()) -> int:
            if source.name != "kept":
                return real(source, target, into=into)
            (source / OWN / "comm" / "a").rename(target / OWN / "comm" / "a")
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(trees, "move_entries", failing)
            with pytest.raises(OSError, match="Input"):
                world.tenants.claim(ALICE, "small")

    def test_it_is_put_together_again(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """The claim is taken back, the tree is kept whole, and the next claim has all of it."""
        kept(world, monkeypatch)

        self.half_moved(world, monkeypatch)

        world.recovery.retry()
        assert world.row_state(ALICE) == "cold"
        assert world.saved(ALICE) == WHOLE

    def test_by_a_new_daemon_too(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """Likewise when only a new daemon finds it so."""
        kept(world, monkeypatch)
        with monkeypatch.context() as patch:
            patch.setattr(world.releaser, "undo", refuse(OSError(5, "Input/output error")))
            self.half_moved(world, monkeypatch)
        world.restart()

        world.recover()
        world.recovery.retry()

        assert world.saved(ALICE) == WHOLE


class TestReplaced:
    @pytest.mark.parametrize("made", ["file", "link", "comm is a file", "comm is a link"])
    @pytest.mark.parametrize("way", ["restored", "parked"])
    def test_a_tenant_that_replaced_them_can_be_claimed(self, world: World, made: str, way: str) -> None:
        """Whatever a tenant put in the place of its volumes is set aside, and its next claim succeeds."""
        world.tenants.claim(ALICE, "small")
        world.write(ALICE, {"colour": "blue"})
        place = world.state(ALICE) / OWN
        (place / "comm").rmdir()
        if made.startswith("comm"):
            place = place / "comm"
        else:
            place.rmdir()
        if made.endswith("file"):
            place.write_text("mine")
        else:
            place.symlink_to("/etc")
        world.tenants.release(ALICE, affinity=way == "parked")

        claim = world.tenants.claim(ALICE, "small")

        assert claim.state == ("tree" if way == "parked" else "restored")
        assert (world.state(ALICE) / OWN / "comm").is_dir()
        assert not (world.state(ALICE) / OWN / "comm").is_symlink()
        assert (world.state(ALICE) / "colour").read_text() == "blue"
        world.tenants.release(ALICE, affinity=False)
        assert world.row_state(ALICE) == "cold"
