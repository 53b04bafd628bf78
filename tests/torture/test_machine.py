"""Two hosts, one bucket, and every trouble at once, thousands of ways: what was committed is what is read, for ever.

The model is a list: what each generation must bring back. A host may be cut off from the store, lose answers, be taken
over while it works, die at any call, or come back from the dead with an old right; none of it may change a generation,
skip one, or let a tree be committed that does not stem from HEAD's.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

from claw_runtime.errors import ClawError
from claw_runtime.objects.memory import MemoryStore
from claw_runtime.state.commit import bases
from claw_runtime.state.repository import CommitRequest, Repository, UploadRight
from claw_runtime.state.rules.selection import EVERYTHING
from claw_runtime.state.snapshots.snapshots import Snapshots
from claw_runtime.tenancy import tenant_id
from fakes.clock import FakeClock
from fakes.stores import Action, Crashed, Fault, FaultyStore, Operation
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

ALICE = tenant_id("alice")
NAMES = st.sampled_from(["a", "b", "dir/c", "dir/d", "täglich", "new\nline"])
BODIES = st.one_of(
    st.binary(max_size=30).filter(lambda body: not body.startswith(b"SQLite")),
    st.integers(1, 3).map(lambda n: bytes([n]) * 70_000 * n),
)
OPERATIONS: tuple[Operation, ...] = ("get", "put")
ACTIONS: tuple[Action, ...] = (
    "unavailable",
    "applied, answer lost",
    "not applied, answer lost",
    "truncated",
    "flipped",
    "crash",
)

Files = Mapping[str, bytes]


class Host:
    """One runtime and its line to the bucket; `base` is the generation that its tree grew from."""

    def __init__(self, name: str, memory: MemoryStore, top: Path) -> None:
        self.name, self.top = name, top / name
        self.line = FaultyStore(memory)
        self.tree = self.top / "tree"
        self.right: UploadRight | None = None
        self.start()

    def start(self) -> None:
        """A process without a memory of the one before; the tree is where it was."""
        self.repository = Repository(self.line, self.name, FakeClock(), self.top / "scratch")
        self.right = None

    def files(self) -> Files:
        return {str(path.relative_to(self.tree)): path.read_bytes() for path in self.tree.rglob("*") if path.is_file()}


class Bucket(RuleBasedStateMachine):
    """Rules that may happen in any order."""

    @initialize()
    def begin(self) -> None:
        self.top = Path(tempfile.mkdtemp(prefix="claw-m-"))
        self.small = bases.SMALL, bases.RELEASED
        bases.SMALL = bases.RELEASED = 0  # type: ignore[misc] # trees as small as these have deltas, too
        self.memory = MemoryStore()
        self.hosts = [Host(name, self.memory, self.top) for name in ("here", "there")]
        self.generations: list[Files] = [{}]
        self.reader = Repository(self.memory, "reader", FakeClock(), self.top / "scratch")

    def teardown(self) -> None:
        if hasattr(self, "top"):
            bases.SMALL, bases.RELEASED = self.small  # type: ignore[misc]
            shutil.rmtree(self.top, ignore_errors=True)

    # --- what may happen ---

    @rule(n=st.integers(0, 1), take_over=st.booleans())
    def claim(self, n: int, take_over: bool) -> None:
        """A host takes the tenant and makes its tree; what it makes is HEAD's, or nothing."""
        host = self.hosts[n]
        if host.right is not None:
            return
        shutil.rmtree(host.tree, ignore_errors=True)
        try:
            lease = host.repository.leases.acquire(ALICE, take_over=take_over)
            right = host.repository.restorer.restore(lease, host.tree)
        except ClawError:
            return
        except Crashed:
            host.start()
            return
        assert host.files() == self.generations[lease.head.generation]
        host.right = right

    @rule(n=st.integers(0, 1), name=NAMES, body=BODIES)
    def write(self, n: int, name: str, body: bytes) -> None:
        """The tenant's program writes a file."""
        host = self.hosts[n]
        if host.right is not None:
            (host.tree / name).parent.mkdir(exist_ok=True)
            (host.tree / name).write_bytes(body)

    @rule(n=st.integers(0, 1), name=NAMES)
    def remove(self, n: int, name: str) -> None:
        """The tenant's program removes a file."""
        host = self.hosts[n]
        if host.right is not None and len(host.files()) > 1:
            (host.tree / name).unlink(missing_ok=True)

    @rule(n=st.integers(0, 1), release=st.booleans())
    def commit(self, n: int, release: bool) -> None:
        """A host commits; if it heard no answer, HEAD says whether it happened."""
        host = self.hosts[n]
        if host.right is None:
            return
        before, files = host.right, host.files()
        try:
            done = host.repository.committer.commit(
                CommitRequest(
                    right=host.right,
                    tree=host.tree,
                    selection=EVERYTHING,
                    image_digest="sha256:0",
                    application="",
                    release=release,
                )
            )
        except ClawError:
            self.settle(before, files)
        except Crashed:
            self.settle(before, files)
            host.start()
        else:
            self.settle(before, files)
            assert done.number == len(self.generations) - 1
            assert self.generations[-1] == files
            host.right = done.right

    def settle(self, right: UploadRight, files: Files) -> None:
        """A new generation is exactly the next one, by the holder of HEAD's epoch, and holds what was in the tree."""
        head = self.reader.generations.head(ALICE)
        number = head.generation if head else 0
        if number == len(self.generations) - 1:
            return
        assert number == len(self.generations)
        assert head is not None
        assert head.epoch == right.epoch
        self.generations.append(files)

    @rule(n=st.integers(0, 1))
    def die(self, n: int) -> None:
        """A host's process is gone; the next one finds the tree, and may go on only if HEAD is still what it was."""
        host = self.hosts[n]
        old, files = host.right, host.files()
        host.start()
        if old is None:
            return
        try:
            lease = host.repository.leases.acquire(ALICE)
            host.right = host.repository.restorer.adopt(lease, old.base_generation)
        except ClawError:
            return
        except Crashed:
            host.start()
            return
        assert host.files() == files

    @rule(n=st.integers(0, 1), back=st.integers(0, 5))
    def go_back(self, n: int, back: int) -> None:
        """A host without a tree seals an earlier generation as the next; whether it happened, HEAD says."""
        host = self.hosts[n]
        wanted = len(self.generations) - 1 - back
        if host.right is not None or wanted < 1:
            return
        snapshots = Snapshots(
            repository=host.repository, store=host.line, clock=FakeClock(), still=lambda _: nullcontext(lambda _: None)
        )
        try:
            snapshots.restore(ALICE, str(wanted))
        except ClawError:
            pass
        except Crashed:
            host.start()
        head = self.reader.generations.head(ALICE)
        if head and head.generation == len(self.generations):
            assert head.owner is None
            self.generations.append(self.generations[wanted])

    @rule(
        n=st.integers(0, 1),
        operation=st.sampled_from(OPERATIONS),
        action=st.sampled_from(ACTIONS),
        first=st.integers(1, 4),
        times=st.sampled_from([1, 1, 2, 99]),
    )
    def trouble(self, n: int, operation: Operation, action: Action, first: int, times: int) -> None:
        """From the n-th call on, something of what real stores have done."""
        if operation == "put" and action in ("truncated", "flipped"):
            return
        self.hosts[n].line.tell(Fault(operation=operation, action=action, first=first, times=times))

    @rule(n=st.integers(0, 1))
    def calm(self, n: int) -> None:
        """The line is good again."""
        self.hosts[n].line.tell()

    # --- what always holds ---

    @invariant()
    @precondition(lambda self: hasattr(self, "reader"))
    def head_is_whole(self) -> None:
        """HEAD names the last generation that was made, and anybody can read it, byte for byte."""
        head = self.reader.generations.head(ALICE)
        number = head.generation if head else 0
        assert number == len(self.generations) - 1
        if number:
            assert self.read(number) == self.generations[number]

    def read(self, generation: int) -> Files:
        document = self.reader.generations.manifest(ALICE, generation)
        return {
            entry.path: b"".join(self.reader.generations.read(ALICE, entry.path, generation))
            for entry in document.entries
            if entry.type == "f"
        }

    @rule()
    def history_is_whole(self) -> None:
        """Earlier generations are what they were."""
        for number in range(1, len(self.generations)):
            assert self.read(number) == self.generations[number]


Bucket.TestCase.settings = settings(
    max_examples=int(os.environ.get("CLAW_TORTURE_EXAMPLES", "200")),
    stateful_step_count=30,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
test_what_was_committed_is_what_is_read = Bucket.TestCase
