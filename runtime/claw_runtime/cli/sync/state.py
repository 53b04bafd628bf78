"""`claw-runtime sync status`, `history`, `verify`, `gc` and `clean`: checks and removal of a stored state."""

import json
from collections.abc import Iterator
from typing import Any

import click

from claw_runtime.cli import output
from claw_runtime.cli.arguments import tenant_argument
from claw_runtime.cli.progress import Progress
from claw_runtime.cli.snapshot_verb import list_snapshots
from claw_runtime.errors import ClawError, VerifyMismatch, by_slug
from claw_runtime.units import duration, format_size

Answer = dict[str, Any]
DRY_RUN = click.option("--dry-run", is_flag=True, help="Only show what would be removed.")


@click.command("status")
@tenant_argument
@output.form_option
@click.pass_obj
def status(context: output.Context, tenant: str) -> None:
    """Show what is stored, which runtime may write, and what is not stored yet.

    \b
    Examples:
      claw-runtime sync status alice
    """
    answer = context.client().get(f"/api/v1/tenants/{tenant}/stored")
    if output.emitted(context, answer, [answer["generation"] or ""]):
        return
    lease = answer["lease"]
    output.fields(
        {
            "tenant": tenant,
            "stored": _stored(answer),
            "size": f"{output.counted(answer['objects'], 'object')}, {format_size(answer['storedBytes'])}",
            "lease": f"{'ours' if lease['ours'] else lease['owner']} since {lease['since']}" if lease else "nobody's",
            "here": answer["local"],
            "last sync": answer["lastSync"] or "-",
        }
    )
    if answer["error"]:
        output.note(f"{tenant}: not stored yet: {answer['error']}")


def _stored(answer: Answer) -> str:
    if answer["generation"]:
        return f"generation {answer['generation']}, sealed {answer['sealedAt']}"
    return "removed" if answer["state"] == "removed" else "nothing"


history = click.Command(
    "history",
    callback=list_snapshots.callback,
    params=list(list_snapshots.params),
    help="""List the generations that can be restored; the same as `claw-runtime snapshot list`.

    \b
    Examples:
      claw-runtime sync history alice
    """,
)


@click.command("verify")
@tenant_argument
@click.argument("other", required=False)
@click.option("-g", "--generation", type=click.IntRange(1), help="Only this generation.")
@click.option("--canary", multiple=True, help="With OTHER: a text that only one of the two may contain; repeatable.")
@output.form_option
@click.pass_obj
def verify(
    context: output.Context, tenant: str, other: str | None, generation: int | None, canary: tuple[str, ...]
) -> None:
    """Read all that is stored again and check every digest; or, with OTHER, that two tenants share nothing.

    Every object of every generation that is kept, and every file of the newest. Ends with exit code 13 when anything is
    damaged, or shared. Two tenants with equal file names or contents share nothing. A canary is searched in every
    generation that is kept: in files, names, targets of links and attributes.

    \b
    Examples:
      claw-runtime sync verify alice
      claw-runtime sync verify alice bob --canary "alice's secret word"
    """
    if other is not None:
        _verify_isolation(context, tenant, other, canary)
        return
    if canary:
        raise click.UsageError("--canary requires a second tenant.")
    answer = _watched(context, tenant, generation)
    if not output.emitted(context, answer, answer["damaged"]):
        counted = output.counted(len(answer["generations"]), "generation")
        output.line(
            f"{tenant}: {counted}, {output.counted(answer['objects'], 'object')}, {format_size(answer['bytes'])}, "
            f"{output.counted(answer['files'], 'file')}: {'DAMAGED' if answer['damaged'] else 'all intact'}"
        )
        for fault in answer["damaged"]:
            output.line(f"  {output.clean(fault)}")
    if answer["damaged"]:
        raise VerifyMismatch(
            f"the stored state of {tenant} is damaged",
            why=output.clean(answer["damaged"][0]),
            hint=f"claw-runtime snapshot list {tenant}: an earlier generation may be intact; check the store's disks",
        )


def _verify_isolation(context: output.Context, tenant: str, other: str, canary: tuple[str, ...]) -> None:
    client = context.client()
    answer = client.get_many("/api/v1/isolation", [("one", tenant), ("other", other), *(("canary", c) for c in canary)])
    if not output.emitted(context, answer, answer["findings"]):
        objects = " and ".join(output.counted(count, "object") for count in answer["objects"])
        output.line(
            f"{tenant} and {other}: {objects}: {'objects are shared' if answer['findings'] else 'nothing is shared'}"
        )
        for finding in answer["findings"]:
            output.line(f"  {output.clean(finding)}")
    if answer["findings"]:
        raise VerifyMismatch(f"{tenant} and {other} share stored objects", why=output.clean(answer["findings"][0]))


def _watched(context: output.Context, tenant: str, generation: int | None) -> Answer:
    """The result of a verification, with its progress until then."""
    with Progress("verify", tenant) as progress:
        for line in _lines(context.client().stream(f"/api/v1/tenants/{tenant}/verify", generation=generation)):
            if "problem" in line:
                problem = line["problem"]
                cls: type[ClawError] = by_slug(problem["type"].removeprefix("urn:claw:"))
                raise cls(problem["title"], why=problem["detail"], hint=problem["hint"])
            if "result" in line:
                result: Answer = line["result"]
                return result
            progress.of(line["bytes"], line["total"])
    raise ClawError("the verification was interrupted", hint="try again")


def _lines(pieces: Iterator[bytes]) -> Iterator[Answer]:
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        yield from (json.loads(line) for line in whole)


@click.command("gc")
@tenant_argument
@click.option("--grace", default="24h", show_default=True, help="Only older objects, by the store's clock.")
@DRY_RUN
@output.form_option
@click.pass_obj
def gc(context: output.Context, tenant: str, grace: str, dry_run: bool) -> None:
    """Remove from the store what none of the kept generations needs; the daemon does it once a day.

    \b
    Examples:
      claw-runtime sync gc alice --dry-run
    """
    try:
        seconds = duration(grace)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="'--grace'") from error
    body = {"dryRun": dry_run, "grace": seconds}
    answer = context.client().post(f"/api/v1/tenants/{tenant}/collect", body)
    if output.emitted(context, answer, [tenant]):
        return
    if not answer["collected"]:
        output.line(f"{tenant}: nothing to do now: it is changing, is not stored yet, or was never on this host")
        return
    would = "would be removed" if dry_run else "removed"
    output.line(
        f"{tenant}: {output.counted(answer['objects'], 'object')}, {format_size(answer['bytes'])} {would}; "
        f"{output.counted(answer['kept'], 'generation')} kept"
    )
    if answer["young"]:
        output.note(f"{output.counted(answer['young'], 'object')} not needed but too new to remove")


@click.command("clean")
@tenant_argument
@click.option("-f", "--force", "--yes", "-y", is_flag=True, help="Ask nothing.")
@DRY_RUN
@output.form_option
@click.pass_obj
def clean(context: output.Context, tenant: str, force: bool, dry_run: bool) -> None:
    """Permanently remove everything that is stored of a tenant: every generation, pinned ones too.

    The tenant must not run anywhere. A runtime that still writes is refused from then on. If the call is interrupted,
    repeat it: it continues. Logs and secrets of the tenant on this host stay.

    \b
    Examples:
      claw-runtime sync clean alice --dry-run
      claw-runtime sync clean alice --force
    """
    client = context.client()
    answer = client.delete(f"/api/v1/tenants/{tenant}/stored", dry_run=True)
    if not dry_run:
        if not force:
            size = format_size(answer["bytes"])
            output.confirm(f"Remove {output.counted(answer['objects'], 'object')} ({size}) of {tenant}, permanently?")
        answer = client.delete(f"/api/v1/tenants/{tenant}/stored")
    if output.emitted(context, answer, [tenant]):
        return
    output.line(
        f"{tenant}: {output.counted(answer['objects'], 'object')}, {format_size(answer['bytes'])} "
        f"{'would be removed' if dry_run else 'removed'}"
    )
