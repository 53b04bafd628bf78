"""One tenant does its worst for a moment, and the others do not notice. `make hostile` measures it with twenty."""

from collections.abc import Iterator

import pytest
from fakes import live_podman
from hostile.attacks import ATTACKS, Attack
from hostile.neighbours import KINDS
from hostile.scene import Scene, scene

pytestmark = pytest.mark.podman

SECONDS = 1.5


@pytest.fixture(scope="module")
def ours() -> Iterator[Scene]:
    """Three neighbours; afterwards no container and no process is left."""
    with live_podman.directory_in() as home:
        with scene(home, live_podman.small_image(), 3) as made:
            yield made
        assert not live_podman.left_containers(home)
        assert not live_podman.left_processes(home)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name.replace(" ", "-"))
def test_a_hostile_tenant_keeps_nobody_from_work(ours: Scene, attack: Attack) -> None:
    """Claims, releases, answers, the status and commits of others go well during the attack; the attacker is released,
    with its state or with a named error, and can be claimed again."""
    result = ours.attacked(attack, SECONDS)

    assert not result.broken
    assert set(KINDS) <= result.seen.seconds.keys()
