"""What README, ARCHITECTURE and the other pages name is there: links, paths, make targets, commands, floors."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from claw_runtime.cli import main as cli
from claw_runtime.images.versions import supported
from claw_runtime.tenancy import Layout

ROOT = Path(__file__).resolve().parents[2]
OWN = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "host/README.md")
MAIN = ("docs/ARCHITECTURE.md", "docs/CLI.md", "docs/STATUS.md", "docs/STYLE.md")
BESIDE = ("docs/JSON_OUTPUT.md", "docs/TRANSCRIPT.md", "docs/UPGRADE.md", "docs/WORKLOAD.md")
PAGES = [ROOT / name for name in (*OWN, *MAIN, *BESIDE)] + sorted((ROOT / "docs/adr").glob("*.md"))
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as forges make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def shell_lines(page: Path) -> Iterator[str]:
    """Every line of the page's shell blocks, without its comment."""
    for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if command := re.sub(r"(^|\s)# .*", "", line).strip():
                yield command


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_resolves(page: Path) -> None:
    """A link inside the project leads to a file or folder that is there, and to a heading that is on it."""
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.is_relative_to(ROOT), target
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_path_that_is_named_exists(page: Path) -> None:
    """A path of the project in code quotes is a path of the project."""
    folders = r"(?:docs|entrypoint|host|images|runtime|tests)"
    for path in re.findall(rf"`({folders}/[\w./-]+)`", page.read_text(encoding="utf-8")):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_make_target_exists(page: Path) -> None:
    """`make x` is a target of the Makefile that a person calls."""
    phony = re.search(r"^\.PHONY:(.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert phony is not None
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"`make ([a-z-]+)`", text)) | set(re.findall(r"^make ([a-z-]+)", text, re.MULTILINE))
    assert named <= set(phony[1].split())


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_parses(page: Path) -> None:
    """Each `claw` or `claw-runtime` line of a shell block is accepted by the verb that it calls; its files exist."""
    for line in shell_lines(page):
        words = shlex.split(line)
        at = next((at for at, word in enumerate(words) if re.search(r"(^claw|claw-runtime)$", word)), None)
        if at is None or "_source" in line:
            continue
        words = words[at + 1 :]
        context = click.Context(cli.command, help_option_names=["-h", "--help"])
        command: click.Command = cli.command
        while isinstance(command, click.Group):
            found = command.get_command(context, words.pop(0))
            assert found is not None, line
            command, context = found, click.Context(found, context)
        command.make_parser(context).parse_args(list(words))
        assert all((ROOT / word).exists() for word in words if word.startswith("docs/")), line


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_verb_in_prose_exists(page: Path) -> None:
    """`claw-runtime x` in code quotes is a verb."""
    for verb in re.findall(r"`claw-runtime ([a-z0-9]+)", page.read_text(encoding="utf-8")):
        assert verb in cli.VERBS, verb


def test_the_quick_start_uses_the_installed_command() -> None:
    """README's quick start calls `claw` alone, and begins with the same steps that end `make demo`."""
    quick_start = (
        (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Quick start\n")[2].partition("\n## ")[0]
    )
    lines = re.findall(
        r"^(\S+) (\S+) ", "\n".join(re.findall(r"```sh\n(.*?)```", quick_start, re.DOTALL)), re.MULTILINE
    )
    printed = (ROOT / "host/commands").read_text(encoding="utf-8").partition("<<STEPS\n")[2].partition("STEPS")[0]
    steps = re.findall(r"^  \$called (\w+)", printed, re.MULTILINE)

    assert {name for name, _verb in lines} == {"claw"}
    assert [verb for _name, verb in lines][:3] == steps[:3] == ["doctor", "up", "claim"]


@pytest.mark.parametrize(("table", "heading"), [("FLOORS", "### Rooms"), ("STATE", "### Rooms of `state`")])
def test_the_rooms_are_those_of_the_test(table: str, heading: str) -> None:
    """The tables of rooms in ARCHITECTURE are the ones that test_layers.py enforces."""
    source = (ROOT / "tests/unit/test_layers.py").read_text(encoding="utf-8")
    body = source.partition(f"{table}: tuple")[2].partition("\n)\n")[0]
    enforced = {
        floor: set(re.findall(r'"(\w+)"', names))
        for floor, names in re.findall(r'^    \("(\w+)", frozenset\(\{(.*?)\}\)\),$', body, re.MULTILINE)
    }
    text = (ROOT / "docs/ARCHITECTURE.md").read_text(encoding="utf-8")
    chapter = text.partition(f"\n{heading}\n")[2].partition("\n#")[0]
    told = {
        floor: set(re.findall(r"`(\w+)`", names))
        for floor, names in re.findall(r"^\| (\w+) \| ((?:`\w+` ?)+) \| .+ \|$", chapter, re.MULTILINE)
    }
    assert len(enforced) > 5
    assert told == enforced


def test_the_layout_is_tenancys() -> None:
    """The places on a host that ARCHITECTURE draws are those that tenancy.py builds."""
    text = (ROOT / "docs/ARCHITECTURE.md").read_text(encoding="utf-8")
    layout = Layout(home=Path("<home>"), run=Path("<run>"))
    slot = layout.slot("<slot>")
    for path in (layout.ledger, layout.lock, layout.runtime_id, layout.objects, layout.workloads, layout.api_socket):
        assert str(path) in text
    assert f"{slot.state.parent}/{{{slot.state.name},{slot.logs.name}}}" in text
    assert str(slot.values / "values.json") in text
    alice = "<id>"
    places = (layout.kept_tree, layout.parked_tree, layout.donor, layout.staging, layout.logs, layout.secrets)
    names = ",".join(place(alice).name for place in places)  # type: ignore[arg-type]
    assert f"{layout.tenants}/{alice}/{{{names}}}" in text


def test_every_decision_is_listed() -> None:
    """The index of decisions names each page, by its own number and title, in order."""
    index = (ROOT / "docs/adr/README.md").read_text(encoding="utf-8")
    pages = sorted((ROOT / "docs/adr").glob("[0-9]*.md"))
    listed = re.findall(r"^\| \[(\d+)\]\(([\w-]+\.md)\) \| (.+) \|$", index, re.MULTILINE)
    assert [(f"# {number}: {title}", file) for number, file, title in listed] == [
        (page.read_text(encoding="utf-8").splitlines()[0], page.name) for page in pages
    ]
    for page in pages:
        assert re.findall(r"^## (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE) == [
            "Context",
            "Decision",
            "Consequences",
        ]


def test_the_version_of_openclaw_is_the_contracts() -> None:
    """README, CHANGELOG and STATUS name the version that the contract has, and beside it supported ones only."""
    default, *others = supported(ROOT / "images/openclaw-nix")
    for name in ("README.md", "CHANGELOG.md", "docs/STATUS.md"):
        told = set(re.findall(r"OpenClaw (\d{4}\.[\d.]+\d)", (ROOT / name).read_text(encoding="utf-8")))
        assert default in told, name
        assert told <= {default, *others}, name
