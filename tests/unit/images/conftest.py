"""One image, as a fake tool shows it: it keeps every promise of the real contract, until a test breaks one."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from claw_runtime.clock import SystemClock
from claw_runtime.images.build import Images
from claw_runtime.images.versions import read_contract
from fakes.engine import FakeEngine
from fakes.imagetool import FakeImageTool

FOLDER = Path(__file__).parents[3] / "images/openclaw-nix"
REFERENCE = "localhost/openclaw-nix:dev"


def good_config(contract: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "Env": [f"{name}={value}" for name, value in contract["environment"].items()],
        "Entrypoint": ["/usr/bin/python3", "-I", "-S", "/usr/lib/claw/__main__.py"],
        "ExposedPorts": {"18789/tcp": {}},
        "Labels": {
            "io.claw.contract": json.dumps(contract),
            "org.opencontainers.image.version": contract["application"]["version"],
        },
    }


def good_inside(contract: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "setuid": [],
        "open": ["/config", "/state"],
        "modes": dict.fromkeys(contract["writable"], "1777"),
        "missing": [],
        "tools": {name: [0, f"{name} {contract['application']['version']}"] for name in contract["tools"]},
    }


@pytest.fixture
def contract() -> dict[str, Any]:
    return read_contract(FOLDER)


@pytest.fixture
def tool(contract: dict[str, Any]) -> FakeImageTool:
    fake = FakeImageTool(FakeEngine(), good_inside(contract))
    fake.configs[REFERENCE] = good_config(contract)
    return fake


@pytest.fixture
def images(tool: FakeImageTool) -> Images:
    return Images(tool._engine, tool, SystemClock())
