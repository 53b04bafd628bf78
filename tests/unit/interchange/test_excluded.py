"""An import stores what a commit would store: names that the workload excludes are left out, and its limits hold."""

import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from claw_runtime.errors import UploadFailed
from claw_runtime.interchange.tar_in import EXCLUDES, Interchange
from claw_runtime.tenancy import tenant_id
from claw_runtime.tenants.host import limits_of, unexcluded_of
from fakes.world import WORKLOAD, World

ALICE = tenant_id("alice")
FILES = ("notes.md", "cache/deep/page", "uv.lock", "data/old/1", "data/new", "up/report")
SYNC = """sync:
  exclude: [/cache/, "*.lock"]
  mappings:
    - {path: data, exclude: [old/], direction: download}
    - {path: up, direction: upload}
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "world", workload=WORKLOAD + SYNC)
    yield made
    made.close()


@pytest.fixture(params=["directory", "tar"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """What is imported."""
    directory = tmp_path / "in"
    for name in FILES:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(name)
    if request.param == "directory":
        return directory
    with tarfile.open(tmp_path / "in.tar", "w") as tar:
        tar.add(directory, ".")
    return tmp_path / "in.tar"


def test_excluded_names_are_left_out(world: World, source: Path) -> None:
    """By the section's patterns and a mapping's; one line tells of a directory. What a mapping is for changes nothing:
    an import brings what a program may not change, too."""
    interchange = Interchange(
        world.repository, world.layout, world.tenants.still, selection=partial(unexcluded_of, world.host)
    )

    done, reported = interchange.bring(ALICE, source)

    assert sorted(world.saved("alice")) == ["data/new", "notes.md", "up/report"]
    assert sorted((one.path, one.reason) for one in reported) == [
        ("cache", EXCLUDES),
        ("data/old", EXCLUDES),
        ("uv.lock", EXCLUDES),
    ]
    assert done.bytes == sum(map(len, world.saved("alice")))


def test_the_next_claim_has_nothing_of_it(world: World, source: Path) -> None:
    """A cache or an old key that was imported would be restored once."""
    interchange = Interchange(
        world.repository, world.layout, world.tenants.still, selection=partial(unexcluded_of, world.host)
    )
    interchange.bring(ALICE, source)

    world.tenants.claim(ALICE, "small")

    assert not (world.state("alice") / "cache").exists()
    assert not (world.state("alice") / "uv.lock").exists()


@pytest.mark.parametrize(("limit", "name"), [("{files: 3}", "files"), ("{size: 20}", "size")])
def test_a_state_over_its_limits_is_refused(tmp_path: Path, source: Path, limit: str, name: str) -> None:
    """Else the tenant would run, and none of its commits would succeed."""
    world = World(tmp_path / "small", workload=f"{WORKLOAD}sync: {{limits: {limit}}}\n")
    interchange = Interchange(
        world.repository, world.layout, world.tenants.still, limits=partial(limits_of, world.host)
    )

    with pytest.raises(UploadFailed) as refused:
        interchange.bring(ALICE, source)
    assert f"sync.limits.{name}" in refused.value.why

    head = world.repository.generations.head(ALICE)
    assert head is not None
    assert (head.generation, head.owner) == (0, None)
    world.close()
