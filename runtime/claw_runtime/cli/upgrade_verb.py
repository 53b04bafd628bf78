"""`claw-runtime upgrade`."""

import sys
import time
from typing import Any

import click

from claw_runtime.cli import output
from claw_runtime.cli.arguments import Duration, Pool, Tenant
from claw_runtime.errors import DaemonUnreachable, UpgradeFailed
from claw_runtime.units import format_duration

POLL = 0.25
"""Seconds between two requests for the progress of an upgrade."""

UNDER_WAY = ("running", "aborting")

Answer = dict[str, Any]


@click.command("upgrade")
@click.argument("pool", type=Pool())
@click.option("--image", metavar="REF", help="The new image; it must be loaded here, as nothing is ever pulled.")
@click.option("--canary", type=Tenant("active"), help="First tenant to upgrade; default: the most recently active.")
@click.option("--batch", type=click.IntRange(1), metavar="N", help="Tenants in each wave; default: 1, 2, 4 and so on.")
@click.option("--soak", type=Duration(), metavar="SECONDS", help="Watch each tenant this long (30, 2m); default 10.")
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@click.option("--resume", is_flag=True, help="Resume the upgrade that stopped.")
@click.option("--abort", is_flag=True, help="End it: tenants on trial go back, no others move.")
@click.option("-d", "--detach", is_flag=True, help="Do not wait for it to finish.")
@output.form_option
@click.pass_obj
def command(
    context: output.Context,
    pool: str,
    image: str | None,
    canary: str | None,
    batch: int | None,
    soak: float | None,
    dry_run: bool,
    resume: bool,
    abort: bool,
    detach: bool,
) -> None:
    """Move a pool and its tenants to another image.

    One tenant moves first, then the others in waves. The runtime seals a tenant's state as a generation and starts the
    new image on it. The move is final once the tenant has stayed ready. Otherwise image and state go back together,
    the tenant restarts, and the upgrade stops. At the end the pool makes its slots from the new image. Tenants without
    a container try it at their next claim.

    It continues when this command is interrupted. Without an option, shows the progress of the last upgrade.

    \b
    Examples:
      claw-runtime upgrade openclaw --image localhost/claw-openclaw:2 --dry-run
      claw-runtime upgrade openclaw --image localhost/claw-openclaw:2 --canary alice --soak 1m
      claw-runtime upgrade openclaw --resume
    """
    _check_options(image, resume, abort, others=canary or batch or soak is not None or dry_run)
    client = context.client()
    path = f"/api/v1/pools/{pool}/upgrade"
    if image:
        body = {"image": image, "canary": canary, "batch": batch or 0, "dryRun": dry_run}
        answer = client.post(path, body | ({} if soak is None else {"soak": soak}))
        if dry_run:
            _plan(context, answer)
            return
    elif resume or abort:
        answer = client.post(f"{path}/{'resume' if resume else 'abort'}")
    else:
        _show(context, client.get(path))
        return
    if detach:
        _show(context, answer)
    else:
        _follow(context, client, path, answer)


def _check_options(image: str | None, resume: bool, abort: bool, *, others: object) -> None:
    if sum((bool(image), resume, abort)) > 1:
        raise click.UsageError("Give one of --image, --resume and --abort.")
    if others and not image:
        raise click.UsageError("--canary, --batch, --soak and --dry-run require --image.")


def _follow(context: output.Context, client: Any, path: str, answer: Answer) -> None:
    """Report the progress until the upgrade ends. Raises `UpgradeFailed` when it stopped."""
    told: dict[str, Answer] = {}
    while True:
        for move in answer["tenants"]:
            before = told.get(move["tenantId"])
            if before != move and (before or move["state"] != "waiting"):
                _tell(context, answer, move)
            told[move["tenantId"]] = move
        sys.stdout.flush()
        if answer["state"] not in UNDER_WAY:
            break
        time.sleep(POLL)
        try:
            answer = client.get(path)
        except KeyboardInterrupt:
            output.note("the upgrade continues without this command")
            raise
        except DaemonUnreachable as error:
            raise UpgradeFailed(
                f"the daemon stopped while it upgraded pool {answer['poolId']!r}",
                why=str(error),
                hint="start it with `claw-runtime up`, which starts the same tenants again; then claw-runtime upgrade "
                f"{answer['poolId']} --resume",
            ) from error
    _end(context, answer)


def _tell(context: output.Context, answer: Answer, move: Answer) -> None:
    """Report one step of one tenant: a line of text, or one document with -o."""
    if context.form == "name":
        if move["state"] == "done":
            output.line(move["tenantId"])
        return
    if output.emitted(context, {"poolId": answer["poolId"], **move}, ()):
        return
    outage = f"{move['outageMs']:.0f} ms"
    words = {
        "sealing": "its state is being saved",
        "trying": f"generation {move['generation']} is sealed; the new image starts",
        "soaking": f"ready after {outage}; watched for {format_duration(answer['soak'])}",
        "done": "runs the new image" + (f", was away for {outage}" if move["outageMs"] else ""),
        "returning": f"rolls back: {move['error']}",
        "returned": f"runs its previous image again, was away for {outage}: {move['error']}",
        "left": "is no longer running: its next claim tries the new image",
    }
    place = "canary" if move["wave"] == 0 else f"wave {move['wave']}"
    output.line(f"{place}: {move['tenantId']}: {words.get(move['state'], move['state'])}")


def _end(context: output.Context, answer: Answer) -> None:
    if answer["state"] in ("failed", "paused"):
        if context.form != "text":
            output.emitted(context, answer, ())
        brief, _, why = str(answer["error"]).partition(": ")
        raise UpgradeFailed(brief or "the upgrade stopped", why=why, hint=answer["hint"])
    if context.form == "text":
        output.line(_summary(answer))
        if answer["error"]:
            output.note(answer["error"])
            output.note(f"  {answer['hint']}")
    elif context.form != "name":
        output.emitted(context, answer, ())


def _summary(answer: Answer) -> str:
    done = [move for move in answer["tenants"] if move["state"] == "done"]
    longest = max((move["outageMs"] for move in done), default=0.0)
    moved = f"{len(done)} of {len(answer['tenants'])} tenants moved"
    away = f", away for {longest:.0f} ms at most" if longest else ""
    state = "makes its slots from" if answer["state"] == "done" else f"upgrade {answer['state']}:"
    return f"{answer['poolId']}: {state} {answer['image']}; {moved}{away}"


def _show(context: output.Context, answer: Answer) -> None:
    if output.emitted(context, answer, [move["tenantId"] for move in answer["tenants"] if move["state"] == "done"]):
        return
    output.line(_summary(answer))
    if answer["tenants"]:
        columns = ("TENANT", "WAVE", "STATE", "SEALED", "AWAY")
        output.table(
            columns,
            [
                (m["tenantId"], m["wave"] or "canary", m["state"], m["generation"] or "-", f"{m['outageMs']:.0f} ms")
                for m in answer["tenants"]
            ],
        )
    for told in (answer["error"], answer["hint"]):
        if told:
            output.note(told)


def _plan(context: output.Context, plan: Answer) -> None:
    if output.emitted(context, plan, [tenant for wave in plan["waves"] for tenant in wave]):
        return
    waves = plan["waves"][1:]
    output.fields(
        {
            "pool": plan["poolId"],
            "from": plan["now"],
            "to": plan["image"],
            "digest": plan["imageDigest"],
            "canary": plan["canary"] or "no tenant runs another image",
            **{f"wave {number}": ", ".join(wave) for number, wave in enumerate(waves, 1)},
            "stay": ", ".join(plan["already"]),
            "end their rest": ", ".join(plan["resting"]),
            "later": f"{plan['later']} tenants without a container try it at their next claim" if plan["later"] else "",
            "watched": f"{format_duration(plan['soak'])} each, then the next wave",
        }
    )
    output.note("each: state sealed, new image started on it, image and state back together if it does not stay ready")
