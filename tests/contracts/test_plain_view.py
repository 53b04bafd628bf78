"""The plain view in each kind of store: odd names, large files, and names that become directories and back."""

from pathlib import Path

from claw_runtime.ports import ObjectStore
from claw_runtime.spec import loader, plan
from claw_runtime.state.plain_view import LARGE, PlainViews, ViewStatus, escape
from claw_runtime.state.repository import CommitRequest, Repository
from claw_runtime.state.rules.selection import selection_of
from claw_runtime.tenancy import Keys, TenantId
from fakes.clock import FakeClock

ALICE = TenantId("alice")
WORKLOAD = plan.make(
    loader.parse(
        "{id: a, image: b, volumes: {state: {target: /state}}, healthcheck: {test: [CMD, x]},"
        " sync: {mappings: [{path: /state/out, plain_view: true}], rest: store}}",
        Path("w.yaml"),
    )
)
ODD = "out/ü b/c_d/\\%~'\"\n/\udcff"


def make(root: Path, files: dict[str, bytes]) -> Path:
    """A tree with these files."""
    for name, body in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(body)
    return root


def test_a_view_follows_the_state(store: ObjectStore, tmp_path: Path) -> None:
    """What a tool finds below files/ is what was committed, whatever the names and sizes."""
    here, large = tmp_path / "here", bytes(range(256)) * (LARGE // 256 + 1)
    repository = Repository(store, "host-a", FakeClock(), here / "scratch")
    views = PlainViews(store, repository)
    trees = [
        {"out/x": b"1", "out/y/z": b"1", ODD: b"odd", "private": b"1", "out/large": large},
        {"out/x/z": b"2", "out/y": b"2", ODD: b"", "private": b"2"},
        {"private": b"2"},
    ]
    prefix = Keys(ALICE).files
    for number, files in enumerate(trees, 1):
        tree = make(here / f"tree-{number}", files)
        right = repository.restorer.restore(repository.leases.acquire(ALICE), here / f"staging-{number}")
        selection = selection_of(WORKLOAD)
        repository.committer.commit(
            CommitRequest(right=right, tree=tree, selection=selection, image_digest="", application="", release=True)
        )
        views.reflect(ALICE, WORKLOAD)
        views.work_off()
        shown = {escape(name): body for name, body in files.items() if name.startswith("out/")}
        assert views.status(ALICE) == ViewStatus(generation=number, files=len(shown))
        found = [item.key.removeprefix(prefix) for item in store.list(prefix)]
        assert {key: store.get(f"{prefix}{key}")[0] for key in found if key != "_VIEW"} == shown
