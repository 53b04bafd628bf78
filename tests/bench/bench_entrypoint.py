"""What the first process of an image costs: a whole seeding and exec, against an interpreter that does nothing.

Both start in turn, so that the machine's load falls on both alike. The state is an existing tenant's, as at most
starts; the gateway is `/bin/true`, and its own start counts as ours.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from fakes.image_root import PYTHON, contract_document, furnish, hand_over, install

BARE = [PYTHON, "-I", "-S", "-c", "pass"]
WARMING = 3


def _seconds(argv: list[str], environment: dict[str, str]) -> float:
    begin = time.perf_counter()
    subprocess.run(argv, env=environment, check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begin


def measure(runs: int = 60) -> dict[str, Any]:
    """Median seconds of `runs` starts, and their ratio to as many starts of the bare interpreter."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    ours: list[float] = []
    bare: list[float] = []
    with tempfile.TemporaryDirectory(prefix="claw-bench-") as name:
        root = furnish(Path(name, "root"))
        values = contract_document()["values"].items()
        hand_over(root, **{name: "x" * 40 for name, value in values if value["need"] == "optional"})
        start = [PYTHON, "-I", "-S", str(install(Path(name, "lib"), root))]
        for turn in range(runs + WARMING):
            took = _seconds(start, environment), _seconds(BARE, environment)
            if turn >= WARMING:
                ours.append(took[0])
                bare.append(took[1])
    value, peer = statistics.median(ours), statistics.median(bare)
    return {
        "name": "entrypoint_start",
        "value": round(value, 6),
        "unit": "s",
        "peer": "python3 -I -S -c pass",
        "ratio": round(value / peer, 3),
        "goal": "<= 3",
        "runs": runs,
    }


if __name__ == "__main__":
    print(json.dumps(measure()))
