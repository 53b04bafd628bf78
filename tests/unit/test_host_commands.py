"""host/commands puts `claw` on the PATH for a user and for root, and never in place of another program.

`id`, `setpriv` and `getent` are small programs, so that a test can be root; host/run is one that reports its call.
"""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from claw_runtime.cli import main as cli
from fakes.command_lines import command_lines, complaint

TOP = Path(__file__).parents[2]
TOOLS = ["sh", "cat", "cp", "mv", "rm", "mkdir", "chmod", "sed", "grep", "dirname", "cut", "stat", "diff"]
RUN = '#!/bin/sh\nprintf "%s|" "$(pwd -P)" "$CLAW_USER" "$@"; cat; exit "${CODE:-0}"\n'

pytestmark = pytest.mark.spawns


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A host with the user `claw` and a tree, whose prepared scripts are in `lib`."""

    root: Path
    uid: int

    @property
    def tree(self) -> Path:
        return self.root / "it's a tree"

    @property
    def copy(self) -> Path:
        return self.root / "home/claw/claw-work"

    @property
    def bin(self) -> Path:
        return self.root / "bin"

    def call(self, *argv: str | Path, at: Path | None = None, **settings: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(self.root / "tools"), "HOME": str(self.root / "home/ann"), "CLAW_USER": "claw"}
        environment |= {"FAKE_UID": str(self.uid), "FAKE_NAME": "root" if self.uid == 0 else "ann"}
        environment |= {"CLAW_BIN": str(self.bin), "CLOSED": str(self.root / "closed")}
        return subprocess.run(
            argv,
            cwd=at or self.root,
            env=environment | settings,
            input="typed",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def install(self, **settings: str) -> subprocess.CompletedProcess[str]:
        return self.call(self.tree / "host/commands", "install", **settings)

    def claw(self, *arguments: str, at: Path | None = None, **settings: str) -> subprocess.CompletedProcess[str]:
        return self.call(self.bin / "claw", *arguments, at=at, **settings)


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def made(root: Path, uid: int) -> Host:
    host = Host(root=root.resolve(), uid=uid)
    (host.root / "tools").mkdir()
    for name in TOOLS:
        (host.root / "tools" / name).symlink_to(shutil.which(name) or name)
    program(host.root / "tools/id", '#!/bin/sh\ncase $1 in -un) echo "$FAKE_NAME" ;; *) echo "$FAKE_UID" ;; esac\n')
    program(host.root / "tools/getent", f"#!/bin/sh\necho 'claw:x:1:1::{host.root}/home/claw:/bin/sh'\n")
    program(
        host.root / "tools/setpriv",
        '#!/bin/sh\nwhile [ "$1" != sh ]; do shift; done\ncase $5 in "$CLOSED"*) exit 1 ;; esac\nexec "$@"\n',
    )
    for name in ("commands", "launcher", "lib.sh"):
        (host.tree / "host").mkdir(parents=True, exist_ok=True)
        shutil.copy(TOP / "host" / name, host.tree / "host" / name)
    lib = host.tree / "host/lib.sh"
    lib.write_text(re.sub(r"^HOST_LIB=.*", f"HOST_LIB={host.root}/lib", lib.read_text(), flags=re.MULTILINE))
    for place in (host.tree / "host/run", host.root / "lib/run"):
        program(place, RUN)
    for place in (host.tree, host.copy):
        program(place / ".venv/bin/claw-runtime", "#!/bin/sh\n")
    return host


@pytest.fixture
def user(tmp_path: Path) -> Host:
    """A host on which `ann` works without root."""
    return made(tmp_path, 1000)


@pytest.fixture
def root(tmp_path: Path) -> Host:
    """A host on which root works, and `claw` runs the containers."""
    return made(tmp_path, 0)


class TestInstall:
    def test_both_names_run_the_program_of_the_tree(self, user: Host) -> None:
        """Directory, arguments, standard input and exit code pass through as they are, whatever the tree's name."""
        user.install()

        for name in ("claw", "claw-runtime"):
            ended = user.call(user.bin / name, "exec", "a b", "*", "", CODE="7")
            given = [str(user.root), "claw", str(user.tree / ".venv/bin/claw-runtime"), "exec", "a b", "*", ""]
            assert (ended.stdout, ended.returncode) == ("|".join([*given, "typed"]), 7)

    def test_without_a_setting_a_user_gets_them_at_home(self, user: Host) -> None:
        """`~/.local/bin` is made, and nothing is written elsewhere."""
        user.install(CLAW_BIN="")

        assert sorted(path.name for path in (user.root / "home/ann/.local/bin").iterdir()) == ["claw", "claw-runtime"]
        assert not user.bin.exists()

    def test_a_second_time_changes_nothing(self, user: Host) -> None:
        """The same bytes, and no temporary file is left."""
        user.install()
        before = {path.name: path.read_bytes() for path in user.bin.iterdir()}

        assert user.install().returncode == 0
        assert {path.name: path.read_bytes() for path in user.bin.iterdir()} == before

    @pytest.mark.parametrize("kind", ["file", "link", "directory"])
    def test_another_program_stays(self, user: Host, kind: str) -> None:
        """A file, a dangling link or a directory of that name is left alone; the other name is offered instead."""
        user.bin.mkdir()
        other = user.bin / "claw"
        if kind == "file":
            other.write_text("#!/bin/sh\necho other\n")
        elif kind == "link":
            other.symlink_to("nowhere")
        else:
            other.mkdir()

        ended = user.install(PATH=f"{user.bin}:{user.root}/tools")

        assert ended.returncode == 0
        assert f"warning: {other} is another program" in ended.stderr
        assert (other.is_symlink(), other.is_dir(), other.is_file()) == (
            kind == "link",
            kind == "directory",
            kind == "file",
        )
        assert (user.bin / "claw-runtime").is_file()
        assert "\n  claw-runtime doctor " in ended.stdout

    def test_without_a_free_name_the_program_itself_is_offered(self, user: Host) -> None:
        """The printed commands work even then."""
        user.bin.mkdir()
        for name in ("claw", "claw-runtime"):
            (user.bin / name).write_text("other")

        assert f"  {user.tree}/host/run {user.tree}/.venv/bin/claw-runtime doctor " in user.install().stdout


class TestNextSteps:
    def test_every_line_is_a_command_of_the_program(self, root: Host) -> None:
        """The last lines of `make demo` can be pasted: each parses, and the workload file is the user's copy."""
        printed = root.install(PATH=f"{root.bin}:{root.root}/tools").stdout
        lines = [line for line in printed.splitlines() if line.startswith("  ")]

        assert [line.split()[:2] for line in lines] == [
            ["claw", verb] for verb in ("doctor", "up", "claim", "status", "release")
        ]
        for arguments in command_lines("\n".join(line.strip() for line in lines)):
            assert complaint(cli.command, arguments) == ""
        assert {word for line in lines for word in line.split() if word.endswith(".yaml")} == {
            f"{root.copy}/docs/examples/openclaw/workload.yaml"
        }

    def test_a_directory_off_the_path_comes_with_the_line_to_run(self, user: Host) -> None:
        """The printed line makes the command work in that shell."""
        (line,) = re.findall(r"^  (export PATH=.*)$", user.install().stdout, re.MULTILINE)

        assert user.call("sh", "-c", f"{line}; command -v claw").stdout.strip() == str(user.bin / "claw")

    def test_another_command_that_comes_first_is_named(self, user: Host) -> None:
        """Then the lines have the whole path."""
        program(user.root / "tools/claw", "#!/bin/sh\n")
        printed = user.install(PATH=f"{user.root}/tools:{user.bin}").stdout

        assert f"{user.root}/tools/claw comes first on the PATH" in printed
        assert f"\n  {user.bin}/claw doctor " in printed


class TestRemove:
    def test_what_was_installed_goes(self, user: Host) -> None:
        """`make clean` leaves neither name."""
        user.install()
        user.call(user.tree / "host/commands", "remove")

        assert list(user.bin.iterdir()) == []

    def test_other_programs_and_other_trees_stay(self, user: Host) -> None:
        """A foreign file stays, and so does the command of another tree."""
        user.bin.mkdir()
        (user.bin / "claw").write_text("#!/bin/sh\necho other\n")
        user.install()
        text = (user.bin / "claw-runtime").read_text()
        (user.bin / "claw-runtime").write_text(text.replace("tree='", "tree='/elsewhere"))

        assert user.call(user.tree / "host/commands", "remove").returncode == 0
        assert sorted(path.name for path in user.bin.iterdir()) == ["claw", "claw-runtime"]

    def test_an_unknown_action_is_an_error(self, user: Host) -> None:
        """It names the two that exist."""
        ended = user.call(user.tree / "host/commands", "delete")

        assert ended.returncode == 1
        assert "host/commands install, or host/commands remove" in ended.stderr


class TestAsRoot:
    def test_the_command_runs_the_users_copy_through_roots_own_script(self, root: Host) -> None:
        """What root executes belongs to root; only the program itself is the user's."""
        root.install()

        given = [str(root.root), "claw", str(root.copy / ".venv/bin/claw-runtime"), "status"]
        assert root.claw("status", CLAW_USER="other").stdout == "|".join([*given, "typed"])
        assert f"run='{root.root}/lib/run'" in (root.bin / "claw").read_text()

    def test_the_user_may_call_it_too(self, root: Host) -> None:
        """Nothing changes for the user whose Podman it is."""
        root.install()

        assert root.claw("status", FAKE_UID="1000", FAKE_NAME="claw").stdout.endswith("|status|typed")

    def test_another_user_gets_one_error(self, root: Host) -> None:
        """It says whose the command is, and nothing runs."""
        root.install()
        ended = root.claw("status", FAKE_UID="1001", FAKE_NAME="eve")

        assert (ended.returncode, ended.stdout) == (1, "")
        assert ended.stderr == (
            "claw: error: claw runs as the user claw on this host, not as eve\n"
            "claw: hint: run it as claw or as root: sudo claw\n"
        )

    @pytest.mark.parametrize(("gone", "hint"), [("lib/run", "host/setup.sh"), ("home/claw", "make image")])
    def test_what_is_missing_is_named_with_its_remedy(self, root: Host, gone: str, hint: str) -> None:
        """After a reboot, or without the copy, the error says what to run, and where."""
        root.install()
        (root.root / gone).rename(root.root / "gone")
        ended = root.claw("status")

        assert (ended.returncode, ended.stdout) == (1, "")
        assert str(root.tree) in ended.stderr
        assert hint in ended.stderr


class TestRootsDirectory:
    """`closed` is a directory that root can enter and `claw` cannot."""

    @pytest.fixture
    def closed(self, root: Host) -> Path:
        root.install()
        place = root.root / "closed"
        place.mkdir()
        return place

    @pytest.mark.parametrize(
        "arguments", ["status alice", "exec alice -- cat a.yaml", "cp bob:./a.yaml -", "sync cat alice b.yaml"]
    )
    def test_a_command_without_files_runs_elsewhere(self, root: Host, closed: Path, arguments: str) -> None:
        """A tenant, a path in a container and a command's own arguments are no files of root's directory."""
        (closed / "a.yaml").touch()
        (closed / "alice").touch()

        assert root.claw(*arguments.split(), at=closed).stdout.startswith("/|claw|")

    @pytest.mark.parametrize("argument", ["a.yaml", "./a.yaml", "below/b", "--config=a.yaml"])
    def test_a_file_that_the_user_cannot_read_is_refused(self, root: Host, closed: Path, argument: str) -> None:
        """A relative path never means a file of another directory."""
        (closed / "below").mkdir()
        (closed / "below/b").touch()
        (closed / "a.yaml").touch()
        ended = root.claw("up", argument, at=closed)

        assert (ended.returncode, ended.stdout) == (1, "")
        assert (
            f"the user claw cannot enter {closed}, so it cannot read {argument.removeprefix('--config=')}"
            in ended.stderr
        )

    def test_an_unchanged_file_of_the_tree_is_read_in_the_copy(self, root: Host) -> None:
        """README's commands work in root's own tree, and a note says which file is used."""
        root.install()
        for place in (root.tree, root.copy):
            (place / "docs").mkdir()
            (place / "docs/w.yaml").write_text("id: a")
        ended = root.claw("up", "docs/w.yaml", at=root.tree, CLOSED=str(root.tree))

        assert ended.stdout.startswith(f"{root.copy}|claw|")
        assert f"using the copy in {root.copy}" in ended.stderr

    def test_a_changed_file_of_the_tree_is_refused(self, root: Host) -> None:
        """The copy is of the last `make`; what root wrote since is not in it."""
        root.install()
        for place in (root.tree, root.copy):
            (place / "w.yaml").write_text(str(place))
        ended = root.claw("up", "w.yaml", at=root.tree, CLOSED=str(root.tree))

        assert (ended.returncode, ended.stdout) == (1, "")


def test_completion_reaches_the_program() -> None:
    """The variables of shell completion pass from root to the user."""
    keep = re.search(r"^  keep='(.*)'$", (TOP / "host/run").read_text(), re.MULTILINE)

    assert keep is not None
    for name in ("_CLAW_RUNTIME_COMPLETE", "COMP_WORDS", "COMP_CWORD"):
        assert re.fullmatch(keep[1].removeprefix("^").removesuffix("$"), name)
    assert not re.fullmatch(keep[1], "MY_PASSWORD")
