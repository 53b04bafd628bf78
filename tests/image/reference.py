"""Which image the tests of this folder look at, and what runs it."""

import os
from pathlib import Path

import pytest
from claw_runtime.engine.imagetool import PodmanImageTool
from claw_runtime.images.versions import read_contract

RECIPE = Path(__file__).parents[2] / "images/openclaw-nix"
REFERENCE: str = os.environ.get("CLAW_IMAGE") or read_contract(RECIPE)["image"]


def opened() -> PodmanImageTool:
    """The adapter for the image; the test is skipped if the image is not built."""
    made = PodmanImageTool(cgroup_parent=os.environ.get("CLAW_CGROUP_PARENT"))
    if not made.has(REFERENCE):
        pytest.skip(f"{REFERENCE} is not built")
    return made
