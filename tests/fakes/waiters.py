"""What waits at the start gates of a fake engine's containers: late, dying, or leaving, when a test says so."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from claw_runtime.ports import ContainerSpec
from fakes.engine import FakeEngine
from fakes.gates import Waiter

FORMER = {"parked": "entrypoint", "waiting": "interpreter"}
"""Word that `--park` is given → tier."""

ROOT = Path(__file__).resolve().parents[2]


def contract(*, prewarm: bool = True) -> str:
    """The text of a contract whose image offers every tier; without `prewarm` only the first two."""
    document = json.loads((ROOT / "images/openclaw-nix/contract.json").read_text())
    document.pop("prewarm", None)
    document["capabilities"]["prewarm"] = prewarm
    if prewarm:
        document["prewarm"] = {"argv": ["/bin/node", "/opt/claw/prewarm.mjs"], "modules": "/opt/claw/modules.list"}
    return json.dumps(document)


class Waiters:
    """Decides how the processes of an engine's containers behave while they wait.

    Attributes:
        late: Tiers whose processes start, and never come to the gate.
        before: Called with the spec of each before it comes.
        tiers: Tier of each that came, in order.
    """

    def __init__(self, engine: FakeEngine) -> None:
        self.late: set[str] = set()
        self.before: Callable[[ContainerSpec], None] = lambda spec: None
        self.tiers: list[str] = []
        self._waiters: list[Waiter] = []
        self._come = engine._park
        engine._park = self._park  # type: ignore[method-assign]

    def leave(self) -> None:
        """All processes leave their gates; their containers go on."""
        for waiter in self._waiters:
            waiter.end()
        self._waiters.clear()

    def _park(self, held: Any) -> None:
        word = held.spec.command[1]
        tier = FORMER.get(word, word)
        self.before(held.spec)
        if tier in self.late or held.seen.state != "running":
            return
        self._come(held)
        self._waiters.append(held.waiter)
        self.tiers.append(tier)
