"""Looking at images, over fakes: what an image says about itself, and nothing that it does not."""

import hashlib
import json
from typing import Any

import pytest
from claw_runtime.images.build import Images
from claw_runtime.images.inspect import Bill
from fakes.imagetool import FakeImageTool

REFERENCE = "localhost/openclaw-nix:dev"


def test_an_inspection_names_what_an_image_is_made_of(
    images: Images, tool: FakeImageTool, contract: dict[str, Any]
) -> None:
    """Digest, revision, labels without the contract, and the count and digest of the bill that is in the image."""
    text = json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.5", "components": [{}, {}]})
    tool.files["/etc/claw/sbom.json"] = text
    labels = {"org.opencontainers.image.revision": "abc", "x": "y"}
    contracted = labels | {"io.claw.contract": json.dumps(contract)}
    tool.configs[REFERENCE] = {"Entrypoint": ["/python"], "Labels": contracted}
    image = tool._engine.add_image(REFERENCE)

    found = images.inspect(REFERENCE)

    assert (found.image.digest, found.revision, found.labels) == (image.digest, "abc", labels)
    assert found.application == f"openclaw {contract['application']['version']}"
    assert found.bill == Bill(
        form="CycloneDX 1.5", components=2, digest=f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    )


@pytest.mark.parametrize("bill", [None, "not JSON", "{}", "[]"])
def test_an_image_without_a_bill_is_shown_without_one(images: Images, tool: FakeImageTool, bill: str | None) -> None:
    """Neither a missing nor a broken bill of materials keeps an image from being looked at."""
    if bill is not None:
        tool.files["/etc/claw/sbom.json"] = bill
    tool._engine.add_image(REFERENCE)
    assert images.inspect(REFERENCE).bill is None


def test_an_image_that_says_nothing_is_shown_as_it_is(images: Images, tool: FakeImageTool) -> None:
    """Any image can be looked at: without labels, contract or interpreter nothing is guessed, and nothing is run."""
    tool.configs[REFERENCE] = {"Labels": None}
    tool._engine.add_image(REFERENCE)
    found = images.inspect(REFERENCE)
    assert (found.labels, found.application, found.revision, found.bill) == ({}, "", "", None)
