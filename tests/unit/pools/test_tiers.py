"""How warm a slot can wait, as its image's contract lets the runtime know."""

import json

from claw_entrypoint import park
from claw_runtime.pools.templates import _PARK
from claw_runtime.ports import TIERS
from claw_runtime.spec.contract import promise
from fakes.image_root import contract_document


def test_the_runtime_is_told_which_tiers_there_are() -> None:
    """Without a volume of values a slot only waits unstarted; with a waiter there are all four."""
    document = contract_document()
    assert promise(json.dumps(document), "x").tiers == ("created", "entrypoint", "interpreter", "prewarmed")

    del document["prewarm"], document["capabilities"]
    assert promise(json.dumps(document), "x").tiers == ("created", "entrypoint")

    del document["volumes"]["/run/claw"]
    assert promise(json.dumps(document), "x").tiers == ("created",)


def test_the_entrypoint_understands_what_the_runtime_tells_it() -> None:
    """For each tier that has a process, and in words that images built before the tiers were renamed know as well."""
    assert {tier: park.tier([word]) for tier, word in _PARK.items()} == {tier: tier for tier in TIERS[1:]}
    assert [*_PARK.values()] == ["parked", "waiting", "prewarmed"]
