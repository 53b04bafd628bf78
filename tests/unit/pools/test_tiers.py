"""How warm a slot can wait, as its image's contract lets the runtime know."""

import json

from claw_runtime.spec.contract import promise
from fakes.image_root import contract_document


def test_the_runtime_is_told_which_tiers_there_are() -> None:
    """Without a volume of values a slot only waits unstarted; with a waiter there are all four."""
    document = contract_document()
    assert promise(json.dumps(document), "x").tiers == ("slot", "parked", "waiting", "prewarmed")

    del document["prewarm"], document["capabilities"]
    assert promise(json.dumps(document), "x").tiers == ("slot", "parked")

    del document["volumes"]["/run/claw"]
    assert promise(json.dumps(document), "x").tiers == ("slot",)
