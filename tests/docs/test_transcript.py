"""docs/TRANSCRIPT.md cannot drift: its commands are its generator's, in order, and the program has each of them."""

import re

import pytest
from claw_runtime.cli import main as cli
from fakes.command_lines import command_lines, complaint
from fakes.transcript import DOCS, generator, pairs, without_outputs

PAGE = (DOCS / "TRANSCRIPT.md").read_text(encoding="utf-8")
COMMANDS = [command for command, _ in pairs(PAGE)]


def calls(command: str) -> list[list[str]]:
    """The arguments of every call of claw-runtime in a command, also of those inside quoted substitutions."""
    if command.startswith("tab"):
        return []  # what is being completed is no command yet
    inside = re.findall(r"\$\((claw-runtime [^()]*)\)", command)
    return [found for text in (re.sub(r"\$\([^()]*\)", "x", command), *inside) for found in command_lines(text)]


def test_the_page_is_its_generators() -> None:
    """Words and commands of the page are those that the generator would write: only outputs come from a run."""
    module = generator()
    shown = "".join(
        {"text": "", "hidden": ""}.get(line.kind, "$ ") + line.text + "\n"
        for line in module.lines(module.PAGE)
        if line.kind != "hidden"
    )
    assert without_outputs(PAGE) == shown, "run: python docs/generate_transcript.py docs/TRANSCRIPT.md"


@pytest.mark.parametrize("command", [command for command in COMMANDS if calls(command)])
def test_every_command_exists(command: str) -> None:
    """Each call uses verbs, options and arguments that the program has; xargs adds the last one."""
    for arguments in calls(command):
        assert complaint(cli.command, arguments, complete="xargs" not in command) == ""


@pytest.mark.parametrize("verb", ["up", "claim", "status", "exec", "logs", "cp", "port", "release", "upgrade"])
def test_what_an_operator_does_is_shown(verb: str) -> None:
    """No verb of every day is missing."""
    assert any(arguments[:1] == [verb] for command in COMMANDS for arguments in calls(command))


def test_nothing_of_the_machine_is_shown() -> None:
    """Of paths only those of a container, a device and a URL are on the page; no whole token is."""
    assert set(re.findall(r"(?<![\w./:~-])/[\w.-]+", PAGE)) <= {"/state", "/dev", "/healthz", "/api"}
    assert re.findall(r"/(?:tmp|home|root)\b|claw-tr-", PAGE) == []
    assert re.findall(r"claw_[0-9a-f]{8}_[\w-]", PAGE) == []


def test_what_differs_is_replaced_alike() -> None:
    """The same port, id or moment becomes the same text everywhere, and another one another."""
    scrub = generator().Scrubber({"/somewhere/h": "~/.local/share/claw"})
    one, two = "a" * 64, "b" * 64

    told = scrub(f'"port":33333 127.0.0.1:33333 127.0.0.1:44444 {one} {two} {one} /somewhere/h/x 127.0.0.1:7070')

    assert re.fullmatch(
        r'"port":40001 127.0.0.1:40001 127.0.0.1:40002 (\w{64}) (?!\1)\w{64} \1 ~/.local/share/claw/x 127.0.0.1:7070',
        told,
    )
    assert scrub("2026-11-20T10:00:00Z 2026-11-20T10:00:01+00:00") == (
        "2026-01-05T09:00:00+00:00 2026-01-05T09:00:01+00:00"
    )
    assert scrub("claw_" + "0" * 8 + "_" + "x" * 43) == "claw_5d2a90f1_…"


def test_a_line_without_a_mark_is_an_error() -> None:
    """An output that somebody typed into the generator's page is not taken for a command."""
    with pytest.raises(ValueError, match="no command: typed"):
        list(generator().lines("```console\n$ one\ntyped\n```\n"))


def test_the_example_still_has_what_is_replaced() -> None:
    """The run's workload is the example's with another pool, and nothing else of it is lost."""
    text = generator().openclaw().workload
    example = (DOCS / "examples/openclaw/workload.yaml").read_text(encoding="utf-8")
    assert text.count("pool:\n") == example.count("pool:\n") == 1
    replaced = re.findall(r"^pool:\n((?:  .*\n)+)", example, re.MULTILINE)[0].splitlines()
    assert [line for line in example.splitlines() if line and line not in text.splitlines()] == replaced
