"""Writes docs/CLI.md from the commands and the error table: `python docs/generate_cli.py`.

tests/docs/test_cli_reference.py fails if the file differs from what this script would write.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import click
from claw_runtime import errors, settings
from claw_runtime.cli import main as cli

TARGET = Path(__file__).with_name("CLI.md")
WIDTH = 100

HEAD = """\
# Command line

<!-- Written by docs/generate_cli.py: change the help texts or errors.py, then run it again. -->

`claw-runtime`, or `claw` for short. Data goes to stdout, everything else to stderr. `-o`, before or after the verb,
chooses another form than text: `json` and `yaml` print one document ([JSON_OUTPUT.md](JSON_OUTPUT.md)), and an error as
one JSON object; `name` prints the identifier of each item, one a line. Text that tenants choose, such as file names, is
printed with its control characters shown as escapes. On a terminal, tables fit its width: a text that is too long
loses its middle. A few states have a colour unless `NO_COLOR` is set. Verbs for tenants and pools are clients of the
daemon that `claw-runtime up` runs; `config`, `doctor`, `image`, `s3`, `completion`, `version`
and the verbs of an installation work without it.
"""

EXIT_CODES = """\
## Exit codes

Every kind of failure has a code of its own; treat a code that is not listed as a failure. The HTTP API answers with the
status in the third column, as [problem+json](JSON_OUTPUT.md#errors).

| code | name | HTTP | meaning |
|---|---|---|---|
| 0 | | 200 | Done; also for a claim of a tenant that is claimed already. |
"""

USAGE = "| 2 | `usage` | | The command line itself is wrong; nothing was sent. |\n"

EXIT_CODES_BESIDE = """\
| 125, 126, 127 | | | `exec` and `shell` end as Podman ends: Podman itself failed, not executable, not found. |
| 130 | | | Interrupted by Ctrl-C. |

`exec` and `shell` end with the exit code of what they ran, which may be any of these. `doctor` ends with 1 when a
check failed. `up` ends with 0 after SIGTERM, `status --watch` with 0 after Ctrl-C. A reader of stdout that goes away
early (`| head -1`) makes it 1, without a message. If the answer cannot be printed because the disk is full, the code
is 26; if stdout is closed, it is 1. What was asked for is done in both cases.
"""

SETTINGS = """\
## Settings

Each setting comes from the first of these that has it: an option of the command line, the environment variable, the
file of `--config` or `CLAW_CONFIG`, `$XDG_CONFIG_HOME/claw/runtime.toml`, `/etc/claw/runtime.toml`, the default. The
keys of the TOML files are the names in the first column; a file with a secret in it must be 0600. Where none of these
gives an S3 value, the standard variable in the third column does. Defaults: `home` is `$XDG_DATA_HOME/claw`
(`~/.local/share/claw`), `run` is `$XDG_RUNTIME_DIR/claw` or else `<home>/run`, `workloads` is `<home>/workloads`,
`limits` is `enforce`.

| setting | variable | else | meaning |
|---|---|---|---|
"""

COMPLETION = """\
## Completion

```sh
source <(claw-runtime completion bash)     # in ~/.bashrc; zsh likewise, after compinit
claw-runtime completion fish > ~/.config/fish/completions/claw-runtime.fish
```

It completes verbs, options, and the tenants and pools of the running daemon. Without a daemon, or if it takes longer
than half a second, tenants and pools are not completed.
"""


def reference() -> str:
    """The whole text of docs/CLI.md."""
    parts = [HEAD, _section("claw-runtime", cli.command, None, level=2)]
    parts += [COMPLETION, SETTINGS + "".join(_settings()), EXIT_CODES + "".join(_exit_codes()) + EXIT_CODES_BESIDE]
    return "\n".join(parts)


def _section(path: str, command: click.Command, parent: click.Context | None, *, level: int) -> str:
    names = {"help_option_names": ["-h", "--help"]} if parent is None else {}
    context = click.Context(command, parent, info_name=path.rsplit(maxsplit=1)[-1], terminal_width=WIDTH, **names)  # type: ignore[arg-type]
    help_text = re.sub(r"[ \t]+$", "", command.get_help(context), flags=re.MULTILINE)
    text = f"{'#' * level} {path}\n\n```text\n{help_text}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            if found is not None:
                text += "\n" + _section(f"{path} {name}", found, context, level=min(level + 1, 4))
    return text


def _settings() -> Iterator[str]:
    meanings = _meanings()
    for name, variable in settings.ENVIRONMENT.items():
        ambient = ", ".join(f"`{other}`" for other in settings.AWS_ENVIRONMENT.get(name, ()))
        yield f"| `{name}` | `{variable}` | {ambient} | {meanings[name]} |\n"


def _meanings() -> dict[str, str]:
    """Setting → its line in the docstring of `Settings`."""
    lines = re.findall(r"^ {8}([a-z_, ]+): (.+(?:\n {12}.+)*)$", settings.Settings.__doc__ or "", re.MULTILINE)
    return {name: re.sub(r"\s+", " ", text).replace("|", "\\|") for names, text in lines for name in names.split(", ")}


def _exit_codes() -> Iterator[str]:
    for code, cls in errors.table().items():
        meaning = (cls.__doc__ or "").strip().splitlines()[0] if code != 1 else "Any other failure."
        if code == 10:
            yield USAGE
        yield f"| {code} | `{cls.slug}` | {cls.http_status} | {meaning} |\n"


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
