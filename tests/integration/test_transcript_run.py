"""The session that docs/TRANSCRIPT.md shows, played again on a small image: every line of ours still has its shape.

Numbers, sizes, durations, ids and dates are one run's; words, columns and exit codes are the program's.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from fakes import live_podman, waiters
from fakes.transcript import generator, pairs

pytestmark = [pytest.mark.podman, pytest.mark.s3]

PAGE = (Path(__file__).parents[2] / "docs/TRANSCRIPT.md").read_text(encoding="utf-8")
WORKLOAD = """\
id: openclaw
image: {image}:dev
contract: contract.json
pool:
  max_size: 20
  warmth: {{created: 1, prewarmed: 1, frozen: 2}}
  affinity_timeout: 10m
healthcheck: {{path: /healthz, ready_timeout: 20s}}
"""


def shape(text: str) -> list[str]:
    """The lines of an output without what one run measured or counted, and without the width of columns."""
    text = re.sub(r"\bsha256:\w+|\b[0-9a-f]{64}\b", "ID", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|\+00:00)", "DATE", text)
    text = re.sub(r"\d+(\.\d+)? (B|kB|MB)\b", "SIZE", text)
    text = re.sub(r"\b\d+(\.\d+)? (ms|s|min \d+ s|min)\b", "TIME", text)
    text = re.sub(r"\d+(\.\d+)?", "N", text)
    lines = [re.sub(r"\s+", " ", line).rstrip() for line in text.splitlines()]
    return [line for line in lines if "not enforced on this host" not in line]  # that is the host's, not ours


@pytest.fixture
def image(small_image: str) -> Iterator[str]:
    """A name whose tag `dev` is the small image."""
    name = f"localhost/claw-transcript-{small_image.rpartition(':')[2]}"
    subprocess.run(["podman", "tag", small_image, f"{name}:dev"], check=True, capture_output=True)
    yield name
    subprocess.run(["podman", "untag", small_image, f"{name}:dev"], check=True, capture_output=True)


def test_the_session_still_looks_like_that(session_home: Path, image: str) -> None:
    """Each command of the page prints lines of the same words, columns and exit codes, in the same order."""
    live_podman.need_freezing()
    module: ModuleType = generator()
    promise = json.loads(waiters.contract())
    promise["ports"]["gateway"] = 8080
    stage = module.Stage(
        image=image,
        workload=WORKLOAD.format(image=image),
        files={"contract.json": json.dumps(promise)},
        port=8080,
    )
    ours = [line.kind == "ours" for line in module.lines(module.PAGE) if line.kind in ("ours", "image")]

    with live_podman.directory_in(session_home) as directory, module.variants(image):
        played = pairs(module.record(stage, directory))

    told = pairs(PAGE)
    assert [command for command, _ in played] == [command for command, _ in told]
    for compared, (command, now), (_, then) in zip(ours, played, told, strict=True):
        if compared:
            assert shape(now) == shape(then), command
