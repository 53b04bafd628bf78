"""The cost of the first process of an image: a whole seeding and exec, compared with an interpreter that does nothing.

Both run in turns, so that the machine's load affects both alike. The state is an existing tenant's, as at most
starts. The gateway is `/bin/true`, and its start counts as ours.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.figures import Figure, load, now, take_turns
from fakes.image_root import PYTHON, contract_document, furnish, hand_over, install

BARE = (PYTHON, "-I", "-S", "-c", "pass")
WARMING = 3


def measure(runs: int = 60) -> list[Figure]:
    """`entrypoint_start`: the launch form of the image, `python3 -I -S <directory>/__main__.py`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    before = load()
    with tempfile.TemporaryDirectory(prefix="claw-bench-") as name:
        root = furnish(Path(name, "root"))
        document = contract_document()
        chooses = document.get("discovery", {}).get("value")  # names of what only an image has
        optional = [name for name, value in document["values"].items() if value["need"] == "optional"]
        hand_over(root, **{name: "x" * 40 for name in optional if name != chooses})
        start = (PYTHON, "-I", "-S", str(install(Path(name, "lib"), root) / "__main__.py"))
        ours, theirs = take_turns(
            "entrypoint_start",
            runs,
            lambda: _seconds(start, environment),
            lambda: _seconds(BARE, environment),
            warming=WARMING,
        )
    return [
        Figure(
            name="entrypoint_start",
            peer="python3 -I -S -c pass",
            goal=3,
            ours=ours,
            theirs=theirs,
            load=(before, load()),
            at=now(),
        )
    ]


def _seconds(argv: Sequence[str], environment: Mapping[str, str]) -> float:
    begin = time.perf_counter()
    subprocess.run(argv, env=environment, check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begin
