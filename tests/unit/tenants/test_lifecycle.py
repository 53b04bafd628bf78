"""The table of remedies: every state and step that a crash can leave has one, and none of them loses a tree."""

from typing import Any, get_args

import pytest
from claw_runtime.ports import ContainerState, TenantRow, TenantState
from claw_runtime.tenancy import TenantId
from claw_runtime.tenants.lifecycle import Remedy, Step, remedy

CONTAINERS: list[ContainerState | None] = [None, *get_args(ContainerState)]


def row(state: TenantState, step: str = "", **columns: Any) -> TenantRow:
    """A tenant's row with nothing else in it."""
    facts = {"pool": "p", "slot": "s", "source": "", "base": 1, "epoch": 1, "error": "", "since": 0.0, **columns}
    return TenantRow(id=TenantId("alice"), state=state, step=step, **facts)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("step", list(Step))
@pytest.mark.parametrize("state", get_args(TenantState))
def test_every_row_has_a_remedy(state: TenantState, step: Step, container: ContainerState | None) -> None:
    """Whatever state, step and container a crash leaves, there is exactly one thing to do."""
    assert isinstance(remedy(row(state, step), container), Remedy)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("step", [Step.NONE, Step.LEASE, Step.SYNC, Step.HOLD, Step.COMMIT])
def test_a_tree_that_may_be_newer_is_never_dropped(step: Step, container: ContainerState | None) -> None:
    """Once a workload may have run, and until its tree was committed, it is settled or tried again."""
    keeping = {Remedy.SETTLE, Remedy.RETRY, Remedy.NOTHING, Remedy.RESUME}
    assert remedy(row("claiming", Step.START), container) is Remedy.SETTLE
    assert remedy(row("releasing", step), container) is Remedy.SETTLE
    assert remedy(row("kept", step), container) is Remedy.RETRY
    assert remedy(row("active", step), container) in keeping


@pytest.mark.parametrize("step", [Step.BEGIN, Step.SLOT, Step.LEASE, Step.TREE])
def test_a_claim_that_has_not_run_is_taken_back(step: Step) -> None:
    """Before the start the store is as new as the tree."""
    assert remedy(row("claiming", step), "initialized") is Remedy.UNDO


def test_a_trial_is_taken_back_even_when_it_ran() -> None:
    """What a workload wrote on trial is dropped, wherever the trial stopped."""
    assert remedy(row("claiming", Step.START, trial=1), "running") is Remedy.UNDO
    assert remedy(row("active", trial=1), "exited") is Remedy.UNDO
    assert remedy(row("active", trial=1), None) is Remedy.UNDO


def test_a_trial_that_runs_is_left_alone() -> None:
    """Neither a restart nor a look ends a trial whose container lives."""
    assert remedy(row("active", trial=1), "running") is Remedy.NOTHING


@pytest.mark.parametrize("state", ["active", "claiming", "releasing", "kept", "frozen", "parked"])
@pytest.mark.parametrize("step", [Step.CLEAR, Step.REST])
def test_a_tree_that_is_being_removed_is_never_used_again(state: TenantState, step: Step) -> None:
    """A half-removed tree is removed whole, whatever the state says."""
    assert remedy(row(state, step), "paused") is Remedy.CLEAR


def test_an_active_tenant_is_left_alone_while_its_container_lives() -> None:
    """A restart of the daemon disturbs nobody; a container that ended is committed."""
    assert remedy(row("active"), "running") is Remedy.NOTHING
    assert remedy(row("active"), "paused") is Remedy.NOTHING
    assert remedy(row("active"), "exited") is Remedy.SETTLE
    assert remedy(row("active"), None) is Remedy.SETTLE


def test_a_container_that_a_commit_paused_is_resumed() -> None:
    """A daemon that ended in that moment left it paused; any other pause is an operator's."""
    assert remedy(row("active", Step.HOLD), "paused") is Remedy.RESUME
    assert remedy(row("active", Step.HOLD), "running") is Remedy.NOTHING
    assert remedy(row("active", Step.HOLD), "exited") is Remedy.SETTLE
    assert remedy(row("active", Step.SYNC), "paused") is Remedy.NOTHING
    assert remedy(row("releasing", Step.HOLD), "paused") is Remedy.SETTLE


def test_a_frozen_tenant_survives_only_frozen() -> None:
    """One that somebody woke may have written, and is committed; one that is gone was committed already."""
    assert remedy(row("frozen"), "paused") is Remedy.NOTHING
    assert remedy(row("frozen"), "running") is Remedy.SETTLE
    assert remedy(row("frozen"), "exited") is Remedy.CLEAR
    assert remedy(row("frozen"), None) is Remedy.CLEAR
