"""The runbook and the image's two pages cannot drift from the contract and the program.

Their tables are the contract's and the program's, their scripts parse, their commands exist.
"""

import ast
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
from claw_runtime import errors
from fakes.command_lines import command_lines, complaint
from smoke.runbook_blocks import Block, blocks, script

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    name: (ROOT / "docs" / name).read_text(encoding="utf-8")
    for name in ("RUNBOOK.md", "IMAGE_BY_HAND.md", "IMAGE_REFERENCE.md")
}
RUNBOOK, BY_HAND, REFERENCE = PAGES.values()
CONTRACT: dict[str, Any] = json.loads((ROOT / "images/openclaw-nix/contract.json").read_text(encoding="utf-8"))
BLOCKS = [(name, block) for name, text in PAGES.items() for block in blocks(text)]
SHELL_BLOCKS = [(name, block) for name, block in BLOCKS if block.language == "sh"]


def table(page: str, first_column: str) -> dict[str, list[str]]:
    """The rows of the page's table whose first heading is `first_column`: plain first cell to the other cells."""
    lines = page.splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith(f"| {first_column} |"))
    rows = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        rows[cells[0].strip("`")] = cells[1:]
    return rows


def test_volumes_are_the_contracts() -> None:
    """The reference's volumes, and the kind of each, are exactly those of contract.json."""
    assert {path: cells[0] for path, cells in table(REFERENCE, "volume").items()} == {
        path: volume["kind"] for path, volume in CONTRACT["volumes"].items()
    }


def test_environment_is_the_contracts() -> None:
    """The reference's variables and their values are exactly those that contract.json sets in the image."""
    told = {name: cells[0].strip("`") for name, cells in table(REFERENCE, "variable").items()}
    assert told == CONTRACT["environment"]


def test_values_are_the_contracts() -> None:
    """The allowlist, with need and secrecy, is exactly that of contract.json."""
    assert {name: cells[:2] for name, cells in table(REFERENCE, "value").items()} == {
        name: [value["need"], "yes" if value["secret"] else "no"] for name, value in CONTRACT["values"].items()
    }


def test_the_gateways_own_environment_is_told() -> None:
    """What the gateway alone gets stands in the reference too."""
    for name, value in CONTRACT["exec"]["environment"].items():
        assert f"`{name}={value}`" in REFERENCE


def test_figures_are_the_contracts() -> None:
    """Image name, port and stop timeout in the executed commands are the contract's."""
    commands = script(BY_HAND, "run")
    assert f"IMAGE=${{IMAGE:-{CONTRACT['image']}}}" in commands
    assert set(re.findall(r"--time (\d+)", commands)) == {str(CONTRACT["stop"]["timeout"])}
    assert set(re.findall(r"127\.0\.0\.1:(\d+)/\w+z\b", commands)) == {str(CONTRACT["ports"]["gateway"])}
    assert CONTRACT["values"]["OPENCLAW_GATEWAY_TOKEN"]["file"] in commands


def test_every_smoke_script_is_in_the_table() -> None:
    """The table names every scenario, and the evidence file that the scenario really writes."""
    told = {name: cells[0].strip("`") for name, cells in table(REFERENCE, "script").items()}
    written = {
        path.stem: match[1]
        for path in (ROOT / "tests" / "smoke").glob("[0-9][0-9]-*.sh")
        if (match := re.search(r"^begin (\S+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    }
    assert told == written


def test_every_exit_code_has_its_row() -> None:
    """Whatever code a command ends with, the table names it, with the word that JSON and the API use for it."""
    rows = [cell.split() for cell in table(RUNBOOK, "exit code")]
    told = {int(words[0]): words[1].strip("`") for words in rows if len(words) == 2}
    assert told == {code: error.slug for code, error in errors.table().items()} | {2: "usage"}
    assert [words for words in rows if len(words) != 2] == [["125,", "126,", "127"], ["130"]]


def test_messages_in_the_tables_are_the_programs() -> None:
    """What an operator looks for in the table is what the program prints: each quoted piece is in its source."""
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "runtime/claw_runtime").rglob("*.py"))
    source = re.sub(r"\{[^{}]*\}", "…", source)
    for code, cells in table(RUNBOOK, "exit code").items():
        if code.split()[0] in {"1", "2", "125,", "130"}:
            continue  # these are click's words and Podman's
        for quoted in re.findall(r"`([^`]+)`", cells[0]):
            pieces = [piece.strip(" '") for piece in re.split(r"…|'x'|\bx\b|\bN\b|PATH|FAIL|image verify", quoted)]
            for piece in pieces:
                assert piece in source, f"{code}: {quoted}"


@pytest.mark.parametrize("own", PAGES)
def test_links_lead_somewhere(own: str) -> None:
    """Every link is to a heading of its page, or to a file, and its heading, that is there."""
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[own]):
        name, _, anchor = target.partition("#")
        page = ROOT / "docs" / (name or own)
        assert page.exists(), target
        headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
        anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert not anchor or anchor in anchors, target


@pytest.mark.parametrize(
    "block", [block for _, block in SHELL_BLOCKS], ids=[f"{name}:{block.line}" for name, block in SHELL_BLOCKS]
)
def test_every_shell_block_parses(block: Block) -> None:
    """A shell accepts every block, whether or not it is executed."""
    result = subprocess.run(["sh", "-n"], input=block.text, text=True, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr


def test_each_page_has_the_blocks_that_are_executed_from_it() -> None:
    """The smoke QA executes one page's blocks, two tests the runbook's: none is marked on another page."""
    marked = {(name, mark) for name, block in BLOCKS for mark in block.marks & {"run", "operator", "server"}}
    assert marked == {("IMAGE_BY_HAND.md", "run"), ("RUNBOOK.md", "operator"), ("RUNBOOK.md", "server")}


def test_the_blocks_of_a_server_are_below_headings_that_the_laboratory_knows() -> None:
    """A block that is marked `server` is executed: it is below one of the headings that the test goes through."""
    source = (ROOT / "tests/lab/test_server.py").read_text(encoding="utf-8")
    headings = ast.literal_eval(source.partition("\nSTAGES = ")[2].partition("\n}")[0] + "\n}").values()
    chapter = RUNBOOK.partition("\n## On a server\n")[2].partition("\n## ")[0]
    sections = dict(part.partition("\n")[::2] for part in chapter.split("\n### ")[1:])

    assert list(sections) == list(headings)
    executed = [block.text for text in sections.values() for block in blocks(text) if "server" in block.marks]
    assert executed == [block.text for block in blocks(RUNBOOK) if "server" in block.marks]


def test_the_readmes_blocks_for_a_server_are_executed() -> None:
    """Each is one of the runbook's, for the same user."""
    marked = [block for block in blocks((ROOT / "README.md").read_text(encoding="utf-8")) if "server" in block.marks]
    executed = [(block.text, block.marks) for block in blocks(RUNBOOK)]
    assert len(marked) == 2
    assert all((block.text, block.marks) in executed for block in marked)


def test_something_is_executed() -> None:
    """The script for the smoke QA runs the plan's scenarios: with nothing marked, they would all pass unseen."""
    commands = script(BY_HAND, "run")
    for fragment in ("--network=none", "podman stop", "touch /state/probe", "OPENCLAW_MATRIX_TOKEN=abc123", "/healthz"):
        assert fragment in commands


def test_an_unclosed_block_is_an_error() -> None:
    """A missing fence must not silently shorten the script."""
    with pytest.raises(ValueError, match="line 2"):
        blocks("text\n```sh run\necho\n")


def test_only_marked_shell_blocks_are_executed() -> None:
    """Neither another language nor an unmarked block ends up in the script."""
    text = "```sh run\none\n```\n```sh\ntwo\n```\n```json run\nthree\n```\n```sh slow run\nfour\n```\n"
    assert script(text, "run") == "# line 2\none\n# line 11\nfour\n"


# --- claw-runtime's commands ---


def runtime_commands() -> list[tuple[bool, list[str]]]:
    """All command lines of claw-runtime in the pages: from their shell blocks (complete), and from their prose."""
    outside = re.sub(r"^```.*?^```$", "", "\n".join(PAGES.values()), flags=re.MULTILINE | re.DOTALL)
    spans = [span for span in re.findall(r"`([^`\n]+)`", outside) if re.match(r"claw(-runtime)?( |$)", span)]
    shells = [block.text for _, block in SHELL_BLOCKS]
    lines = [(text in shells, line) for text in shells + spans for line in command_lines(text)]
    return [(complete, line) for complete, line in lines if line != ["$@"]]  # a function passes its arguments on


@pytest.mark.parametrize(("complete", "arguments"), runtime_commands())
def test_every_runtime_command_exists(complete: bool, arguments: list[str]) -> None:
    """Each `claw-runtime` line of the pages uses verbs, options and arguments that the program has."""
    cli = pytest.importorskip("claw_runtime.cli.main")
    assert complaint(cli.command, arguments, complete=complete) == ""


@pytest.fixture
def sample() -> click.Group:
    """A small program to judge the judge by."""
    group = click.Group("sample")
    options = [click.Option(["--generation"], type=int), click.Argument(["tenant"])]
    group.add_command(click.Command("claim", params=[*options]))
    return group


@pytest.mark.parametrize(
    "text", ["claim alice", "claim --generation 3 alice", "claim alice --generation=3", "claim --help", ""]
)
def test_a_right_command_is_accepted(sample: click.Group, text: str) -> None:
    """The check itself lets right commands pass."""
    assert complaint(sample, shlex.split(text)) == ""


def test_prose_may_leave_arguments_out(sample: click.Group) -> None:
    """A verb named in a sentence needs no arguments, but it has to exist."""
    assert complaint(sample, ["claim"], complete=False) == ""
    assert complaint(sample, ["clam"], complete=False) != ""


@pytest.mark.parametrize(
    "text", ["clam alice", "claim", "claim alice bob", "claim --genration 3 alice", "--loud claim x"]
)
def test_a_wrong_command_is_refused(sample: click.Group, text: str) -> None:
    """The check itself sees a wrong verb, a missing or surplus argument, and an unknown option."""
    assert complaint(sample, shlex.split(text)) != ""


def test_commands_are_found_wherever_they_stand() -> None:
    """In a substitution, over two lines, before a comment, behind another command; the user `claw` is no command."""
    text = "x=$(claw-runtime claim alice) # it's a note\nclaw status \\\n  alice | cat; sudo -u claw id\n"
    text += "time bin/claw-runtime up 2>> log &\n"
    assert command_lines(text) == [["claim", "alice"], ["status", "alice"], ["up"]]
