"""Fault points: every call of a daemon that changes something outside its memory, and a SIGKILL at one of them.

Production code knows nothing of this. The calls are found at the seams: methods of the adapters and the few functions
that change files are wrapped in the process that is to die, and below them, when asked for, every single change of the
file system that Python makes (`fs.*`, by the interpreter's audit hook). A point is its name and how often that name
came since the fuse was armed; work of other threads than the one that serves has a name of its own (`reconciler:…`).
"""

import os
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Literal

from claw_runtime.db.events import SqliteEvents
from claw_runtime.db.idempotency import SqliteAnswers
from claw_runtime.db.ledger import SqliteLedger
from claw_runtime.db.memory import SqliteMemory
from claw_runtime.db.upgrades import SqliteUpgrades
from claw_runtime.pools import adoption, slots, start_gate
from claw_runtime.pools.slots import Slots
from claw_runtime.safefs import moves
from claw_runtime.secrets.files import SecretFiles
from claw_runtime.state import restorer
from claw_runtime.tenants import trees
from claw_runtime.tenants.drives.values import Values

When = Literal["before", "after"]
Name = Callable[..., str]

ENGINE = "create initialize start stop pause unpause remove"
LEDGER = "add_slot slot_ready take_slot retire_slot drop_slot begin_claim set_pool drop_pool"
_PLACES = frozenset({"state", "logs", "staging", "kept", "parked", "donor", "scratch"})
_LANES = {"reconciler": "reconciler:", "fill": "reconciler:", "tend": "tend:", "retry": "tend:", "probe": "tend:"}
_CHANGES = frozenset({"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate"})
_RANDOM = re.compile(r"[0-9a-f]{12,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """Where a daemon dies: `before` or `after` the `nth` call of that name since it was armed."""

    name: str
    nth: int
    when: When

    def __str__(self) -> str:
        return f"{self.when} {self.name} #{self.nth}"


class Fuse:
    """Counts the points of one process, and ends it at one of them.

    Attributes:
        passed: Points that were passed while it was armed, in order: name and number.
        follows: Point → the point that its thread came to next, if it did nothing between the end of the one and the
            beginning of the other. A death after the one is a death before the other.
    """

    def __init__(self) -> None:
        self.passed: list[tuple[str, int]] = []
        self.follows: dict[tuple[str, int], tuple[str, int]] = {}
        self._shot: Shot | None = None
        self._left: int | None = None
        self._armed = False
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._inside = threading.local()

    def arm(self, shot: Shot | None = None, *, after_points: int | None = None) -> None:
        """Count from now on; end the process at the shot, or before whatever comes after so many points."""
        self._shot, self._left = shot, after_points
        self._inside.ended = None
        self._counts.clear()
        self.passed.clear()
        self.follows.clear()
        self._armed = True

    def disarm(self) -> None:
        """Count no more."""
        self._armed = False

    def reached(self, name: str) -> tuple[str, int] | None:
        """A point is come to: it is counted, and the process ended if it is to die before it."""
        if not self.is_armed() or getattr(self._inside, "quiet", False):
            return None
        lane = next((lane for start, lane in _LANES.items() if threading.current_thread().name.startswith(start)), "")
        with self._lock:
            self._counts[lane + name] += 1
            point = lane + name, self._counts[lane + name]
            if self._left is not None and len(self.passed) >= self._left:
                die()
            self.passed.append(point)
            if ended := getattr(self._inside, "ended", None):
                self.follows[ended] = point
        self._inside.ended = None
        self._die_at(point, "before")
        self.noted(point)
        return point

    def over(self, point: tuple[str, int] | None) -> None:
        """What a point stands for is done."""
        if point is not None:
            self._die_at(point, "after")
            self._inside.ended = point

    def is_armed(self) -> bool:
        """Whether points count now."""
        return self._armed

    def noted(self, point: tuple[str, int]) -> None:
        """A point was counted, and the process lives."""

    def strike(self) -> None:
        """What happens at the shot."""
        die()

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """What this thread does in the block is nobody's point."""
        before = getattr(self._inside, "quiet", False)
        self._inside.quiet = True
        try:
            yield
        finally:
            self._inside.quiet, self._inside.ended = before, None

    def _die_at(self, point: tuple[str, int], when: When) -> None:
        shot = self._shot
        if shot is not None and (shot.name, shot.nth, shot.when) == (*point, when):
            self.strike()


def die() -> None:
    """SIGKILL, now: nothing of this process happens after this line."""
    os.kill(os.getpid(), signal.SIGKILL)


def install(fuse: Fuse, engine: type, store: type, *, files: bool = False) -> None:
    """Wrap the seams of this process, for good.

    Args:
        engine, store: The adapters' classes.
        files: Take every change of the file system for a point as well, those of the store excepted.
    """
    for name in ENGINE.split():
        _wrap(fuse, engine, name, lambda *_, name=name, **__: f"engine.{name}")
    for name in LEDGER.split():
        _wrap(fuse, SqliteLedger, name, lambda *_, name=name, **__: f"ledger.{name}")
    _wrap(fuse, SqliteLedger, "begin_boot", lambda *_, **__: "ledger.begin_boot")
    _wrap(fuse, SqliteLedger, "note", _note)
    _wrap(fuse, SqliteLedger, "become", lambda _self, _tenant, state, *_, **__: f"ledger.become:{state}")
    for name in ("remember", "replace", "set_store", "hold", "let_go"):
        _wrap(fuse, SqliteMemory, name, lambda *_, name=name, **__: f"memory.{name}")
    _wrap(fuse, SqliteEvents, "add", lambda *_, **__: "events.add")
    _wrap(
        fuse, SqliteUpgrades, "note_move", lambda _self, _pool, _tenant, **columns: f"upgrades.move:{_column(columns)}"
    )
    _wrap(fuse, SqliteUpgrades, "note", lambda _self, _pool, _at, **columns: f"upgrades.note:{_column(columns)}")
    for name in ("begin", "plan"):
        _wrap(fuse, SqliteUpgrades, name, lambda *_, name=name, **__: f"upgrades.{name}")
    for name in ("begin", "finish", "forget"):
        _wrap(fuse, SqliteAnswers, name, lambda *_, name=name, **__: f"answers.{name}")
    for name in ("put", "delete"):
        _wrap(fuse, store, name, lambda _self, key, *_, name=name, **__: f"store.{name}:{_kind(key)}", whole=True)
    _wrap(fuse, SecretFiles, "generate", lambda *_, **__: "secrets.generate")
    _wrap(fuse, Values, "write", lambda *_, **__: "values.write")
    _wrap(fuse, Slots, "_make_directories", lambda *_, **__: "slots.mkdir")
    for name in ("make", "open_gate"):
        _wrap(fuse, start_gate, name, lambda *_, name=name, **__: f"gate.{name.removesuffix('_gate')}")
    _wrap(fuse, restorer, "unpack", lambda *_, **__: "trees.unpack")
    _wrap(fuse, trees, "_make_private", lambda path: f"trees.mkdir:{_place(path)}")
    _wrap(fuse, trees, "move_entries", lambda source, target, **_: f"trees.move:{_place(source)}>{_place(target)}")
    for module in (trees, slots, adoption, restorer):
        _wrap(fuse, module, "remove_tree", lambda path: f"trees.remove:{_place(path)}")
    if files:
        on_every_change(fuse)


def on_every_change(fuse: Fuse) -> None:
    """Take every single change of the file system for a point, for good."""
    _wrap(fuse, moves, "rename_new", lambda name, *_, **__: f"fs.rename:{_plain(name)}")
    sys.addaudithook(lambda event, arguments: _audit(fuse, event, arguments))


def _wrap(fuse: Fuse, where: object, name: str, named: Name, *, whole: bool = False) -> None:
    """Make a function or method a point. A `whole` one is trusted to be atomic: nothing inside it is a point."""
    real = getattr(where, name)

    @wraps(real)
    def call(*arguments: Any, **options: Any) -> Any:
        point = fuse.reached(named(*arguments, **options))
        try:
            if not whole:
                return real(*arguments, **options)
            with fuse.quiet():
                return real(*arguments, **options)
        finally:  # a call that failed is over too
            fuse.over(point)

    setattr(where, name, call)


def _note(_ledger: object, _tenant: str, **columns: object) -> str:
    names = sorted(columns.keys() - {"durable", "step"})
    return f"ledger.note:{columns.get('step') or ','.join(names)}"


def _column(columns: dict[str, object]) -> str:
    return str(columns.get("state") or ",".join(sorted(columns)))


def _kind(key: str) -> str:
    """HEAD, gen, packs or blobs of a tenant's key."""
    parts = key.split("/")
    return parts[2] if len(parts) > 2 else "other"


def _place(path: Path) -> str:
    """What a directory is, without its slot or tenant."""
    if path.name in _PLACES:
        return path.name
    return {"slots": "values" if path.parent.parent.name == "run" else "slot"}.get(path.parent.name, "other")


def _plain(name: object) -> str:
    """The last name of a path, without what is random in it."""
    text = os.fsdecode(name) if isinstance(name, (str, bytes, os.PathLike)) else "fd"
    return _RANDOM.sub("*", text.rpartition("/")[2])


def _audit(fuse: Fuse, event: str, arguments: tuple[Any, ...]) -> None:
    made = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
    if (made or event in _CHANGES) and fuse.is_armed() and "__pycache__" not in str(arguments[0]):
        fuse.reached(f"fs.{'create' if made else event[3:]}:{_plain(arguments[0])}")
