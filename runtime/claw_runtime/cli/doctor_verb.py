"""`claw-runtime doctor`."""

from dataclasses import asdict
from pathlib import Path

import click

from claw_runtime.cli import output

MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


@click.command("doctor")
@click.argument("workloads", nargs=-1, type=click.Path(path_type=Path))
@output.form_option
@click.pass_context
def command(context: click.Context, workloads: tuple[Path, ...]) -> None:
    """Check this host and report what to fix.

    Works with and without a running daemon. The exit code is 1 if a check fails, else 0.

    To prove that limits hold, it runs a container with limits for some seconds and removes it. For that it takes the
    smallest image of the workloads. Without cgroup controllers, or without an image, no container runs.

    \b
    Examples:
      claw-runtime doctor
      claw-runtime doctor docs/examples/openclaw/workload.yaml -o json
    """
    from claw_runtime.daemon import tools

    findings = list(tools.examine(context.obj.settings(), workloads))
    if not output.emitted(context.obj, [asdict(finding) for finding in findings], [found.check for found in findings]):
        for finding in findings:
            output.line(f"{MARKS[finding.verdict]}  {finding.check}: {finding.detail}")
            if finding.hint:
                output.line(f"      {finding.hint}")
    failures = sum(finding.verdict == "fail" for finding in findings)
    output.note(f"{failures} failed, {sum(finding.verdict == 'warn' for finding in findings)} warnings")
    context.exit(1 if failures else 0)
