"""What `install`, `upgrade-self` and `uninstall` print."""

from typing import TYPE_CHECKING

from claw_runtime.cli import output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from claw_runtime.daemon.installing import Installation
    from claw_runtime.operations.install import Report
    from claw_runtime.operations.install_files import File

WORDS = {"write": "wrote", "unchanged": "unchanged", "keep": "kept", "remove": "removed"}


def show(context: output.Context, files: "Sequence[File]") -> None:
    """Every file with its text, before anything is written."""
    document = [{"path": str(file.path), "action": file.action, "text": file.text} for file in files]
    if output.emitted(context, document, [file.path for file in files]):
        return
    for file in files:
        output.line(f"# {file.path}: {file.action}")
        lines = file.text.splitlines() if file.path.suffix == ".service" else [f"link to {file.text}"]
        for line in lines if file.action == "write" else ():
            output.line(line)
        output.line("")


def report(context: output.Context, current: "Installation", done: "Report") -> None:
    """What an installation did, and what its user should know."""
    _print(context, current, done)
    _tell_kept(done)
    for name in current.ignored:
        output.note(f"warning: {name} is set in this shell only; the daemon reads {current.variables}")
    if "claw.service" in done.restarted:
        output.note("the daemon runs; next: claw-runtime doctor, claw-runtime status")
        output.note("its log: journalctl --user -u claw")


def removed(context: output.Context, current: "Installation", done: "Report") -> None:
    """What an uninstallation did, and what is left."""
    _print(context, current, done)
    _tell_kept(done)
    output.note(f"the data directory stays: {current.settings.home}; running containers stay too (podman ps)")


def _print(context: output.Context, current: "Installation", done: "Report") -> None:
    document = {
        "home": str(current.settings.home),
        "environment": str(done.venv),
        "files": [{"path": str(file.path), "action": file.action} for file in done.files],
        "restarted": list(done.restarted),
    }
    if not output.emitted(context, document, [file.path for file in done.files]):
        for file in done.files:
            output.line(f"{WORDS[file.action]} {file.path}")
        for name in done.restarted:
            output.line(f"started {name}")


def _tell_kept(done: "Report") -> None:
    for file in done.files:
        if file.action == "keep" and file.path.suffix == ".service":
            output.note(f"warning: {file.path} was edited and is kept; remove it and install again for the new one")
        elif file.action == "keep":
            output.note(f"warning: {file.path} is another program and is kept")
