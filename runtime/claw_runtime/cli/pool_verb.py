"""`claw-runtime pool`."""

from typing import Any

import click

from claw_runtime.cli import output
from claw_runtime.cli.arguments import Pool
from claw_runtime.units import format_duration

TIERS = ("created", "entrypoint", "interpreter", "prewarmed")

pool_argument = click.argument("pool", type=Pool())


@click.group("pool")
def command() -> None:
    """Pools of warm slots."""


@command.command("list")
@output.form_option
@click.pass_obj
def list_pools(context: output.Context) -> None:
    """List pools with their slots counted.

    \b
    Examples:
      claw-runtime pool list
      claw-runtime pool list -o name
    """
    pools = context.client().get("/api/v1/pools")
    if output.emitted(context, pools, [pool["id"] for pool in pools]):
        return
    if not pools:
        output.note("no pools: claw-runtime up WORKLOAD.yaml")
        return
    columns = ("POOL", "READY", "CLAIMED", "MIN", "MAX", "IMAGE")
    output.table(columns, [[p[k] for k in ("id", "ready", "claimed", "minSize", "maxSize", "image")] for p in pools])
    for pool in pools:
        for told in _troubles(pool):
            output.note(f"{pool['id']}: {told}")


@command.command("show")
@pool_argument
@output.form_option
@click.pass_obj
def show(context: output.Context, pool: str) -> None:
    """Show one pool.

    \b
    Examples:
      claw-runtime pool show openclaw
    """
    _told(context, context.client().get(f"/api/v1/pools/{pool}"))


@command.command("scale")
@pool_argument
@click.option("--min", "min_size", type=click.IntRange(0), help="Slots to keep waiting.")
@click.option("--max", "max_size", type=click.IntRange(0), help="Maximum number of slots, waiting and claimed.")
@click.option(
    "--warmth",
    multiple=True,
    metavar="TIER=COUNT",
    help=f"How many slots wait in each tier: {', '.join(TIERS)}. More than once.",
)
@output.form_option
@click.pass_obj
def scale(
    context: output.Context, pool: str, min_size: int | None, max_size: int | None, warmth: tuple[str, ...]
) -> None:
    """Change how many slots a pool keeps, and how warm.

    The change survives restarts of the daemon. Options that are not given stay unchanged.

    \b
    Examples:
      claw-runtime pool scale openclaw --min 4 --max 16
      claw-runtime pool scale openclaw --warmth prewarmed=1 --warmth created=3
    """
    body = {"minSize": min_size, "maxSize": max_size, "warmth": _warmth(warmth) or None}
    wanted = {name: value for name, value in body.items() if value is not None}
    if not wanted:
        raise click.UsageError("Give at least one of --min, --max and --warmth.")
    _told(context, context.client().post(f"/api/v1/pools/{pool}/scale", wanted))


def _warmth(given: tuple[str, ...]) -> dict[str, int]:
    from claw_runtime.spec.dialect import FORMER_TIERS

    counts = {}
    for text in given:
        tier, _, count = text.partition("=")
        if tier in FORMER_TIERS:
            raise click.BadParameter(f"the tier {tier} is called {FORMER_TIERS[tier]} now.", param_hint="'--warmth'")
        if tier not in TIERS or not count.isdecimal():
            raise click.BadParameter(
                f"{text!r} is not TIER=COUNT, with a tier of {', '.join(TIERS)}.", param_hint="'--warmth'"
            )
        counts[tier] = int(count)
    return counts


@command.command("drain")
@pool_argument
@output.form_option
@click.pass_obj
def drain(context: output.Context, pool: str) -> None:
    """Empty a pool: remove its waiting slots, and refuse new claims.

    Tenants that have a container keep it until they are released. Survives restarts of the daemon; `undrain` ends it.

    \b
    Examples:
      claw-runtime pool drain openclaw
    """
    _told(context, context.client().post(f"/api/v1/pools/{pool}/drain"))


@command.command("undrain")
@pool_argument
@output.form_option
@click.pass_obj
def undrain(context: output.Context, pool: str) -> None:
    """Fill a drained pool and accept claims again.

    \b
    Examples:
      claw-runtime pool undrain openclaw
    """
    _told(context, context.client().post(f"/api/v1/pools/{pool}/undrain"))


@command.command("recycle")
@pool_argument
@output.form_option
@click.pass_obj
def recycle(context: output.Context, pool: str) -> None:
    """Replace all waiting slots of a pool by new ones; tenants' containers stay.

    \b
    Examples:
      claw-runtime pool recycle openclaw
    """
    answer = context.client().post(f"/api/v1/pools/{pool}/recycle")
    if not output.emitted(context, answer, [answer["id"]]):
        output.line(f"{answer['id']}: {output.counted(answer['recycled'], 'waiting slot')} to be replaced")


@command.command("metrics")
@pool_argument
@output.form_option
@click.pass_obj
def metrics(context: output.Context, pool: str) -> None:
    """Show what a pool has, and what was measured since the daemon's start.

    \b
    Examples:
      claw-runtime pool metrics openclaw
      claw-runtime pool metrics openclaw -o json
    """
    answer = context.client().get(f"/api/v1/pools/{pool}/metrics")
    if output.emitted(context, answer, [answer["id"]]):
        return
    rows = [("claim", source, *_measured(answer["claimSeconds"].get(source), count))
            for source, count in answer["claims"].items()]  # fmt: skip
    rows += [("fill", tier, *_measured(told, told["count"])) for tier, told in answer["fillSeconds"].items()]
    if rows:
        output.table(("WHAT", "FROM", "TIMES", "P50", "P95", "LAST"), rows)
    else:
        output.note("no claims or fills since the daemon started")
    output.note(
        f"{pool}: {answer['available']} ready, {answer['pending']} being made, {answer['borrowed']} claimed, "
        f"{answer['minSize']} to {answer['maxSize']}; {output.counted(answer['queue'], 'claim')} in line"
    )
    for where, count in answer["failures"].items():
        if count:
            output.note(f"{pool}: {output.counted(count, 'failure')}: {where}")
    for told in _commits(answer):
        output.note(f"{pool}: {told}")


def _commits(answer: dict[str, Any]) -> list[str]:
    """How the commits of a pool's tenants go, one per line; nothing without a running tenant."""
    oldest, failing, lost = answer["oldestCommitSeconds"], answer["failingCommits"], answer["leasesLost"]
    taken = f", {lost} of them taken over by another runtime" if lost else ""
    told = [
        f"every running tenant was saved within the last {format_duration(oldest)}" if oldest is not None else "",
        f"{output.counted(failing, 'tenant')} whose commits fail{taken}" if failing else "",
        f"{output.counted(answer['leftOut'], 'name')} left out or stored otherwise" if answer["leftOut"] else "",
    ]
    return [one for one in told if one]


def _measured(told: dict[str, Any] | None, count: int) -> tuple[object, ...]:
    """Cells of one row of the metrics."""
    return (count, *(format_duration(told[name]) if told else "-" for name in ("p50", "p95", "last")))


def _troubles(pool: dict[str, Any]) -> list[str]:
    """Problems of a pool that an operator should know, one per line."""
    waiting = f"{output.counted(pool['queue'], 'claim')} in line for a slot" if pool["queue"] else ""
    dropped = ", ".join(pool["dropped"])
    told = [
        "drained: no slots, no claims" if pool["drained"] else "",
        " · ".join(part for part in (pool["error"], pool["hint"]) if part),
        waiting,
        f"not enforced on this host: {dropped}" if dropped else "",
        *pool["notes"],
    ]
    return [one for one in told if one]


def _told(context: output.Context, pool: dict[str, Any]) -> None:
    """Print one pool, at the end of every verb that changes it."""
    if output.emitted(context, pool, [pool["id"]]):
        return
    tiers = pool["tiers"].items()
    output.fields(
        {
            "pool": pool["id"],
            "image": pool["image"],
            "digest": pool["imageDigest"],
            "size": f"{pool['minSize']} to {pool['maxSize']}",
            "slots": f"{pool['ready']} ready, {pool['filling']} being made, {pool['claimed']} claimed",
            "tiers": ", ".join(
                f"{tier} {t['ready']} of {t['wanted']}" for tier, t in tiers if t["ready"] or t["wanted"]
            ),
        }
    )
    for told in _troubles(pool):
        output.note(told)
