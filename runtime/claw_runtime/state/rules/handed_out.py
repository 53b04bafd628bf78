"""Looks for values that a tenant was handed out as secrets in what is written to the store.

A program may write its keys into its state in plain text: then they are in the bucket, in exports and in copies. New
content is searched whole, and so are new names, link targets and extended attributes. Each value costs 0.1 s a
gigabyte (measured); 10,000 names cost 1 ms. A value is never shown, only its name.
"""

import json
import threading
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import quote

from claw_runtime.formats.manifest import Entry
from claw_runtime.safefs.tree import Skipped

SHORTEST: Final = 8
"""Bytes of the shortest value that is searched; a shorter one would be found by accident."""
MASK: Final = "[redacted]"

Named = Iterable[tuple[str, str]]
"""Names and values; a name may have several values, such as one before and one after a rotation."""


class SecretSearch:
    """One search: call `look` with each piece that is written. One thread calls it; others use a `FileSearch`."""

    def __init__(self, secrets: Named = ()) -> None:
        self._wanted = tuple(
            (name, form) for name, value in secrets for form in sorted(_forms(value)) if len(form) >= SHORTEST
        )
        self._longest = max((len(form) for _, form in self._wanted), default=0)
        self._file = FileSearch(self, "")
        self._lock, self._found = threading.Lock(), dict[str, set[str]]()

    def look(self, path: str, at: int, raw: bytes, *, new: bool = True) -> None:
        """Search a piece of a file that begins at offset `at`, also across its border to the piece before.

        Args:
            new: Whether the piece is stored now. One that the store has is searched only where it borders on a new one.
        """
        if not self._wanted:
            return
        if self._file.path != path:
            self._file = FileSearch(self, path)
        self._file.look(at, raw, new=new)
        self._file.keep()

    def entries(self, entries: Sequence[Entry], before: Sequence[Entry] = ()) -> None:
        """Search names, link targets and extended attributes; what `before` has as well is not new.

        All are searched as one text first: to ask each of 10,000 entries would take ten times as long.
        """
        if not self._wanted or entries is before:
            return
        texts = [b"".join(entry.texts()) for entry in entries if entry.target or entry.xattrs]
        texts.append("\n".join([entry.path for entry in entries]).encode("utf-8", "surrogateescape"))
        if not self.within(b"\n".join(texts)):
            return
        known = {(entry.path, entry.target, entry.xattrs) for entry in before}
        for entry in entries:
            if (entry.path, entry.target, entry.xattrs) not in known:
                above = entry.path.rpartition("/")[0].encode("utf-8", "surrogateescape")
                names = {name for text in entry.texts() for name in self.within(text)}
                self.add(entry.path, names - self.within(above))

    @property
    def longest(self) -> int:
        """Bytes of the longest text that is searched; 0 when none is."""
        return self._longest

    def within(self, raw: bytes) -> set[str]:
        """Names of the values that these bytes hold."""
        return {name for name, form in self._wanted if form in raw}

    def add(self, path: str, names: Iterable[str]) -> None:
        """Report these values of a file. Thread-safe."""
        with self._lock:
            if found := set(names):
                self._found.setdefault(path, set()).update(found)

    @property
    def found(self) -> tuple[tuple[str, str], ...]:
        """Path and name of each value that was found, in order; a value in a path is masked."""
        with self._lock:
            return tuple(
                (self._masked(path), name) for path in sorted(self._found) for name in sorted(self._found[path])
            )

    def _masked(self, path: str) -> str:
        raw = path.encode("utf-8", "surrogateescape")
        for _, form in sorted(self._wanted, key=lambda one: len(one[1]), reverse=True):
            raw = raw.replace(form, MASK.encode())
        return raw.decode("utf-8", "surrogateescape")

    def told(self) -> tuple[Skipped, ...]:
        """The same for a person."""
        return tuple(
            Skipped(path=path, reason=f"it holds the secret {name} in plain text") for path, name in self.found
        )


class FileSearch:
    """The search of one file, piece by piece from its beginning. `keep` reports what was found."""

    def __init__(self, search: SecretSearch, path: str) -> None:
        self.path, self._search = path, search
        self._end, self._tail, self._was_new = 0, b"", False
        self._names = set[str]()

    def look(self, at: int, raw: bytes, *, new: bool = True) -> None:
        """Search a piece, as `SecretSearch.look` does."""
        search, border = self._search, self._search.longest - 1
        if border < 0:
            return
        before = self._tail if self._end == at else b""
        if before and (new or self._was_new):
            self._names |= search.within(before + raw[:border])
        if new:
            self._names |= search.within(raw)
        self._tail = raw[-border:] if len(raw) >= border else (before + raw)[-border:]
        self._end, self._was_new = at + len(raw), new

    def keep(self) -> None:
        """Report what was found so far."""
        if self._names:
            self._search.add(self.path, self._names)


class BorderSearch:
    """The search of the borders between frames that come in any order: one of several packs, or of several files.

    Of each frame only its ends are kept, until the frames beside it have come.

    Args:
        files: Path of each file, and its frames in the order of the file. A file with holes is several, as no value
            lies across a hole.
    """

    def __init__(self, search: SecretSearch, files: Iterable[tuple[str, Sequence["FileFrame"]]]) -> None:
        self._search, self._width = search, max(0, search.longest - 1)
        self._open, self._ends = dict[Hashable, list[_Border]](), dict[Hashable, tuple[bytes, bytes]]()
        seen = set[tuple[Hashable, ...]]()
        for path, frames in files if self._width else ():
            for around in self._around(frames):
                if around not in seen:
                    seen.add(around)
                    border = _Border(path, around, set(around))
                    for frame in border.missing:
                        self._open.setdefault(frame, []).append(border)

    def look(self, frame: Hashable, raw: bytes) -> None:
        """Search the borders whose last frame this is. Each frame comes once."""
        if frame not in self._open:
            return
        self._ends[frame] = raw[: self._width], raw[-self._width :]
        for border in tuple(self._open[frame]):
            border.missing.discard(frame)
            if not border.missing:
                self._close(border)

    def _close(self, border: "_Border") -> None:
        first, *rest = border.frames
        text = self._ends[first][1] + b"".join(self._ends[frame][0] for frame in rest)
        self._search.add(border.path, self._search.within(text))
        for frame in set(border.frames):
            left = self._open[frame]
            left.remove(border)
            if not left:
                del self._open[frame], self._ends[frame]

    def _around(self, frames: Sequence["FileFrame"]) -> Iterable[tuple[Hashable, ...]]:
        """Frames that meet at one border, or at several where frames between are shorter than a value may be. Those
        that come one after the other are left out."""
        some: list[FileFrame] = []
        for number, frame in enumerate(frames, 1):
            some.append(frame)
            if frame.length >= self._width or number == len(frames):
                if not all(one.follows for one in some[1:]):
                    yield tuple(one.id for one in some)
                some = [frame]


class FileFrame(NamedTuple):
    """A frame of a file, and its length in bytes. If it `follows` the one before it in the file also when they come,
    `SecretSearch.look` searches their border."""

    id: Hashable
    length: int
    follows: bool = False


@dataclass(slots=True, eq=False)
class _Border:
    """Frames that lie side by side in a file, and those of them that have not come yet."""

    path: str
    frames: tuple[Hashable, ...]
    missing: set[Hashable]


def _forms(value: str) -> set[bytes]:
    """How a value may stand in a file: unchanged, as JSON and as a URL has it."""
    texts = {value, value.strip(), json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], quote(value)}
    return {text.encode("utf-8", "surrogateescape") for text in texts}
