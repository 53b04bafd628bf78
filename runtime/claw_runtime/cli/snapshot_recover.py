"""`claw-runtime snapshot recover`: rebuilds a tenant's HEAD when it is lost, damaged or older than known."""

import sys
from typing import Any

import click

from claw_runtime.cli import output
from claw_runtime.cli.arguments import tenant_argument
from claw_runtime.units import format_size

Answer = dict[str, Any]


@click.command("recover")
@tenant_argument
@click.option("--accept-loss", is_flag=True, help="Also if a newer state of the tenant is known, and is lost then.")
@click.option("-n", "--dry-run", is_flag=True, help="Only show what was found, and what would be chosen.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
@output.form_option
@click.pass_obj
def recover(context: output.Context, tenant: str, accept_loss: bool, dry_run: bool, yes: bool) -> None:
    """Rebuild HEAD when it is missing, damaged or older than this host knows it.

    HEAD then names the newest generation in the store whose manifest can be read and whose objects all exist, under a
    new epoch. It is refused while HEAD is there and healthy. Nothing is removed, here or in the store.

    Without --accept-loss it also refuses if that generation is older than one that this host has seen: objects may
    still come back from the bucket's versions or a backup. With it, and if no generation is whole, the tenant's next
    claim starts empty. A tree that rests on this host becomes a kept tree.

    \b
    Examples:
      claw-runtime snapshot recover alice --dry-run
      claw-runtime snapshot recover alice
    """
    url, body, client = f"/api/v1/tenants/{tenant}/snapshots/recover", {"acceptLoss": accept_loss}, context.client()
    asks = not yes and context.form == "text" and sys.stdin.isatty() and sys.stderr.isatty()
    if dry_run or asks:
        plan = client.post(url, {**body, "dryRun": True})
        if dry_run:
            _told(context, plan)
            return
        for line in _found(plan):
            output.note(line)
        if accept_loss or not plan["loses"]:
            output.confirm(f"{tenant}: {_chosen(plan, would=True)}. Continue?")
    _told(context, client.post(url, body))


def _told(context: output.Context, answer: Answer) -> None:
    if output.emitted(context, answer, [answer["generation"] or ""]):
        return
    for line in _found(answer):
        output.note(line)
    output.line(f"{answer['tenantId']}: {_chosen(answer, would=answer['dryRun'])}")
    if answer["dryRun"] and answer["loses"]:
        output.note("  this loses state: bring objects back from a backup first, or add --accept-loss")


def _found(answer: Answer) -> list[str]:
    """What is wrong, and which newer generations cannot be used."""
    faults = [f"  generation {one['generation']}: {output.clean(one['fault'])}" for one in answer["faulty"]]
    return [f"HEAD is {answer['condition']}: {output.clean(answer['why'])}", *faults]


def _chosen(answer: Answer, *, would: bool = False) -> str:
    says, names = ("would say", "would name") if would else ("says", "names")
    if answer["generation"] is None:
        return f"HEAD {says} that there is no state, under epoch {answer['epoch']}"
    what = f"{output.counted(answer['files'], 'file')}, {format_size(answer['bytes'])}, sealed {answer['created']}"
    return f"HEAD {names} generation {answer['generation']} ({output.clean(what)}), under epoch {answer['epoch']}"
