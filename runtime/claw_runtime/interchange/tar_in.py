"""A tar or a directory into the store as a tenant's state.

What comes in becomes one generation, sealed as any other: whole, or not at all. A tar is hostile until it is unpacked:
no name or link in it leads out of the directory that it is unpacked into (interchange/untar.py).
"""

import io
import lzma
import os
import stat
import zlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import IO, Final

import structlog
import zstandard

from claw_runtime.errors import Conflict, InvalidSpec
from claw_runtime.interchange.untar import TornTar, unpack
from claw_runtime.safefs.removal import remove_tree
from claw_runtime.safefs.tree import Skipped, Tree, printable
from claw_runtime.spec.parts import SyncLimits
from claw_runtime.state.commit.request import UNLIMITED
from claw_runtime.state.repository import CommitRequest, CommitResult, Repository
from claw_runtime.state.rules.selection import EVERYTHING, Selection
from claw_runtime.telemetry.events import Recorder, unrecorded
from claw_runtime.tenancy import Layout, TenantId

log = structlog.get_logger(__name__)

Still = Callable[[TenantId], AbstractContextManager[Callable[[int], None]]]

EXCLUDES: Final = "it is left out: the workload excludes it"

_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_PIECE: Final = 1 << 18


class Interchange:
    """Imports of one runtime.

    Args:
        still: Keeps a tenant from running here meanwhile.
        selection: What of a tenant's state may be stored.
        limits: How much of it.
    """

    def __init__(
        self,
        repository: Repository,
        layout: Layout,
        still: Still,
        record: Recorder = unrecorded,
        selection: Callable[[TenantId], Selection] = lambda _tenant: EVERYTHING,
        limits: Callable[[TenantId], SyncLimits] = lambda _tenant: UNLIMITED,
    ) -> None:
        self._repository, self._layout, self._still, self._record = repository, layout, still, record
        self._selection, self._limits = selection, limits

    def bring(
        self, tenant: TenantId, source: Path, *, replace: bool = False, secrets: Sequence[tuple[str, str]] = ()
    ) -> tuple[CommitResult, list[Skipped]]:
        """Make a directory, or a tar (plain, gzip, xz, bzip2 or zstd), the tenant's next generation.

        Names that the workload excludes are left out and reported, a directory once for all that is in it. A state over
        the workload's limits is refused, since each later commit would be.

        Args:
            replace: It may take the place of a state that is there, which stays as an earlier generation.
            secrets: Names and values that are searched in what is stored.

        Raises:
            InvalidSpec: `source` is neither.
            Conflict: There is a state, or the tenant runs here, or its newest tree is kept here.
            TenantLocked: Another runtime holds it.
            UploadFailed, StoreUnavailable, StoreDenied, BucketMissing, DiskFull: Nothing was changed.
        """
        with ExitStack() as stack:
            moved = stack.enter_context(self._still(tenant))
            head = self._repository.generations.head(tenant)
            if head is not None and head.manifest is not None and not replace:
                raise Conflict(
                    f"tenant {tenant} already has a state",
                    why=f"it is at generation {head.generation}",
                    hint="add --replace; the present state stays as an earlier generation",
                )
            tree, skipped = self._tree(source, tenant, stack)
            selection = self._selection(tenant)
            size, excluded = _survey(tree, selection)
            stack.enter_context(self._repository.transfers.expected(tenant, size))
            lease = self._repository.leases.acquire(tenant)
            try:
                request = CommitRequest(
                    right=self._repository.restorer.adopt(lease, lease.head.generation, lease.head.sha256 or ""),
                    tree=tree,
                    selection=selection,
                    image_digest="",
                    application="import",
                    release=True,
                    limits=self._limits(tenant),
                    secrets=secrets,
                )
                done = self._repository.committer.commit(request)
            except BaseException:
                self._repository.leases.give_back(tenant)
                raise
            moved(done.number)
        self._record("imported", tenant=tenant, generation=done.number)
        for path, name in done.secrets:
            log.warning("a secret is stored in plain text", tenant=tenant, file=printable(path), name=name)
            self._record("secret-stored", tenant=tenant, file=printable(path), name=name)
        return done, [*skipped, *excluded, *done.reported]

    def _tree(self, source: Path, tenant: TenantId, stack: ExitStack) -> tuple[Path, list[Skipped]]:
        """The source as a directory, and what of it is left out."""
        if source.is_dir():
            return source, []
        staging = self._layout.staging(tenant)
        remove_tree(staging)
        staging.mkdir(mode=0o700, parents=True)
        stack.callback(remove_tree, staging)
        try:
            with source.open("rb") as file, _opened(file) as stream:
                copied = unpack(stream, staging, name="state", contents=True, state=True)
                return staging, copied.skipped
        except (TornTar, OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
            raise InvalidSpec(
                f"{source} cannot be imported",
                why=str(error) or "it is not a tar archive",
                hint="name a directory, or a tar archive of its contents; the tenant is unchanged",
            ) from error


def _survey(root: Path, selection: Selection) -> tuple[int, list[Skipped]]:
    """The size of the files that are stored, in bytes, and what is excluded. The commit reports what cannot be read."""
    size, excluded = 0, list[Skipped]()
    with suppress(OSError), Tree(root) as tree:
        for path, status in tree.scan(selection.descends, deep=_ignore):
            if status is None:
                continue
            if selection.excludes(path, stat.S_ISDIR(status.st_mode)):
                excluded.append(Skipped(path=path, reason=EXCLUDES))
            elif stat.S_ISREG(status.st_mode):
                size += status.st_size
    return size, excluded


def _ignore(_path: str) -> None:
    """The commit reports what lies too deep."""


def _opened(file: IO[bytes]) -> IO[bytes]:
    """A tar that may be compressed, as it was before."""
    import bz2
    import gzip

    magic = os.pread(file.fileno(), 6, 0)
    if magic.startswith(b"\x1f\x8b"):
        return io.BufferedReader(gzip.GzipFile(fileobj=file), _PIECE)
    if magic.startswith(b"BZh"):
        return io.BufferedReader(bz2.BZ2File(file), _PIECE)
    if magic.startswith(b"\xfd7zXZ\0"):
        return io.BufferedReader(lzma.LZMAFile(file), _PIECE)
    if magic.startswith(_ZSTD):
        return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(file), _PIECE)
    return file
