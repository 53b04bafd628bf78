"""The matrix on real Podman: one daemon after another in one data directory, each killed at a point of its own.

Every case has tenants of its own; `bob` runs beside all of them from the first to the last, and must never notice.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from claw_runtime.daemon import home as daemon_home
from claw_runtime.db.ledger import SqliteLedger
from claw_runtime.engine.podman import PodmanEngine
from claw_runtime.errors import ClawError, StateMissing
from claw_runtime.tenancy import LABEL_OWNER, LABEL_SLOT, TenantId
from kill import beside, invariants
from kill.image import MARKER
from kill.killing_daemon import KillingDaemon
from kill.lives import Outcome
from kill.places import Store, go_on, remember, remembered, set_away, unremember
from kill.points import Shot
from kill.stories import ALICE, BOB, POOL, Story

PATIENCE = 20.0
"""Seconds in which a daemon must have done what it does by itself."""

SETTLED = 20.0
"""Seconds after its start in which nothing half done may be left: one is enough, but Podman's storage is one for all
programs of the user, and who removes an image elsewhere stops everybody for as long as that takes."""


class Outside:
    """A `stories.Host` behind the API. `number` tells the tenants of one case from those of another."""

    def __init__(self, daemon: KillingDaemon, number: int) -> None:
        self._daemon, self._number = daemon, number

    def named(self, tenant: str) -> str:
        """The tenant of this case that the story calls so."""
        return tenant if tenant == BOB else f"{tenant}-{self._number}"

    def claim(self, tenant: str) -> None:
        self._daemon.client.post(f"/api/v1/tenants/{self.named(tenant)}/claim", {"poolId": POOL})

    def release(self, tenant: str, *, affinity: bool = True) -> None:
        self._daemon.client.post(f"/api/v1/tenants/{self.named(tenant)}/release", {"affinity": affinity})

    def drop(self, tenant: str) -> None:
        unremember(self._daemon.place, self.named(tenant))
        self._daemon.client.post(f"/api/v1/tenants/{self.named(tenant)}/release", {"sync": False})

    def sync(self, tenant: str) -> None:
        self._daemon.client.post(f"/api/v1/tenants/{self.named(tenant)}/sync", {"direction": "upload"})

    def write(self, tenant: str, files: Mapping[str, str]) -> None:
        name = self.named(tenant)
        files = {file: name if file == MARKER else text for file, text in files.items()}
        with ledger_of(self._daemon) as ledger:
            row = ledger.tenant(TenantId(name))
        assert row is not None
        state = self._daemon.layout.slot(row.slot or "").state
        for file, text in files.items():
            (state / file).parent.mkdir(exist_ok=True)
            (state / file).write_text(text)
        remember(self._daemon.place, name, files)

    def keep(self) -> None:
        self._until(lambda: not self.lacking())

    def expire(self) -> None:
        self.ended(ALICE)

    def retry(self) -> None:
        self.ended(ALICE)

    def ended(self, tenant: str) -> None:
        """Wait until the daemon has ended the tenant."""
        self._until(lambda: self.state(tenant) == "cold")

    def crash(self, tenant: str) -> None:
        status = self._daemon.client.get(f"/api/v1/tenants/{self.named(tenant)}")
        subprocess.run(["podman", "kill", status["containerId"]], check=True, capture_output=True)
        self.ended(tenant)

    def store(self, *, away: bool) -> None:
        set_away(self._daemon.place, away=away)

    def go_on_elsewhere(self, tenant: str, files: Mapping[str, str]) -> None:
        go_on(self._daemon.place, self.named(tenant), files)

    def come_up(self) -> None:
        raise RuntimeError("only the fake Podman can lose its host")

    def scale(self, least: int) -> None:
        self._daemon.client.post(f"/api/v1/pools/{POOL}/scale", {"minSize": least})

    def recycle(self) -> None:
        self._daemon.client.post(f"/api/v1/pools/{POOL}/recycle")

    def upgrade(self, image: str) -> None:
        self._daemon.client.post(f"/api/v1/pools/{POOL}/upgrade", {"image": image, "soak": 0})
        self._until(lambda: self.upgraded() not in ("running", "aborting"))

    def resume(self) -> None:
        """Go on with an upgrade that did not come to its end."""
        self._daemon.client.post(f"/api/v1/pools/{POOL}/upgrade/resume")
        self._until(lambda: self.upgraded() not in ("running", "aborting"))

    def upgraded(self) -> str:
        """State of the pool's upgrade, empty when there was none."""
        with suppress(StateMissing):
            return str(self._daemon.client.get(f"/api/v1/pools/{POOL}/upgrade")["state"])
        return ""

    def upgrade_error(self) -> str:
        """Why the upgrade stopped, and the end of the daemon's log."""
        error = self._daemon.client.get(f"/api/v1/pools/{POOL}/upgrade")["error"]
        return f"{error}; the log ends: {self._daemon.log[-3000:]}"

    def state(self, tenant: str) -> str:
        """Our word for it."""
        return str(self._daemon.client.get(f"/api/v1/tenants/{self.named(tenant)}/status")["state"])

    def lacking(self) -> list[str]:
        """Tiers of the pool that have not what they should."""
        pool = self._daemon.client.get(f"/api/v1/pools/{POOL}")
        return [
            f"{tier['ready']} slots wait as {name}, not {tier['wanted']}: {pool['error']}"
            for name, tier in pool["tiers"].items()
            if tier["ready"] != tier["wanted"] or tier["filling"]
        ]

    def _until(self, there: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not there():
            assert time.monotonic() < deadline, f"not in {PATIENCE} s:\n{self._daemon.log[-3000:]}"
            time.sleep(0.02)


@contextmanager
def ledger_of(daemon: KillingDaemon) -> Iterator[SqliteLedger]:
    """The daemon's ledger, to look into: rows are read beside it."""
    ledger = SqliteLedger(daemon.layout.ledger)
    try:
        yield ledger
    finally:
        ledger.close()


class Bench:
    """One data directory on real Podman for all cases of one story."""

    def __init__(self, place: Path, story: Story) -> None:
        self.daemon = KillingDaemon(place, story.put(place))
        self._story = story
        self._engine = PodmanEngine(place / "look.sock", cgroup_parent=os.environ.get("CLAW_CGROUP_PARENT"))
        self._number = 0
        self._seen: dict[str, str] = {}
        self._bob = ""

    def open(self) -> None:
        """The first daemon, and the neighbour."""
        self.daemon.start()
        host = Outside(self.daemon, 0)
        host.keep()
        host.claim(BOB)
        host.write(BOB, {MARKER: BOB, "colour": "blue"})
        host.keep()
        self._bob = self.daemon.client.get(f"/api/v1/tenants/{BOB}")["containerId"]

    def close(self) -> list[str]:
        """Release everybody, end the daemon, and say what is left of any of it."""
        if self.daemon.is_dead():
            self.daemon.start()
        for tenant in self.daemon.client.get("/api/v1/tenants"):
            if tenant["state"] != "cold":
                self.daemon.client.post(f"/api/v1/tenants/{tenant['tenantId']}/release", {"affinity": False})
        self.daemon.stop()
        with self._looked() as host:
            left = self._in_time(lambda: [*host.left(), *self._outside(host)])
        self._engine.close()
        return left + [f"left: process {one}" for one in beside.processes(self.daemon.place)]

    def tell(self, shot: Shot | None) -> Outcome:
        """The story, cut short at one of its points; whole, when there is no shot."""
        story = self._story
        self._number += 1
        host = Outside(self.daemon, self._number)
        host.keep()
        story.before(host)
        self._note_containers()
        self.daemon.arm(shot)
        try:
            with suppress(ClawError) if shot else _nothing():
                story.told(host)
            reached = shot is not None and self.daemon.is_dead(
                within=3 if shot.name.startswith(("reconciler", "tend")) else 0.5
            )
        finally:
            points = self.daemon.disarm()
        set_away(self.daemon.place, away=False)
        self.daemon.kill()
        with self._looked() as looked:
            row = looked.ledger.tenant(TenantId(host.named(ALICE)))
        found = f"{row.state} {row.step}".strip() if row else "unknown"
        state, seconds, broken = self._judged(host)
        return Outcome(
            story=story.name,
            shot=shot,
            again=None,
            reached=reached,
            points=tuple(points),
            found=found,
            state=state,
            seconds=seconds,
            broken=tuple(broken),
        )

    def _judged(self, host: Outside) -> tuple[str, float, list[str]]:
        seconds = self.daemon.start()
        alice, broken = host.named(ALICE), []
        if self._story.upgrade:
            broken += self._after_upgrade(host)
        state = host.state(ALICE)
        with self._looked() as looked:
            broken += self._in_time(lambda: looked.elsewhere(alice))  # the end of a rest may be at it
        begun = time.monotonic()
        host.claim(ALICE)
        seconds += time.monotonic() - begun
        broken += self.settled(host)
        for tenant, words in remembered(self.daemon.place).items():
            broken += self._words(host, tenant, words)
        self._forget()
        return state, seconds, broken

    def _forget(self) -> None:
        """The next case begins as this one did: with the neighbour alone."""
        client, words = self.daemon.client, remembered(self.daemon.place)
        for tenant in client.get("/api/v1/tenants"):
            if tenant["tenantId"] != BOB and tenant["state"] != "cold":
                client.post(f"/api/v1/tenants/{tenant['tenantId']}/release", {"affinity": False})
        (self.daemon.place / "words.json").write_text(json.dumps({BOB: words[BOB]}))

    def _after_upgrade(self, host: Outside) -> list[str]:
        wrong = self._in_time(lambda: [] if host.state(ALICE) == "active" else [f"{ALICE} is not up again"])
        if host.upgraded() in ("paused", "failed"):
            host.resume()
        if (state := host.upgraded()) not in ("", self._story.upgrade):
            wrong.append(f"the upgrade was resumed and is {state}: {host.upgrade_error()}")
        return wrong

    def _words(self, host: Outside, tenant: str, words: Mapping[str, str]) -> list[str]:
        client = self.daemon.client
        claim = client.post(f"/api/v1/tenants/{tenant}/claim", {"poolId": POOL})
        with self._looked() as looked:
            wrong = looked.lost(tenant, words)
        if tenant == BOB:
            moved = not self._story.upgrade and claim["containerId"] != self._bob
            moved = moved or claim["status"] != "already_claimed"
            return wrong + (["the neighbour is in another container"] if moved else [])
        client.post(f"/api/v1/tenants/{tenant}/release", {"affinity": False})
        return wrong

    def settled(self, host: Outside) -> list[str]:
        """What is wrong when the daemon has had its time."""
        with self._looked() as looked:
            return self._in_time(lambda: [*looked.broken(), *host.lacking(), *self._outside(looked)])

    def lost(self, host: Outside, tenant: str) -> list[str]:
        """Words of a claimed tenant that are gone."""
        name = host.named(tenant)
        with self._looked() as looked:
            return looked.lost(name, remembered(self.daemon.place)[name])

    def _in_time(self, wrong: Callable[[], list[str]]) -> list[str]:
        """What is still wrong when the daemon has had its time; it works on while it is looked at."""
        deadline = time.monotonic() + SETTLED
        while True:
            try:
                found = wrong()
            except FileNotFoundError as error:
                found = [f"it still changes: {error}"]
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(0.05)

    @contextmanager
    def _looked(self) -> Iterator[invariants.Host]:
        with self.looking(self.daemon, self._engine) as host:
            yield host

    @staticmethod
    @contextmanager
    def looking(daemon: KillingDaemon, engine: PodmanEngine | None = None) -> Iterator[invariants.Host]:
        """The daemon's host, looked at from outside; containers only through an engine."""
        layout = daemon.layout
        with ledger_of(daemon) as ledger:
            yield invariants.Host(
                layout,
                ledger,
                engine or PodmanEngine(daemon.place / "look.sock"),
                Store(daemon.bucket),
                daemon_home.runtime_id(layout),
            )

    # --- what Podman keeps beside containers ---

    def _note_containers(self) -> None:
        owner = daemon_home.runtime_id(self.daemon.layout)
        for found in self._engine.list({LABEL_OWNER: owner}):
            self._seen[found.id] = found.labels[LABEL_SLOT]

    def _outside(self, host: invariants.Host) -> list[str]:
        """Processes, mounts and directories of containers that are gone, and processes of daemons that are dead."""
        self._note_containers()
        alive = {found.id: found for found in host.containers()}
        masters = (self.daemon.pid, os.getpid())
        return [
            *beside.storage(self._seen.keys() - alive.keys()),
            *beside.strays(beside.processes(self.daemon.place), alive.values(), masters),
        ]


@contextmanager
def _nothing() -> Iterator[None]:
    yield
