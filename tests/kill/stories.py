"""What happens to a tenant while its daemon is killed: each story is told without a kill, then once for each point.

A story is told to a `Host`: to the services themselves in a process that dies with them, or over the API to a daemon on
real Podman. What its tenants' programs write counts as written once `write` has returned.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from claw_runtime.errors import ClawError
from kill.image import BAD, IMAGE, MARKER, NEXT, contract

POOL = "small"
ALICE, BOB, CAROL = "alice", "bob", "carol"


class Host(Protocol):
    """One host with one pool, and a store that can be away."""

    def claim(self, tenant: str) -> None: ...

    def release(self, tenant: str, *, affinity: bool = True) -> None: ...

    def drop(self, tenant: str) -> None:
        """Release without a commit: nobody counts on what was written since the last one."""

    def sync(self, tenant: str) -> None: ...

    def write(self, tenant: str, files: Mapping[str, str]) -> None:
        """What the program of a claimed tenant writes into /state."""

    def keep(self) -> None:
        """Let the pool come to what it should be."""

    def expire(self) -> None:
        """Let the time of those at rest pass, and somebody look."""

    def retry(self) -> None:
        """Let somebody try again what failed."""

    def crash(self, tenant: str) -> None:
        """End a tenant's program behind everybody's back, and let somebody look."""

    def store(self, *, away: bool) -> None:
        """Let the store go away, or come back."""

    def go_on_elsewhere(self, tenant: str, files: Mapping[str, str]) -> None:
        """Let another host claim a tenant that is not held here, write, and release it."""

    def come_up(self) -> None:
        """Let a daemon that starts recover everybody, and claim those again that a reboot took down."""

    def scale(self, least: int) -> None: ...

    def recycle(self) -> None: ...

    def upgrade(self, image: str) -> None:
        """Move the pool to an image, until that is done or has failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One way of a tenant.

    Attributes:
        pool: The `pool:` line of the workload.
        before: What has happened when the fuse is armed; `bob` runs beside all the time.
        told: What happens then, and is cut short by the kill.
        upgrade: What becomes of the upgrade that it tells of: everybody is up afterwards, with one image or the other.
        drops: What programs wrote may be dropped: they were on trial, or somebody asked for that.
        reboots: The machine ends between `before` and `told`, with its daemon and all containers, and starts again.
    """

    name: str
    pool: str
    told: Callable[[Host], None]
    before: Callable[[Host], None]
    upgrade: Literal["done", "failed"] | None = None
    drops: bool = False
    reboots: bool = False

    def put(self, place: Path) -> Path:
        """The workload's file in a directory, with its contract beside it."""
        (place / "contract.json").write_text(contract())
        file = place / "small.yaml"
        file.write_text(f"id: {POOL}\nimage: {IMAGE}\ncontract: contract.json\n{self.pool}\n")
        return file


OLD = {MARKER: ALICE, "colour": "old", "memory/words": "old"}
NEW = {"colour": "green", "memory/words": "newest", "other": "too"}
LEFT = {MARKER: CAROL, "colour": "brown"}
NONE = "pool: {max_size: 4, affinity_timeout: 0, warmth: {created: 1}}"
COLD = "pool: {max_size: 4, affinity_timeout: 0, warmth: {created: 0}}"
GATE = "pool: {max_size: 4, affinity_timeout: 0, warmth: {entrypoint: 1}}"
FROZEN = "pool: {max_size: 4, affinity_timeout: 60s, warmth: {created: 1, frozen: 2, tree: 2}}"
PARKED = "pool: {max_size: 4, affinity_timeout: 60s, warmth: {created: 1, tree: 2}}"
BRIEF = "pool: {max_size: 4, affinity_timeout: 1s, warmth: {created: 1, frozen: 2}}"
BRIEF_TREE = "pool: {max_size: 4, affinity_timeout: 1s, warmth: {created: 1, tree: 2}}"
TIGHT = "pool: {max_size: 2, affinity_timeout: 60s, warmth: {created: 0, frozen: 1}}"


def _stranger(host: Host) -> None:
    host.keep()


def _known(host: Host) -> None:
    """The tenant has a generation in the store, and nothing here."""
    host.claim(ALICE)
    host.write(ALICE, OLD)
    host.release(ALICE, affinity=False)
    host.keep()


def _running(host: Host) -> None:
    """The tenant runs, and has written what is in no store yet."""
    _known(host)
    host.claim(ALICE)
    host.write(ALICE, NEW)
    host.keep()


def _at_rest(host: Host) -> None:
    _running(host)
    host.release(ALICE)
    host.keep()


def _overtaken(host: Host) -> None:
    """What rests here is of the past."""
    _at_rest(host)
    host.go_on_elsewhere(ALICE, {"colour": "red"})


def _another_at_rest(host: Host) -> None:
    """The pool is full, with one that only rests."""
    _known(host)
    host.claim(CAROL)
    host.write(CAROL, LEFT)
    host.release(CAROL)


def _claim(host: Host) -> None:
    host.claim(ALICE)
    host.keep()


def _first_claim(host: Host) -> None:
    host.claim(ALICE)
    host.write(ALICE, OLD)
    host.keep()


def _release(host: Host) -> None:
    host.release(ALICE)
    host.keep()


def _drop(host: Host) -> None:
    host.drop(ALICE)
    host.keep()


def _there_and_back(host: Host) -> None:
    host.release(ALICE)
    host.claim(ALICE)
    host.write(ALICE, {"colour": "violet"})
    host.release(ALICE)
    host.keep()


def _expire(host: Host) -> None:
    host.release(ALICE)
    host.expire()
    host.keep()


def _sync(host: Host) -> None:
    host.sync(ALICE)
    host.write(ALICE, {"colour": "violet"})
    host.sync(ALICE)


def _pool(host: Host) -> None:
    host.scale(2)
    host.keep()
    host.recycle()
    host.keep()
    host.scale(1)
    host.keep()


def _refused(host: Host) -> None:
    host.store(away=True)
    with suppress(ClawError):
        host.release(ALICE)
    host.store(away=False)
    host.retry()
    host.keep()


def _refused_and_claimed(host: Host) -> None:
    host.store(away=True)
    with suppress(ClawError):
        host.release(ALICE)
    host.store(away=False)
    host.claim(ALICE)
    host.write(ALICE, {"colour": "violet"})
    host.release(ALICE)


def _lost(host: Host) -> None:
    host.crash(ALICE)
    host.keep()


def _make_room(host: Host) -> None:
    host.claim(ALICE)


def _boot(host: Host) -> None:
    host.come_up()


def _upgrade(host: Host) -> None:
    host.upgrade(NEXT)


def _upgrade_in_vain(host: Host) -> None:
    host.upgrade(BAD)


STORIES = [
    Story(name="claim from a warm slot", pool=NONE, before=_known, told=_claim),
    Story(name="claim made cold", pool=COLD, before=_known, told=_claim),
    Story(name="first claim of all", pool=NONE, before=_stranger, told=_first_claim),
    Story(name="claim at the start gate", pool=GATE, before=_known, told=_claim),
    Story(name="release", pool=NONE, before=_running, told=_release),
    Story(name="release without a commit", pool=NONE, before=_running, told=_drop, drops=True),
    Story(name="frozen and back", pool=FROZEN, before=_running, told=_there_and_back),
    Story(name="parked and back", pool=PARKED, before=_running, told=_there_and_back),
    Story(name="frozen and overtaken", pool=FROZEN, before=_overtaken, told=_claim, drops=True),
    Story(name="parked and overtaken", pool=PARKED, before=_overtaken, told=_claim),
    Story(name="frozen and expired", pool=BRIEF, before=_running, told=_expire),
    Story(name="parked and expired", pool=BRIEF_TREE, before=_running, told=_expire),
    Story(name="sync of a running tenant", pool=NONE, before=_running, told=_sync),
    Story(name="pool scaled and recycled", pool=NONE, before=_running, told=_pool),
    Story(name="store away, tried again", pool=NONE, before=_running, told=_refused),
    Story(name="store away, claimed again", pool=PARKED, before=_running, told=_refused_and_claimed),
    Story(name="container lost", pool=FROZEN, before=_running, told=_lost),
    Story(name="room made by one at rest", pool=TIGHT, before=_another_at_rest, told=_make_room),
    Story(name="upgrade", pool=NONE, before=_running, told=_upgrade, upgrade="done", drops=True),
    Story(name="upgrade that fails", pool=NONE, before=_running, told=_upgrade_in_vain, upgrade="failed", drops=True),
]
"""Told on the fake Podman and on the real one."""

BOOT = [
    Story(name="claims after a boot", pool=NONE, before=_running, told=_boot, reboots=True),
    Story(name="claims after a boot, without slots", pool=COLD, before=_running, told=_boot, reboots=True),
]
"""Told on the fake Podman alone, where a machine with all of its containers can end."""
