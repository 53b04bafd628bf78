"""A tenant's snapshots at one moment, and their lookup by number, tag or time."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from claw_runtime.errors import InvalidSpec, StateMissing
from claw_runtime.formats.head import Head
from claw_runtime.formats.manifest import Manifest, Past
from claw_runtime.ports import Clock
from claw_runtime.state.history.pins import LATEST, Pin
from claw_runtime.state.repository import Repository
from claw_runtime.tenancy import TenantId
from claw_runtime.units import duration


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A generation that can be restored. `pin` keeps it despite retention; `current` is whether HEAD names it."""

    past: Past
    pin: Pin | None
    current: bool

    @property
    def generation(self) -> int:
        return self.past.generation

    @property
    def tag(self) -> str:
        return self.pin.tag if self.pin else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A tenant's snapshots at one moment; the last is HEAD's, whose manifest is `newest`."""

    tenant: TenantId
    newest: Manifest
    snapshots: tuple[Snapshot, ...]


class Views:
    """Reads tenants' generations; changes nothing."""

    def __init__(self, repository: Repository, clock: Clock) -> None:
        self._generations, self._pins, self._clock = repository.generations, repository.pins, clock

    def of(self, tenant: TenantId, head: Head | None = None) -> View:
        """A tenant's snapshots below this HEAD, or below the present one. Raises as `Snapshots`."""
        head = head or self._generations.head(tenant)
        document = self._generations.newest(tenant, head)
        pins = self._pins.all(tenant)
        current = document.past(head.sha256 if head and head.sha256 else "")
        # A pin holds what the history may have dropped while the pin was made.
        past = {pin.generation: pin.past for pin in pins.values()} | {
            one.generation: one for one in (*self._generations.earlier(document), current)
        }
        snapshots = [
            Snapshot(past=past[number], pin=pins.get(number), current=number == document.generation)
            for number in sorted(past)
            if number <= document.generation
        ]
        return View(tenant=tenant, newest=document, snapshots=tuple(snapshots))

    def manifest(self, view: View, snapshot: Snapshot) -> Manifest:
        """The manifest of a snapshot."""
        return view.newest if snapshot.current else self._generations.of_past(view.tenant, snapshot.past)

    def pick(self, view: View, wanted: str) -> Snapshot:
        """The snapshot for a number, tag or time. Raises `StateMissing`, `InvalidSpec`; see `Snapshots.resolve`."""
        if wanted.startswith("@"):
            until = self._time(wanted[1:])
            fitting = [one for one in view.snapshots if (sealed := _sealed(one)) and sealed <= until]
        elif wanted == LATEST:
            fitting = list(view.snapshots)
        elif wanted.isascii() and wanted.isdigit():
            fitting = [one for one in view.snapshots if str(one.generation) == wanted.lstrip("0")]
        else:
            fitting = [one for one in view.snapshots if wanted and one.tag == wanted]
        if not fitting:
            raise StateMissing(
                f"tenant {view.tenant} has no snapshot {wanted[:80]!r}",
                why="it was removed, or never existed",
                hint=f"`claw-runtime snapshot list {view.tenant}` lists those that exist",
                tenant=view.tenant,
            )
        return fitting[-1]

    def _time(self, text: str) -> datetime:
        with suppress(ValueError):
            return datetime.fromtimestamp(max(0.0, self._clock.now() - duration(text)), UTC)  # no date is before all
        with suppress(ValueError):
            return _with_zone(datetime.fromisoformat(text))
        raise InvalidSpec(
            f"not a time: {text[:80]!r}",
            why="it is neither a duration such as 2h nor a time such as 2026-11-20T10:00",
            hint="write @2h for two hours ago, or @2026-11-20T10:00Z for that moment",
        )


def _with_zone(time: datetime) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _sealed(snapshot: Snapshot) -> datetime | None:
    with suppress(ValueError):
        return _with_zone(datetime.fromisoformat(snapshot.past.created))
    return None
