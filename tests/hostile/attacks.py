"""What a hostile tenant does: programs in its own container, and requests with its own token (flood.py).

Their caller ends them. Those that only a cgroup controller can stop (processes, memory) bound themselves, so that a
host without controllers survives: this tests claw, not the kernel.
"""

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One way of taking something from the others.

    Attributes:
        script: For `sh -c` in the tenant's container; it may run for ever.
        requests: Paths below the tenant's, each asked again and again by so many clients.
    """

    name: str
    script: str = ""
    requests: tuple[str, ...] = ()


def _program(name: str, *lines: str) -> Attack:
    return Attack(name=name, script="\n".join(lines))


ATTACKS: Final = (
    _program(
        "processes",
        "i=0",
        "while [ $i -lt 300 ]; do sleep 600 & i=$((i + 1)); done",
        "wait",
    ),
    _program("orphans", "while :; do sh -c 'sleep 0.1 & exit'; sleep 0.02; done"),
    _program("memory", "while :; do head -c 96m /dev/zero | tail > /dev/null; sleep 0.1; done"),
    _program("scratch", "while :; do dd if=/dev/zero of=/tmp/fill bs=1M count=64; rm -f /tmp/fill; sleep 0.2; done"),
    _program("disk", "while :; do dd if=/dev/urandom of=/state/big bs=1M count=64; sleep 0.2; done"),
    _program(
        "inodes",
        "n=0",
        "while :; do",
        "  mkdir -p /state/many/$n; (cd /state/many/$n && seq 500 | xargs touch)",
        "  n=$(((n + 1) % 20)); rm -rf /state/many/$(((n + 10) % 20)); sleep 0.2",
        "done",
    ),
    _program("log", "while :; do seq 2000 > /proc/1/fd/1; sleep 0.05; done"),
    _program("log files", "while :; do dd if=/dev/zero of=/logs/big bs=1M count=32; sleep 0.2; done"),
    _program(
        "sockets",
        "while :; do",
        "  i=0; while [ $i -lt 60 ]; do sleep 2 | nc 127.0.0.1 8080 & i=$((i + 1)); done",
        "  wait",
        "done",
    ),
    _program(
        "inotify",
        "mkdir -p /state/seen",
        "i=0; while [ $i -lt 60 ]; do inotifyd : /state/seen & i=$((i + 1)); done",
        "wait",
    ),
    _program("holes", "while :; do truncate -s 15T /state/hole; sleep 0.5; rm -f /state/hole; sleep 0.5; done"),
    _program(
        "modes",
        "mkdir -p /state/closed; echo x > /state/closed/x",
        "chmod 000 /state/closed/x /state/closed; chmod 500 /logs",
        "while :; do chmod 000 /state; sleep 0.3; chmod 700 /state; sleep 0.3; done",
    ),
    _program(
        "names",
        "cd /state",
        r"""touch "$(printf 'new\nline')" "$(printf '\033[2Jescape')" "$(printf '\377\376')" """,
        "i=0; while [ $i -lt 300 ]; do mkdir -p deep && cd deep; i=$((i + 1)); done",
        "while :; do touch a; mv a b; mv b a; done",
    ),
    _program(
        "links",
        "mkdir -p /state/links; cd /state/links",
        "ln -s / root; ln -s ../../.. up; mkfifo pipe; echo x > one",
        "i=0; while [ $i -lt 500 ]; do ln one hard$i; ln -s /etc/passwd soft$i; i=$((i + 1)); done",
        "while :; do ln -sfn /etc swap; rm -f swap; mkdir -p swap; rmdir swap; done",
    ),
    _program("rewriting", "while :; do dd if=/dev/urandom of=/state/moving bs=64k count=160 conv=notrunc; done"),
    Attack(name="verify", requests=("verify",)),
    Attack(name="followers", requests=("logs?follow=true",)),
    Attack(name="reads", requests=("files", "snapshots", "export", "stored", "status")),
    Attack(
        name="bad requests",
        requests=("files/" + quote("\x1b[2J\n"), "snapshots/@9999999999d", "logs?tail=" + "9" * 30, "x" * 4000),
    ),
)
