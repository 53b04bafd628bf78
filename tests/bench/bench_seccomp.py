"""What claw's seccomp profile costs a program, in processor time: against Podman's own profile, back to back.

`seccomp_cost` is the worst case: a program that does nothing but six million of the cheapest system calls.
`seccomp_cost_start` is the real one: OpenClaw from its first instruction until it is ready. `seccomp_cost_tools` is
that of what its tools do most: `git status`, the start of Node, a walk of files in Python. Processor time is
compared, because other work on the host changes it less than the time that passes.
"""

import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

from bench import bench_image
from bench.bench_image import PATIENCE, PROJECT, REST, policy, start
from bench.figures import Figure, load, now, take_turns
from claw_runtime.seccomp import profiles
from fakes.live_podman import small_image

PEER = "Podman's profile"
CALLS = 3_000_000  # of `read`, and as many of `write`
GOAL = 1.02
OURS = (f"--security-opt=seccomp={profiles.path_of(profiles.DEFAULT)}",)
IMAGE = bench_image.THEIRS

TOOLS = """
import json, os, subprocess
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage

def spent():
    return sum(getrusage(whose).ru_utime + getrusage(whose).ru_stime for whose in (RUSAGE_SELF, RUSAGE_CHILDREN))

def many(times, *argv):
    for _ in range(times):
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, cwd=tree)

def walk():
    for _ in range(150):
        for path in paths:
            os.stat(path)

tree = Path("/tmp/tree")
paths = [tree / f"{number % 40}/{number}" for number in range(4000)]
for path in paths:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(path.name)
many(1, "git", "init", "-q")
many(1, "git", "add", ".")
answers = {}
works = {
    "git status": lambda: many(60, "git", "status", "--short"),
    "node": lambda: many(25, "node", "-e", "0"),
    "os.stat": walk,
}
for name, work in works.items():
    began = spent()
    work()
    answers[name] = spent() - began
print(json.dumps(answers))
"""
"""Seconds of processor time of each kind of work, in JSON."""


def measure(runs: int = 9) -> list[Figure]:
    """`seccomp_cost`."""
    image, before = small_image(), load()
    ours, theirs = take_turns("seccomp_cost", runs, lambda: _calls(image, OURS), lambda: _calls(image, ()))
    return [_figure("seccomp_cost", ours, theirs, before)]


def measure_start(runs: int = 5) -> list[Figure]:
    """`seccomp_cost_start`."""
    before = load()
    ours, theirs = take_turns("seccomp_cost_start", runs, lambda: _started(OURS), lambda: _started(()), rest=REST)
    return [_figure("seccomp_cost_start", ours, theirs, before)]


def measure_tools(runs: int = 9) -> list[Figure]:
    """`seccomp_cost_tools`."""
    before = load()
    ours, theirs = take_turns("seccomp_cost_tools", runs, lambda: _worked(OURS), lambda: _worked(()), rest=REST)
    figure = _figure(
        "seccomp_cost_tools", [sum(one.values()) for one in ours], [sum(one.values()) for one in theirs], before
    )
    return [replace(figure, parts={name: statistics.median(one[name] for one in ours) for name in ours[0]})]


def _worked(flags: tuple[str, ...]) -> dict[str, float]:
    """Seconds of processor time of each kind of work of `TOOLS` in one container."""
    parent = [f"--cgroup-parent={found}"] if (found := os.environ.get("CLAW_CGROUP_PARENT")) else []
    argv = ["run", "--rm", "-i", "--pull=never", "--network=none", "--cap-drop=all", *parent, *flags]
    argv += ["--tmpfs=/tmp:rw,mode=1777", "--env=HOME=/tmp", "--entrypoint=/usr/bin/python3", IMAGE, "-I", "-"]
    found: dict[str, float] = json.loads(_podman(*argv, text=TOOLS))
    return found


def _figure(name: str, ours: list[float], theirs: list[float], before: float) -> Figure:
    return Figure(name=name, peer=PEER, goal=GOAL, ours=ours, theirs=theirs, load=(before, load()), at=now())


def _calls(image: str, flags: tuple[str, ...]) -> float:
    """Seconds of processor time of a program that only reads and writes single bytes."""
    script = f"time dd if=/dev/zero of=/dev/null bs=1 count={CALLS}"
    parent = [f"--cgroup-parent={found}"] if (found := os.environ.get("CLAW_CGROUP_PARENT")) else []
    argv = ["podman", "run", "--rm", "--network=none", *parent, *flags, "--entrypoint=/bin/sh", image, "-c", script]
    said = subprocess.run(argv, check=True, capture_output=True, text=True).stderr
    return sum(60 * int(m) + float(s) for m, s in re.findall(r"(?:user|sys)\s+(\d+)m ([\d.]+)s", said))


def _started(flags: tuple[str, ...]) -> float:
    """Seconds of processor time until one OpenClaw is ready; its container is gone afterwards."""
    home = Path(tempfile.mkdtemp(prefix="claw-bench-", dir=Path.home()))
    label = _podman(
        "image", "inspect", "--format", f'{{{{index .Config.Labels "{bench_image.LABEL_CONTRACT}"}}}}', IMAGE
    )
    try:
        for name in ("state", "logs"):
            (home / name).mkdir()
        *argv, image = start(IMAGE, home)
        _podman(*argv, *flags, image)
        asking = ["exec", "-i", home.name, "/usr/bin/python3", "-I", "-", json.dumps(policy(json.loads(label)))]
        _podman(*asking, str(PATIENCE), text=(PROJECT / "tests/smoke/ready.py").read_text())
        pid = _podman("container", "inspect", "--format", "{{.State.Pid}}", home.name)
        return _spent(Path(f"/proc/{pid}/stat").read_text())
    finally:
        subprocess.run(["podman", "rm", "-f", "-i", "-t", "0", "-v", home.name], check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(home, ignore_errors=True)


def _spent(stat: str) -> float:
    """Seconds of processor time of a process and of its children that ended."""
    return sum(map(int, stat.rpartition(")")[2].split()[11:15])) / os.sysconf("SC_CLK_TCK")


def _podman(*arguments: str, text: str = "") -> str:
    done = subprocess.run(["podman", *arguments], check=True, stdout=subprocess.PIPE, input=text, text=True)
    return done.stdout.strip()
