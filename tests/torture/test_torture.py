"""A runtime that is killed in the middle of a restore, a commit or a removal loses nothing, wherever it dies."""

import pytest
from claw_runtime.state.commit.publisher import Publisher
from torture import report
from torture.case import Case, tried
from torture.situations import SITUATIONS

SITUATION = {one.name: one for one in SITUATIONS}


def test_nothing_is_lost_wherever_the_engine_dies() -> None:
    """A seeded sample of deaths: HEAD always names a generation that is whole, and the successor ends the work."""
    outcomes = report.sample(deaths=120, seed=7)

    assert [(one.situation, one.seed, one.point, one.where, one.broken) for one in outcomes if one.broken] == []
    assert sum(one.died for one in outcomes) > 100


def test_the_torture_would_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the manifest stored after HEAD instead of before, a reader finds a generation that is not there."""
    put = Publisher.seal

    def late(self: Publisher, *arguments: object) -> object:
        self._store.put, real = (lambda key, *_, **__: key), self._store.put  # type: ignore[method-assign]
        try:
            return put(self, *arguments)  # type: ignore[arg-type]
        finally:
            self._store.put = real  # type: ignore[method-assign]

    monkeypatch.setattr(Publisher, "seal", late)

    outcome = tried(Case(situation=SITUATION["first upload"], seed=3))

    assert any("I1" in fault for fault in outcome.broken)
