"""`claw-runtime status`."""

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import click

from claw_runtime.cli import output
from claw_runtime.cli.arguments import STATES, Duration, Pool, Tenant
from claw_runtime.reserve import is_given_up
from claw_runtime.units import format_duration

COLUMNS = ("TENANT", "STATE", "POOL", "ENDPOINT", "GENERATION", "SINCE")
# Cells that a row may need later: an identifier of usual length, the longest state, an endpoint.
NAMES = {"engine": "engine (Podman)", "store": "object store"}
_TROUBLES = 10
"""Lines below the table, at most."""
_LEAST = (16, max(map(len, (*STATES, "unhealthy", "restarting", "crash-loop"))), 8, len("http://127.0.0.1:65535"), 0, 0)

Row = dict[str, Any]


@click.command("status")
@click.argument("tenant", required=False, type=Tenant())
@click.option("-p", "--pool", type=Pool(), help="Only tenants of this pool.")
@click.option(
    "-s", "--state", "states", multiple=True, type=click.Choice(STATES), help="Only these states; repeatable."
)
@click.option("-w", "--watch", is_flag=True, help="Keep showing until Ctrl-C.")
@click.option(
    "-n", "--interval", type=Duration(), default=2.0, metavar="SECONDS", help="Interval of --watch; default 2."
)
@output.form_option
@click.pass_obj
def command(
    context: output.Context,
    tenant: str | None,
    pool: str | None,
    states: tuple[str, ...],
    watch: bool,
    interval: float,
) -> None:
    """Show tenants: claimed or not, where, why.

    With --watch, a terminal shows the current table; elsewhere, and with -o, each changed tenant is printed again.

    \b
    Examples:
      claw-runtime status
      claw-runtime status --watch --pool openclaw
      claw-runtime status alice -o json
      claw-runtime status --state active -o name | xargs -n 1 claw-runtime release
    """
    client = context.client()

    def ask() -> list[Row]:
        path = "/api/v1/tenants" if tenant is None else f"/api/v1/tenants/{tenant}"
        answer = client.get(path)
        found = answer if tenant is None else [answer]
        return [one for one in found if _wanted(one, pool, states)]

    if watch:
        from claw_runtime.cli.watching import watch as show

        show(context, ask, COLUMNS, _row, key=lambda one: str(one["tenantId"]), interval=interval, least=_LEAST)
    else:
        if tenant is None and context.form == "text":
            _recovering(client.get("/api/v1/recovery"))
            _silent(client.get("/api/v1/services"))
        _once(
            context,
            tenant,
            ask,
            none="no such tenants" if pool or states else "no tenants yet: claw-runtime claim TENANT",
        )
        if is_given_up(context.settings().layout.reserve):
            output.note("the disk of the data directory is full, and its reserve is in use: free space")


def _recovering(recovery: Row) -> None:
    if recovery["recovered"] < recovery["tenants"]:
        output.note(f"recovering {recovery['recovered']} of {recovery['tenants']} tenants since the daemon's start")
    if recovery["restarted"] < recovery["toRestart"]:
        failing = f", {recovery['restartsFailing']} failing" if recovery["restartsFailing"] else ""
        output.note(
            f"claimed again after a reboot: {recovery['restarted']} of {recovery['toRestart']} tenants{failing}"
        )


def _silent(services: Row) -> None:
    for name, why in services["silent"].items():
        output.note(f"the {NAMES.get(name, name)} does not answer: {why}")


def _wanted(answer: Row, pool: str | None, states: tuple[str, ...]) -> bool:
    return pool in (None, answer["poolId"]) and (not states or answer["state"] in states)


def _once(context: output.Context, tenant: str | None, ask: Callable[[], list[Row]], *, none: str) -> None:
    answers = ask()
    names = [answer["tenantId"] for answer in answers]
    if tenant is not None and answers:
        if not output.emitted(context, answers[0], names):
            _one(answers[0])
    elif output.emitted(context, answers, names):
        pass
    elif answers:
        output.table(COLUMNS, [_row(answer) for answer in answers])
        troubles = [trouble for answer in answers for trouble in _troubles(answer)]
        for trouble in troubles[:_TROUBLES]:
            output.note(trouble)
        if len(troubles) > _TROUBLES:
            output.note(f"… and {len(troubles) - _TROUBLES} more: claw-runtime status TENANT")
    else:
        output.note(none)


def _row(answer: Row) -> tuple[object, ...]:
    endpoint = (answer["endpoints"] or {}).get("http", "-")
    return answer["tenantId"], _state(answer), answer["poolId"] or "-", endpoint, _generation(answer), _ago(answer)


def _state(answer: Row) -> str:
    if answer["health"] == "unhealthy":
        return "unhealthy"
    if restart := answer["restart"]:
        return "crash-loop" if restart["reason"] == "crash-loop" else "restarting"
    return str(answer["state"])


def _generation(answer: Row) -> object:
    """The generation of the local tree; empty without a tree, since the store may be newer."""
    return "-" if answer["state"] == "cold" else answer["syncStatus"]["generation"] or "-"


def _ago(answer: Row) -> str:
    """A time of day would make the table wider than a terminal; `status TENANT` and JSON have it."""
    return "-" if answer["since"] is None else f"{_age(answer['since'])} ago"


def _age(at: str) -> str:
    seconds = max(0, round(time.time() - datetime.fromisoformat(at).timestamp()))
    return f"{seconds} s" if seconds < 60 else format_duration(seconds)


def _unsaved(sync: Row) -> str | None:
    """Since when a running tenant's commits have failed, and why; None when they do not."""
    if sync["unsavedSince"] is None:
        return None
    lost = "another runtime has taken it over: " if sync["leaseLost"] else ""
    return f"not saved for {_age(sync['unsavedSince'])}: {lost}{sync['error']}"


def _left_out(sync: Row) -> str | None:
    """What the last commit left out or stored otherwise; None when it was nothing."""
    if not sync["leftOut"]:
        return None
    names = "; ".join(sync["leftOutNames"])
    more = f"; and {count} more" if (count := sync["leftOut"] - len(sync["leftOutNames"])) else ""
    return f"{output.counted(sync['leftOut'], 'name')} left out or stored otherwise: {names}{more}"


def _saved(sync: Row) -> str | None:
    """When the tenant's state was saved last, and what is not in it."""
    saved = f"{sync['lastSync']}, {_age(sync['lastSync'])} ago" if sync["lastSync"] else None
    return "; ".join(part for part in (saved, _left_out(sync)) if part) or None


def _unhealthy(answer: Row) -> str | None:
    """What the probes of a running tenant miss, and how to restart it; None while they succeed."""
    if answer["health"] != "unhealthy":
        return None
    tenant = answer["tenantId"]
    return f"unhealthy: {answer['missing']}; to restart it, claw-runtime release {tenant} --no-affinity, then claim it"


def _troubles(answer: Row) -> list[str]:
    """What a table has no room for: one line each."""
    sync = answer["syncStatus"]
    restart = sync["error"] if answer["restart"] else None
    said = (_unhealthy(answer), _unsaved(sync), _left_out(sync), restart)
    return [f"{answer['tenantId']}: {told}" for told in said if told]


AFTER = {
    "reboot": "after a reboot of the machine",
    "ended": "after its program failed",
    "out-of-memory": "after its program ran out of memory",
    "port-lost": "after its port was lost",
}
"""Why the daemon claims a tenant by itself, in words."""


def _restart(answer: Row) -> str | None:
    """The claim that the daemon is about to make, or has made; None when there is neither."""
    if answer["restarted"]:
        return f"claimed again {AFTER.get(answer['restarted'], answer['restarted'])}"
    restart = answer["restart"]
    if restart is None:
        return None
    if restart["reason"] == "crash-loop":
        return "none: it stays down until it is claimed"
    after = AFTER.get(restart["reason"], restart["reason"])
    when = f"at {restart['nextAt']}" if restart["nextAt"] else "now"
    return f"claimed again {when}, {after}; failures in a row: {restart['failures']}"


def _view(view: Row | None) -> str | None:
    if view is None:
        return None
    left_out = f", {view['leftOut']} left out" if view["leftOut"] else ""
    error = f"; {view['error']}" if view["error"] else ""
    return f"generation {view['generation']}, {view['files']} files{left_out}{error}"


def _one(answer: Row) -> None:
    output.fields(
        {
            "tenant": answer["tenantId"],
            "state": answer["state"],
            "pool": answer["poolId"],
            "endpoint": (answer["endpoints"] or {}).get("http"),
            "address": answer["url"],
            "health": answer["health"],
            "missing": answer["missing"],
            "container": (answer["containerId"] or "")[:12],
            "grew from": None if (generation := _generation(answer)) == "-" else f"generation {generation}",
            "since": answer["since"],
            "active": answer["lastActivity"],
            "restart": _restart(answer),
            "saved": _saved(answer["syncStatus"]),
            "view": _view(answer["plainView"]),
            "image": answer["image"],
            "metadata": output.one_line(answer["metadata"]) if answer["metadata"] else None,
            "error": _unsaved(answer["syncStatus"]) or answer["syncStatus"]["error"],
        }
    )
    if told := _unhealthy(answer):
        output.note(told)
