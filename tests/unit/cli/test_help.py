"""Help and completion: what the command line says of itself, without a daemon and without loading much."""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from claw_runtime.cli import main as cli
from fakes.terminal import Call
from fakes.world import World

pytest_plugins = ["fakes.terminal_fixtures"]

Completed = Callable[[str], list[str]]
pytestmark = pytest.mark.world(filled=True, served=True)


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every verb that does something, by its words."""
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        if isinstance(found, click.Group):
            yield from leaves(found, (*path, name))
        else:
            yield (*path, name), found


LEAVES = dict(leaves(cli.command))


def test_verbs_say_what_the_table_says() -> None:
    """The list of verbs, which loads none of them, has each one's true name and first line."""
    context = click.Context(cli.command)
    for name, (_, first_line) in cli.VERBS.items():
        verb = cli.command.get_command(context, name)
        assert verb is not None
        assert (verb.name, (verb.help or "").splitlines()[0]) == (name, first_line)


def test_every_verb_file_is_in_the_table() -> None:
    """No verb is written and forgotten."""
    files = {path.name.removesuffix("_verb.py") for path in Path(cli.__file__).parent.glob("*_verb.py")}
    assert files == {module for module, _ in cli.VERBS.values()}


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_every_verb_has_examples_that_parse(words: tuple[str, ...]) -> None:
    """Each help text ends with examples, of this verb and others, and each verb accepts what stands behind its name."""
    examples = (LEAVES[words].help or "").partition("Examples:")[2]
    calls = [shlex.split(call) for call in re.findall(r"claw-runtime ([^|<>()#\n]+)", examples)]

    assert any(tuple(call[: len(words)]) == words for call in calls)
    for call in calls:
        verb = next(known for known in LEAVES if tuple(call[: len(known)]) == known)
        context = click.Context(LEAVES[verb], parent=click.Context(cli.command, help_option_names=["-h", "--help"]))
        LEAVES[verb].make_parser(context).parse_args(call[len(verb) :])


@pytest.mark.parametrize("words", [(), *LEAVES], ids=" ".join)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_of_every_verb(claw: Call, words: tuple[str, ...], option: str) -> None:
    """Help goes to stdout and is a success, without a daemon."""
    result = claw(*words, option)

    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(f"Usage: claw-runtime {' '.join(words)}".rstrip())


@pytest.mark.spawns
@pytest.mark.parametrize("arguments", [["--help"], ["version"], ["cliam"]])
def test_quick_calls_load_little(arguments: list[str]) -> None:
    """Help, version and a misspelt verb load none of the heavy libraries, help no verb at all."""
    script = (
        "import sys; from claw_runtime.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    loaded = {name.split(".")[0] for name in ended.stderr.split()}

    heavy = {
        "boto3",
        "botocore",
        "fastapi",
        "httpx",
        "podman",
        "pydantic",
        "rich",
        "starlette",
        "structlog",
        "uvicorn",
    }
    assert loaded & (heavy | {"yaml", "zstandard", "asyncio", "http", "email", "ssl"}) == set()
    verbs = {name for name in ended.stderr.split() if name.endswith("_verb")}
    assert verbs == ({"claw_runtime.cli.version_verb"} if arguments == ["version"] else set())


SYNC = ["cat", "clean", "export", "gc", "history", "import", "list", "pull", "push", "rekey", "status", "verify"]


class TestCompletion:
    """What a shell gets for the words of a line that is not finished."""

    @pytest.fixture
    def completed(self, claw: Call, monkeypatch: pytest.MonkeyPatch) -> Completed:
        def complete(line: str) -> list[str]:
            monkeypatch.setenv("_CLAW_RUNTIME_COMPLETE", "bash_complete")
            monkeypatch.setenv("COMP_WORDS", line)
            monkeypatch.setenv("COMP_CWORD", str(line.count(" ")))
            result = claw()
            assert (result.code, result.err) == (0, "")
            return [word.split(",")[1] for word in result.out.split()]

        return complete

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("claw-runtime re", ["release"]),
            ("claw-runtime sync ", SYNC),
            ("claw-runtime claim --t", ["--take-over"]),
            ("claw-runtime --ho", ["--home"]),
            ("claw-runtime completion ", ["bash", "zsh", "fish"]),
            ("claw-runtime status -o ", ["text", "json", "yaml", "name"]),
            ("claw-runtime status --state k", ["kept"]),
            ("claw-runtime status al", []),
            ("claw-runtime claim -p ", []),
        ],
    )
    def test_without_a_daemon(self, completed: Completed, line: str, expected: list[str]) -> None:
        """Verbs, options and words are completed without a daemon; tenants and pools are silently none."""
        assert completed(line) == expected

    def test_tenants_and_pools_are_the_daemons(self, completed: Completed, claw: Call, world: World) -> None:
        """Tenants come from the daemon: all that may be claimed, and those with a container where one is needed."""
        for tenant in ("alice", "albert", "bob"):
            claw("claim", tenant)
        claw("release", "albert", "--no-affinity")

        assert completed("claw-runtime claim al") == ["albert", "alice"]
        assert completed("claw-runtime exec ") == ["alice", "bob"]
        assert completed("claw-runtime cp alice")[0] == "alice:"
        assert completed("claw-runtime claim --pool ") == ["small"]
        assert completed("claw-runtime pool show s") == ["small"]

    def test_a_daemon_with_a_strange_answer(
        self, completed: Completed, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Names that no shell should get, and answers of another form, complete nothing."""
        strange = [{"tenantId": "a;rm -rf ~"}, {"tenantId": "al$(x)"}, {"tenantId": None}, {}, 7, {"tenantId": "al-1"}]
        monkeypatch.setattr("claw_runtime.api.client.Client.get", lambda *_: strange)

        assert completed("claw-runtime status ") == ["al-1"]
        monkeypatch.setattr("claw_runtime.api.client.Client.get", lambda *_: {"tenants": []})
        assert completed("claw-runtime status ") == []
        for told in ({"snapshots": 7}, {"snapshots": [{}]}, [], {}, "x"):
            monkeypatch.setattr("claw_runtime.api.client.Client.get", lambda *_, told=told: told)
            assert completed("claw-runtime snapshot show alice ") == []

    def test_snapshots_are_the_tenants(self, completed: Completed, claw: Call, world: World) -> None:
        """Numbers and tags of the tenant that stands before."""
        claw("claim", "alice")
        world.write("alice", {"a.txt": "blue"})
        claw("release", "alice")
        claw("snapshot", "tag", "alice", "1", "before-v2.0")
        assert completed("claw-runtime snapshot show alice ") == ["1", "before-v2.0"]
        assert completed("claw-runtime snapshot restore alice b") == ["before-v2.0"]
        assert completed("claw-runtime snapshot show bob ") == []
        assert completed("claw-runtime snapshot show ") == ["alice"]

    def test_a_home_on_the_line_counts(self, completed: Completed, tmp_path: Path) -> None:
        """`--home` before the verb says which daemon is asked, as it does for the verb itself."""
        assert completed(f"claw-runtime --home {tmp_path} status a") == []

    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_the_script_is_for_both_names(self, claw: Call, shell: str) -> None:
        """The script that a shell reads completes the program under its long and its short name."""
        script = claw("completion", shell).out

        assert "_CLAW_RUNTIME_COMPLETE" in script
        assert re.search(r"(complete|compdef) .*\bclaw-runtime\b", script)
        assert re.search(r"(complete|compdef) .*\bclaw\b(?!-)", script)

    def test_another_shell_is_wrong_usage(self, claw: Call) -> None:
        """Only shells that there is a script for are taken."""
        assert claw("completion", "powershell").code == 2

    @pytest.mark.spawns
    def test_bash_takes_the_script(self, claw: Call) -> None:
        """Bash itself reads it without a complaint and knows both names afterwards."""
        script = claw("completion", "bash").out
        ended = subprocess.run(
            ["bash", "--norc", "-c", f"{script}\ncomplete -p claw claw-runtime"],
            capture_output=True,
            text=True,
            check=False,
        )

        assert (ended.returncode, ended.stderr, ended.stdout.count("-F _claw_runtime_completion")) == (0, "", 2)
