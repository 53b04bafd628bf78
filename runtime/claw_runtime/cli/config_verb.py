"""`claw-runtime config`."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from claw_runtime.cli import output
from claw_runtime.errors import InvalidSpec

if TYPE_CHECKING:
    from claw_runtime.spec.check import Report
    from claw_runtime.spec.contract import Promise
    from claw_runtime.spec.loader import Document

contract_option = click.option(
    "--contract",
    type=click.Path(path_type=Path),
    help="Contract of the image; default: the file that `contract:` names.",
)


@click.group("config")
def command() -> None:
    """Workload files: check and explain them."""


@command.command("check")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@contract_option
@output.form_option
@click.pass_obj
def check(context: output.Context, files: tuple[Path, ...], contract: Path | None) -> None:
    """Check workload FILES, each and together.

    Each error is a line on stdout with file, line and column; each warning about a valid file is a line on stderr.
    Exits with 16 if a file is invalid. Needs neither daemon nor Podman.

    \b
    Examples:
      claw-runtime config check docs/examples/openclaw/workload.yaml
      claw-runtime config check --contract images/openclaw-nix/contract.json docs/examples/openclaw/workload.yaml
      claw-runtime config check ~/.local/share/claw/workloads/*.yaml -o json
    """
    from claw_runtime.spec import check as checking

    reports = checking.check(files, _promise(contract))
    if not output.emitted(context, [_report(report) for report in reports], [report.path for report in reports]):
        _tell(reports)
    if any(report.errors for report in reports):
        raise click.exceptions.Exit(InvalidSpec.exit_code)


def _tell(reports: "list[Report]") -> None:
    for report in reports:
        for remark in report.remarks:
            if remark.kind == "error":
                output.line(report.told(remark))
            else:
                output.note(f"{report.told(remark)} [{remark.kind}]")
        if not report.errors:
            output.line(f"{report.path}: {report.id} is valid")
            if not report.whole:
                output.note(
                    f"{report.path}: the rest is in the image's contract: give it with --contract to check both"
                )


def _report(report: "Report") -> dict[str, Any]:
    return {
        "file": str(report.path),
        "id": report.id,
        "valid": not report.errors,
        "whole": report.whole,
        "remarks": [
            {
                "kind": remark.kind,
                "line": remark.mark.line if remark.mark else None,
                "column": remark.mark.column if remark.mark else None,
                "message": remark.what,
                "hint": remark.hint,
            }
            for remark in report.remarks
        ],
    }


@command.command("show")
@click.argument("file", type=click.Path(path_type=Path))
@contract_option
@click.option("--image", "image", is_flag=True, help="Read the contract from the image in Podman's store.")
@output.form_option
@click.pass_obj
def show(context: output.Context, file: Path, contract: Path | None, *, image: bool) -> None:
    """Show a workload FILE as the runtime reads it.

    All defaults are filled in, from the image's contract where that is known, and older forms are replaced by the
    current ones. Secrets are masked. Text is YAML that loads again.

    \b
    Examples:
      claw-runtime config show docs/examples/nanoclaw/workload-boilerhouse.yaml
      claw-runtime config show --contract images/openclaw-nix/contract.json docs/examples/openclaw/workload.yaml
      claw-runtime config show --image docs/examples/openclaw/workload.yaml -o json
    """
    from claw_runtime.spec import loader, plan
    from claw_runtime.spec.check import planned
    from claw_runtime.spec.shown import shown

    document = loader.load(file)
    workload = plan.make(document, _label(context, document)) if image else planned(document, _promise(contract))
    told = shown(document, workload)
    if not output.emitted(context, told, [document.workload.id]):
        output.emitted(replace(context, form="yaml"), told, ())
    for hint in document.hints:
        output.note(f"{document.told(hint)} [{hint.kind}]")


@command.command("schema")
def schema() -> None:
    """Print the JSON Schema of workload files, for editors.

    \b
    Examples:
      claw-runtime config schema > workload.schema.json
      sed -i '1i # yaml-language-server: $schema=workload.schema.json' workload.yaml
    """
    from claw_runtime.spec.schema import schema as made

    for text in json.dumps(made(), indent=2, ensure_ascii=False).splitlines():
        output.line(text)


@command.command("seccomp")
@click.argument("profile", type=click.Choice(["strict", "browser"]), default="strict")
def seccomp(profile: str) -> None:
    """Print one of claw's seccomp profiles, the start of one of your own.

    The profile lists the system calls that a program may make, in the form that Podman reads. Add the calls that a
    program lacks, and name the file in `seccomp:` of its workload file.

    \b
    Examples:
      claw-runtime config seccomp
      claw-runtime config seccomp browser > my-calls.json
    """
    from claw_runtime.seccomp import profiles

    for text in profiles.text(profile).splitlines():
        output.line(text)


def _promise(path: Path | None) -> "Promise | None":
    from claw_runtime.spec import contract

    return contract.load(path) if path else None


def _label(context: output.Context, document: "Document") -> str | None:
    """The contract that the image carries in Podman's store."""
    from claw_runtime.daemon import tools
    from claw_runtime.tenancy import LABEL_CONTRACT

    with tools.images(context.settings()) as service:
        return service.inspect(document.workload.image).image.labels.get(LABEL_CONTRACT)
