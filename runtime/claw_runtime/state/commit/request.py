"""The request of a commit and its result."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from claw_runtime.safefs.tree import Skipped
from claw_runtime.spec.parts import Retention, SyncLimits
from claw_runtime.state.commit.holding import Hold
from claw_runtime.state.lease.leases import UploadRight
from claw_runtime.state.rules.selection import Selection

UNLIMITED: Final = SyncLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitRequest:
    """One commit of one tree.

    Attributes:
        right: From a whole restore, an adopted tree or an earlier commit; it names the tenant.
        tree: The directory with the state; it is read, never written.
        selection: Which names are stored, and which names of the parent are kept although the tree lacks them.
        image_digest: Digest of the image that wrote the tree, for the manifest; empty when no image wrote it.
        application: Name and version of the program that wrote the tree, for the manifest; empty when unknown.
        release: Nothing writes to the tree any more: the commit also gives the tenant back.
        allow_empty: A tree without a file may replace one that has files.
        limits: Bytes, names and seconds; a tree that has or takes more is refused.
        on_mass_delete: When most files are gone, pin the generation that has them, or refuse.
        retention: Which earlier generations are kept; None keeps all.
        secrets: Names and values of what the tenant was handed out, which are searched in what is new.
        sealed: Called with the manifest's digest before HEAD is swapped to name it.
        hold: Holds the programs that write to the tree, for files that change each time they are read; None when
            nothing can.
    """

    right: UploadRight
    tree: Path
    selection: Selection
    image_digest: str
    application: str
    release: bool
    allow_empty: bool = False
    limits: SyncLimits = UNLIMITED
    on_mass_delete: Literal["pin", "refuse"] = "pin"
    retention: Retention | None = None
    secrets: Sequence[tuple[str, str]] = field(default=(), repr=False)
    sealed: Callable[[str], None] = field(default=lambda _sha256: None, repr=False)
    hold: Hold | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitResult:
    """The result of a commit.

    Attributes:
        number: The generation that HEAD names now.
        sha256: Digest of its manifest; empty if it has none.
        created: False when the tree equals HEAD's generation.
        files, bytes: Files in the generation, and their size together.
        uploaded_bytes: Bytes sent for it.
        seconds: How long the commit took.
        reported: Names that were left out or stored differently, or that hold a secret, and why.
        secrets: Path and name of each secret value that is in what this commit stored.
        right: The right for the next commit; None once the tenant is released.
    """

    number: int
    sha256: str
    created: bool
    files: int
    bytes: int
    uploaded_bytes: int
    seconds: float
    reported: tuple[Skipped, ...]
    right: UploadRight | None
    secrets: tuple[tuple[str, str], ...] = ()
