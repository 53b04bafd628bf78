"""Which system calls a tenant's program can make, asked of the kernel inside real containers (marker `podman`).

A small program makes each call by its number (fakes/system_calls.py). The file of the profile was taken out of
`engine/options.py` once, and single groups out of `seccomp/groups.py`, by hand, and a test failed for each.
"""

import errno
import os
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from claw_runtime.engine.podman import PodmanEngine
from claw_runtime.ports import Bind, ContainerSpec, ExecResult
from claw_runtime.seccomp import profiles
from fakes import live_podman, system_calls

pytestmark = [
    pytest.mark.podman,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the calls are made by their numbers on x86-64"),
]

NEW_USER = 0x1000_0000
SIGCHLD = 17
NO_CALL = -errno.ENOSYS

DANGEROUS: dict[str, tuple[int, ...]] = {
    "ptrace": (101, 16, -1, 0, 0),
    "syslog": (103, 10, 0, 0),
    "personality without randomisation": (135, 0x4_0000),
    "modify_ldt": (154, 0, 0, 0),
    "pivot_root": (155, 0, 0),
    "chroot": (161, 0),
    "acct": (163, 0),
    "mount": (165, 0, 0, 0, 0, 0),
    "umount2": (166, 0, 0),
    "swapon": (167, 0, 0),
    "reboot": (169, 0, 0, 0, 0),
    "sethostname": (170, 0, 0),
    "init_module": (175, 0, 0, 0),
    "io_setup": (206, 1, 0),
    "mq_open": (240, 0, 0, 0, 0),
    "kexec_load": (246, 0, 0, 0, 0),
    "add_key": (248, 0, 0, 0, 0, 0),
    "request_key": (249, 0, 0, 0, 0),
    "keyctl": (250, 0, -3, 0),
    "vmsplice": (278, -1, 0, 0, 0),
    "perf_event_open": (298, 0, 0, -1, -1, 0),
    "fanotify_init": (300, 0, 0),
    "open_by_handle_at": (304, -1, 0, 0),
    "setns": (308, -1, 0),
    "process_vm_readv": (310, 1, 0, 0, 0, 0, 0),
    "process_vm_writev": (311, 1, 0, 0, 0, 0, 0),
    "kcmp": (312, 1, 1, 0, 0, 0),
    "finit_module": (313, -1, 0, 0),
    "kexec_file_load": (320, -1, -1, 0, 0, 0),
    "bpf": (321, -1, 0, 0),
    "userfaultfd": (323, 1),
    "io_uring_setup": (425, 1, 0),
    "io_uring_enter": (426, -1, 0, 0, 0, 0, 0),
    "io_uring_register": (427, -1, 0, 0, 0),
    "open_tree": (428, -1, 0, 0),
    "move_mount": (429, -1, 0, -1, 0, 0),
    "fsopen": (430, 0, 0),
    "fsconfig": (431, -1, 0, 0, 0, 0),
    "fsmount": (432, -1, 0, 0),
    "fspick": (433, -1, 0, 0),
    "clone3": (435, 0, 0),
    "pidfd_getfd": (438, -1, 0, 0),
    "mount_setattr": (442, -1, 0, 0, 0, 0),
    "memfd_secret": (447, 0),
    "msgget": (68, 0, 0o1600),
    "unshare mount": (272, 0x2_0000),
    "unshare net": (272, 0x4000_0000),
    "clone user": (system_calls.CLONE, NEW_USER | SIGCHLD, 0, 0, 0, 0),
    "clone user, upper bits": (system_calls.CLONE, 1 << 40 | NEW_USER | SIGCHLD, 0, 0, 0, 0),
    "unshare user": (272, NEW_USER),
}
"""Of each the answer under strict must be that there is no such call; the last would change the process itself."""

OF_BROWSER = {"chroot", "unshare net", "clone user", "clone user, upper bits", "unshare user"}
"""Those of them that browser answers otherwise."""


class Inside:
    """A running container under one profile."""

    def __init__(self, engine: PodmanEngine, image: str, home: Path, profile: str) -> None:
        self.engine, self.state = engine, home / profile
        self.state.mkdir()
        self.container = engine.create(
            ContainerSpec(
                name=f"claw-test-calls-{os.getpid()}-{profile}",
                image=image,
                binds=[Bind(source=self.state, target="/state")],
                tmpfs=("/tmp",),
                network="none",
                seccomp=profiles.text(profile),
            )
        )
        engine.start(self.container)

    def run(self, *argv: str) -> ExecResult:
        return self.engine.execute(self.container, argv)

    def made(self, body: bytes) -> ExecResult:
        """Run an executable of these bytes."""
        path = self.state / "program"
        path.unlink(missing_ok=True)
        path.write_bytes(body)
        path.chmod(0o755)
        return self.run("/state/program")

    def answers(self, calls: Sequence[tuple[int, ...]]) -> list[int]:
        """What the kernel answers to these calls of one process, in their order."""
        done = self.made(system_calls.program(calls))
        assert done.exit_code == 0, done
        return system_calls.answers(done.stdout)


@pytest.fixture(scope="module")
def containers() -> Iterator[dict[str, Inside]]:
    """One under each profile; nothing of them is left afterwards."""
    with live_podman.directory_in() as home, live_podman.engine_at(home / "podman.sock") as engine:
        image = live_podman.small_image()
        made = {}
        try:
            for profile in profiles.OWN:
                made[profile] = Inside(engine, image, home, profile)
            yield made
        finally:
            for inside in made.values():
                engine.remove(inside.container)
        assert live_podman.left_containers(home) == []


@pytest.fixture
def strict(containers: dict[str, Inside]) -> Inside:
    return containers["strict"]


@pytest.fixture
def browser(containers: dict[str, Inside]) -> Inside:
    return containers["browser"]


def test_the_probe_tells_the_truth(strict: Inside) -> None:
    """Calls that are allowed answer as ever: a pid, an error of their own, a child."""
    pid, closed, child = strict.answers([(39,), (3, -1), (system_calls.CLONE, SIGCHLD, 0, 0, 0, 0)])
    assert (pid > 1, closed, child > 1) == (True, -errno.EBADF, True)


def test_no_dangerous_call_exists_under_strict(strict: Inside) -> None:
    """Namespaces, mounts, keys, tracing, io_uring, bpf, userfaultfd, perf, modules, kexec: the kernel seems not to
    have them."""
    found = dict(zip(DANGEROUS, strict.answers(list(DANGEROUS.values())), strict=True))
    assert {name: answer for name, answer in found.items() if answer != NO_CALL} == {}


def test_browser_has_namespaces_and_nothing_else(browser: Inside) -> None:
    """Under browser the same calls are missing, but for what a browser's own sandbox is made with."""
    found = dict(zip(DANGEROUS, browser.answers(list(DANGEROUS.values())), strict=True))
    assert {name for name, answer in found.items() if answer != NO_CALL} == OF_BROWSER
    assert found["clone user"] > 0
    assert found["unshare user"] == 0


def test_user_namespaces_are_browsers_alone(strict: Inside, browser: Inside) -> None:
    """`unshare -Ur`, as a program finds it: refused under strict; under browser it works, and still mounts nothing."""
    assert strict.run("unshare", "-Ur", "true").exit_code != 0
    assert browser.run("unshare", "-Ur", "true").exit_code == 0
    assert browser.run("unshare", "-Urm", "true").exit_code != 0
    assert browser.run("unshare", "-Ur", "mount", "-t", "tmpfs", "x", "/tmp").exit_code != 0


@pytest.mark.parametrize("profile", profiles.OWN)
def test_only_harmless_sockets_can_be_made(containers: dict[str, Inside], profile: str) -> None:
    """Of all families and types: UNIX, IPv4, IPv6 and route queries; not AF_ALG, AF_VSOCK, AF_PACKET, AF_RXRPC, and no
    netlink for firewalls or IPsec."""
    asked = [(family, kind, 0) for family in range(1, 46) for kind in (1, 2, 3, 5)]
    asked += [(16, 3, protocol) for protocol in range(1, 23)]
    asked += [
        (family, kind, protocol) for family in (2, 10) for kind, protocol in ((5, 132), (6, 33), (2, 136), (1, 262))
    ]
    answers = containers[profile].answers([(41, *one) for one in asked])
    exist = {
        (family, protocol) for (family, _, protocol), answer in zip(asked, answers, strict=True) if answer != NO_CALL
    }
    assert exist == {(1, 0), (2, 0), (10, 0), (16, 0)}


@pytest.mark.parametrize("profile", profiles.OWN)
def test_a_32_bit_call_ends_the_process(containers: dict[str, Inside], profile: str) -> None:
    """Their numbers mean other calls and would lead around every rule."""
    done = containers[profile].made(system_calls.program([(39,)], before=system_calls.OLD_GETPID))
    assert done.exit_code == 128 + 31  # SIGSYS
    assert done.stdout == b""


@pytest.mark.parametrize("profile", profiles.OWN)
def test_the_program_itself_is_filtered(containers: dict[str, Inside], profile: str) -> None:
    """The container's first process, and not only what is executed beside it."""
    status = containers[profile].run("cat", "/proc/1/status").stdout.decode()
    assert "Seccomp:\t2" in status
