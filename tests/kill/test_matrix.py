"""A daemon that is killed anywhere: on a fake Podman at every point, and proof that the invariants bite."""

from collections import Counter

import pytest
from claw_runtime.db.ledger import SqliteLedger
from claw_runtime.tenants.release import Releaser
from kill import matrix
from kill.lives import Outcome
from kill.stories import BOOT, STORIES


def told(outcomes: list[Outcome]) -> str:
    """Broken promises, one a line."""
    return "\n".join(f"{one.story}, {one.shot}, {one.found}: {'; '.join(one.broken)}" for one in outcomes if one.broken)


def test_nothing_is_lost_wherever_the_daemon_dies() -> None:
    """At every call that changes something, before it and after it, and at one in eight single changes of a file: the
    next daemon finishes or undoes what was half done, no word is lost, nothing is left, and nobody has to wait."""
    outcomes = matrix.run(STORIES, files_every=8)

    assert told(outcomes) == ""
    shots = [one for one in outcomes if one.shot]
    # Slots are made by several threads: once in a while one of them comes to a point that it did not come to before.
    missed = [f"{one.story}, {one.shot}" for one in shots if not one.reached]
    assert len(missed) <= len(shots) // 200, missed
    assert Counter(one.reached for one in outcomes)[False] == len(STORIES) + len(missed)
    assert len(shots) > 900, len(shots)
    assert max(one.seconds for one in outcomes) < 5


def test_a_boot_ends_with_the_same_tenants() -> None:
    """A daemon killed at any step of the claims after a boot: the next one continues, no word is lost, and all that ran
    before run again, in one container each."""
    outcomes = matrix.run(BOOT[:1], files_every=8)

    assert told(outcomes) == ""
    shots = [one for one in outcomes if one.shot]
    assert sum(not one.reached for one in shots) <= len(shots) // 50
    assert {"store.put:HEAD", "engine.start", "ledger.begin_boot"} <= {one.shot.name for one in shots if one.shot}


def forget(step: str) -> None:
    """Leave one step out of the journal."""
    note = SqliteLedger.note

    def forgetful(self: SqliteLedger, tenant: str, **columns: object) -> None:
        if columns.get("step") != step:
            note(self, tenant, **columns)  # type: ignore[arg-type]

    SqliteLedger.note = forgetful  # type: ignore[method-assign]


def skip_start() -> None:
    """A program that does not announce that a tenant's workload may run."""
    forget("start")


def skip_commit() -> None:
    """A program that does not announce a release's commit."""
    forget("commit")


def skip_give_back() -> None:
    """A program that keeps the lease of a claim that it takes back."""
    Releaser.give_back = lambda *_: None  # type: ignore[method-assign]


def forget_who_ran() -> None:
    """A program that notes a boot, and not which tenants it took down."""
    begin = SqliteLedger.begin_boot
    SqliteLedger.begin_boot = lambda self, boot, _, reason: begin(self, boot, (), reason)  # type: ignore[method-assign]


def test_a_forgotten_tenant_would_be_noticed() -> None:
    """One that is settled after a boot, and not claimed again, breaks a promise, and so does its neighbour."""
    outcomes = matrix.whole_stories(BOOT, forget_who_ran)
    assert len(outcomes) == told(outcomes).count("after the boot") == told(outcomes).count("the neighbour is")


@pytest.mark.parametrize(
    ("sabotage", "story", "says"),
    [
        (skip_start, "claim from a warm slot", "starts was"),
        (skip_give_back, "claim from a warm slot", "HEAD is held by"),
        (skip_commit, "release", "alice cannot be claimed"),
    ],
)
def test_the_matrix_would_notice(sabotage: matrix.Sabotage, story: str, says: str) -> None:
    """With one step of the journal taken out of the program, or one end forgotten, invariants break."""
    [chosen] = [one for one in STORIES if one.name == story]

    outcomes = matrix.run([chosen], sabotage=sabotage)

    assert says in told(outcomes)
