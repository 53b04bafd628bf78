"""What `/opt/claw/lookups.mjs` answers in place of the file system, in real containers of the image."""

import json
from pathlib import Path
from typing import Any

import pytest
from claw_runtime.engine.imagetool import PodmanImageTool
from image.reference import REFERENCE, opened

pytestmark = [pytest.mark.image, pytest.mark.podman]

QUESTIONS = (Path(__file__).parent / "questions.mjs").read_text()
CHANGES = (Path(__file__).parent / "changes.mjs").read_text()


@pytest.fixture(scope="module")
def tool() -> PodmanImageTool:
    return opened()


def node(tool: PodmanImageTool, script: str) -> Any:
    """What a script prints as JSON, run by the image's Node."""
    done = tool.run(REFERENCE, ["node", "--input-type=module", "-e", script])
    assert done.exit_code == 0, done.stderr.decode()
    return json.loads(done.stdout)


def test_answers_are_the_file_system_s(tool: PodmanImageTool) -> None:
    """Each function answers as before, the first time and the second, for files, links, and names that do not exist."""
    said = node(tool, QUESTIONS)
    assert said["wrong"] == []
    assert said["asked"] > 1000


def test_what_is_remembered(tool: PodmanImageTool) -> None:
    """An answer is kept for what is reached without a link; the file system is asked for all others again."""
    before, after = node(tool, CHANGES)
    assert before == [[False, -1]] * 5
    assert after == [[False, -1]] * 2 + [[True, 7]] * 3


def test_nothing_is_remembered_of_a_tree_that_may_change(tool: PodmanImageTool) -> None:
    """The tree must be on a read-only file system, with no other one in it; the image's own is."""
    root, state = "1 0 0:1 / / {} - overlay o o\n", "2 1 0:2 / /state rw - ext4 d rw\n"
    mounts = {
        "real": "",
        "read-only": root.format("ro,nodev") + state,
        "writable": root.format("rw,nodev") + state,
        "covered": root.format("ro") + "3 1 0:3 / /opt/openclaw rw - tmpfs t rw\n",
        "with another in it": root.format("ro") + "3 1 0:3 / /opt/openclaw/a\\040b ro - tmpfs t ro\n",
        "beside it": root.format("ro") + "3 1 0:3 / /opt/openclaw2 rw - tmpfs t rw\n",
    }
    script = f"""
      const {{isFixed}} = await import('/opt/claw/lookups.mjs');
      const mounts = {json.dumps(mounts)};
      const fixed = Object.entries(mounts).map(([name, text]) => [name, isFixed('/opt/openclaw', text || undefined)]);
      console.log(JSON.stringify(Object.fromEntries(fixed)));
    """
    assert node(tool, script) == {name: name in ("real", "read-only", "beside it") for name in mounts}
