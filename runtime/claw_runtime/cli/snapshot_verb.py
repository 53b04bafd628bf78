"""`claw-runtime snapshot`."""

import sys
import time
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from claw_runtime.cli import output
from claw_runtime.cli.arguments import Tenant, tenant_argument, told_of, typed_path
from claw_runtime.cli.snapshot_recover import recover
from claw_runtime.units import duration, format_duration, format_size

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

Answer = dict[str, Any]

FIRST = 20
"""Changes that are shown before the confirmation; --dry-run shows all."""


class Wanted(click.ParamType[str]):
    """A generation's number, `latest`, a tag, or `@` and a time, as in the API."""

    name = "snapshot"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if text.startswith("@"):
            return f"@{self._time(text[1:], param, ctx)}"
        if not text or not text.isascii() or not text.replace("-", "").replace("_", "").replace(".", "").isalnum():
            self.fail(f"{value!r} is not a generation, tag or @TIME.", param, ctx)
        return text

    def _time(self, text: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """A duration unchanged; a time with its zone, since the CLI and the daemon may have different zones."""
        try:
            duration(text)
        except ValueError:
            try:
                return datetime.fromisoformat(text).astimezone().isoformat()
            except (ValueError, OverflowError):
                self.fail(f"{text!r} is not a time such as 2h or 2026-11-20T10:00.", param, ctx)
        return text

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> "list[CompletionItem[str]]":
        tenant = ctx.params.get("tenant")
        return told_of(ctx, f"/api/v1/tenants/{tenant}/snapshots", incomplete, _names) if tenant else []


class Moment(Wanted):
    """A time, with or without `@`, or a generation's number."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        bare = text.isascii() and text.isdigit()
        return super().convert(text if bare or text.startswith("@") else f"@{text}", param, ctx)


def _names(answer: Answer) -> list[tuple[str, str]]:
    """Names of a tenant's snapshots, and when each was sealed."""
    found = answer.get("snapshots", [])
    return [
        (name, output.clean(one["created"])) for one in found for name in (str(one["generation"]), one["tag"]) if name
    ]


snapshot_argument = click.argument("snapshot", type=Wanted())


@click.group("snapshot")
def command() -> None:
    """Generations of a tenant's state: list, pin, restore.

    SNAPSHOT is a generation's number, `latest`, a tag, or a time: `@2h` ago, `@2026-11-20T10:00` on this host's clock,
    for the newest that was sealed until then.
    """


command.add_command(recover)


# --- looking ---


@command.command("list")
@tenant_argument
@output.form_option
@click.pass_obj
def list_snapshots(context: output.Context, tenant: str) -> None:
    """List the generations that can be restored.

    \b
    Examples:
      claw-runtime snapshot list alice
      claw-runtime snapshot list alice -o name
    """
    answer = context.client().get(f"/api/v1/tenants/{tenant}/snapshots")
    found = answer["snapshots"]
    if output.emitted(context, answer, [one["generation"] for one in found]):
        return
    rows = [
        (one["generation"], _when(one), _ago(one), one["files"], format_size(one["bytes"]), _note(one)) for one in found
    ]
    output.table(("GENERATION", "SEALED", "AGE", "FILES", "SIZE", "NOTE"), rows)


@command.command("show")
@tenant_argument
@click.argument("snapshot", type=Wanted(), default="latest")
@output.form_option
@click.pass_obj
def show(context: output.Context, tenant: str, snapshot: str) -> None:
    """Show one generation: what wrote it, what is in it; the newest by default.

    \b
    Examples:
      claw-runtime snapshot show alice
      claw-runtime snapshot show alice @2h
    """
    answer = context.client().get(_url(tenant, snapshot))
    if output.emitted(context, answer, [answer["generation"]]):
        return
    output.fields(
        {
            "generation": answer["generation"],
            "note": _note(answer),
            "sealed": f"{_when(answer)}, {_ago(answer)} ago",
            "parent": answer["parent"],
            "application": answer["application"],
            "image": answer["imageDigest"],
            "files": f"{answer['files']}, {format_size(answer['bytes'])}",
            "databases": answer["databases"] or None,
            "directories": answer["directories"],
            "links": answer["links"] or None,
            "stored": f"{output.counted(answer['packs'], 'pack')}, {format_size(answer['storedBytes'])}",
        }
    )
    if answer["biggest"]:
        output.table(("SIZE", "PATH"), [(format_size(one["bytes"]), one["path"]) for one in answer["biggest"]])


@command.command("diff")
@tenant_argument
@snapshot_argument
@click.argument("other", type=Wanted(), default="latest")
@output.form_option
@click.pass_obj
def diff(context: output.Context, tenant: str, snapshot: str, other: str) -> None:
    """Show what changed from one generation to another, or to the newest.

    A time alone is no change.

    \b
    Examples:
      claw-runtime snapshot diff alice 5
      claw-runtime snapshot diff alice @1d before-upgrade
    """
    answer = context.client().get(f"{_url(tenant, snapshot)}/diff", to=other)
    changes = answer["changes"]
    if output.emitted(context, answer, [one["quoted"] for one in changes]):
        return
    _table(changes)
    output.note(f"{tenant}: generation {answer['before']} to {answer['after']}: {_summary(changes)}")


# --- keeping ---


@command.command("pin")
@tenant_argument
@click.argument("snapshot", type=Wanted(), default="latest")
@output.form_option
@click.pass_obj
def pin(context: output.Context, tenant: str, snapshot: str) -> None:
    """Keep a generation despite retention; the newest by default.

    \b
    Examples:
      claw-runtime snapshot pin alice
      claw-runtime snapshot pin alice 5
    """
    _kept(context, tenant, context.client().post(f"{_url(tenant, snapshot)}/pin"))


@command.command("tag")
@tenant_argument
@snapshot_argument
@click.argument("tag")
@output.form_option
@click.pass_obj
def tag(context: output.Context, tenant: str, snapshot: str, tag: str) -> None:
    """Pin a generation under a name.

    The same tag on several generations means the newest of them.

    \b
    Examples:
      claw-runtime snapshot tag alice latest before-upgrade
    """
    _kept(context, tenant, context.client().post(f"{_url(tenant, snapshot)}/pin", {"tag": tag}))


@command.command("unpin")
@tenant_argument
@snapshot_argument
@output.form_option
@click.pass_obj
def unpin(context: output.Context, tenant: str, snapshot: str) -> None:
    """Unpin a generation and drop its tag, so that retention applies again.

    \b
    Examples:
      claw-runtime snapshot unpin alice before-upgrade
    """
    _kept(context, tenant, context.client().delete(f"{_url(tenant, snapshot)}/pin"))


# --- going back ---


@command.command("restore")
@tenant_argument
@click.argument("snapshot", type=Wanted(), required=False)
@click.option(
    "--at", type=Moment(), metavar="TIME|GENERATION", help="The newest one sealed before then: 2h, 2026-11-20T10:00."
)
@click.option(
    "--path",
    "paths",
    multiple=True,
    help="Only this file, or this directory and its contents, as `sync list` prints it.  Repeatable.",
)
@click.option("--into", type=Tenant(), metavar="TENANT", help="Copy it into another tenant; the two share nothing.")
@click.option("--replace", is_flag=True, help="Replace that tenant's state, which stays as the previous generation.")
@click.option("--with-logins", is_flag=True, help="With --into: copy the logins of channels too.")
@click.option("--with-secrets", is_flag=True, help="With --into: copy files that hold secrets of TENANT too.")
@click.option("-n", "--dry-run", is_flag=True, help="Only show what would change.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
@output.form_option
@click.pass_obj
def restore(
    context: output.Context,
    tenant: str,
    snapshot: str | None,
    at: str | None,
    paths: tuple[str, ...],
    into: str | None,
    replace: bool,
    with_logins: bool,
    with_secrets: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    """Restore a generation: its content becomes the next generation.

    Nothing is lost: the generations between stay, so the restore can be undone. The tenant must be released first; its
    next claim gets the restored state. On a terminal, shows the changes and asks for confirmation.

    A copy for another tenant leaves the logins of channels out: two programs with one login end each other's. It is
    refused if a file holds a secret of TENANT that the other tenant does not have.

    \b
    Examples:
      claw-runtime snapshot restore alice 5 --dry-run
      claw-runtime snapshot restore alice --at 2h
      claw-runtime snapshot restore alice before-upgrade --path workspace/ --yes
      claw-runtime snapshot restore alice latest --into alice-trial
    """  # fmt: skip
    if (snapshot is None) == (at is None):
        raise click.UsageError("Give one of SNAPSHOT and --at.")
    if (paths and into) or ((replace or with_logins or with_secrets) and not into):
        raise click.UsageError("--replace and --with-… require --into; --path cannot be used with it.")
    url = f"{_url(tenant, snapshot or at or '')}/restore"
    body = {"paths": [typed_path(path) for path in paths], "quoted": True, "into": into, "replace": replace}
    if into:
        body |= {"withLogins": with_logins, "withSecrets": with_secrets}
    client = context.client()
    if dry_run or (not yes and context.form == "text" and sys.stdin.isatty() and sys.stderr.isatty()):
        plan = client.post(url, {**body, "dryRun": True})
        if dry_run:
            _planned(context, plan)
            return
        if plan["changes"]:
            _ask(plan)
    answer = client.post(url, body)
    if output.emitted(context, answer, [answer["generation"] or answer["onto"]]):
        return
    _told(answer)


def _planned(context: output.Context, plan: Answer) -> None:
    if output.emitted(context, plan, [one["quoted"] for one in plan["changes"]]):
        return
    _table(plan["changes"])
    output.note(f"{plan['tenantId']}: {_source(plan)} onto {plan['onto'] or 'nothing'}: {_summary(plan['changes'])}")
    for warning in plan["warnings"]:
        output.note(f"  note: {warning}")


def _ask(plan: Answer) -> None:
    """Show what would change, and ask. Raises `click.Abort` when a person says no."""
    changes = plan["changes"]
    for row in output.table_lines(*_rows(changes[:FIRST])):
        output.note(row)
    if len(changes) > FIRST:
        output.note(f"… and {len(changes) - FIRST} more: --dry-run shows all")
    for warning in plan["warnings"]:
        output.note(f"note: {warning}")
    back = f"back to generation {plan['source']}, as {plan['onto'] + 1}"
    told = f"{plan['tenantId']}: {back}: {_summary(changes)}. Continue?"
    output.confirm(told)


def _told(answer: Answer) -> None:
    tenant = answer["tenantId"]
    if answer["generation"] is None:
        output.line(f"{tenant}: nothing to change, it is as {_source(answer)} was")
        return
    output.line(f"{tenant}: generation {answer['generation']} holds what {_source(answer)} held")
    back = f"; the way back: claw-runtime snapshot restore {tenant} {answer['onto']}" if answer["onto"] else ""
    output.note(f"  {_summary(answer['changes'])}{back}")
    for warning in answer["warnings"]:
        output.note(f"  note: {warning}")


def _source(answer: Answer) -> str:
    of = f" of {answer['sourceTenantId']}" if answer["sourceTenantId"] != answer["tenantId"] else ""
    return f"generation {answer['source']}{of}"


# --- words ---


def _url(tenant: str, snapshot: str) -> str:
    return f"/api/v1/tenants/{tenant}/snapshots/{quote(snapshot, safe='')}"


def _kept(context: output.Context, tenant: str, answer: Answer) -> None:
    if not output.emitted(context, answer, [answer["generation"]]):
        output.line(f"{tenant}: generation {answer['generation']}: {_note(answer) or 'not pinned'}")


def _note(snapshot: Answer) -> str:
    pinned = f"tag {snapshot['tag']}" if snapshot["tag"] else "pinned" if snapshot["pinned"] else ""
    return ", ".join(word for word in ("current" if snapshot["current"] else "", pinned) if word)


def _table(changes: Sequence[Answer]) -> None:
    if changes:
        output.table(*_rows(changes))


def _rows(changes: Sequence[Answer]) -> tuple[Sequence[str], list[Sequence[object]]]:
    rows = [(_change(one), _size(one, "bytesBefore"), _size(one, "bytesAfter"), _path(one)) for one in changes]
    return ("CHANGE", "BEFORE", "AFTER", "PATH"), list(rows)


def _change(change: Answer) -> str:
    what = [word for word in change["what"] if word not in ("content", "time")]
    return f"{change['change']} ({', '.join(what)})" if what else str(change["change"])


def _size(change: Answer, name: str) -> str:
    return "-" if change[name] is None or change["type"] != "file" else format_size(change[name])


def _path(change: Answer) -> str:
    return f"{change['quoted']}/" if change["type"] == "directory" else str(change["quoted"])


def _summary(changes: Sequence[Answer]) -> str:
    kinds = [one["change"] for one in changes]
    told = [f"{kinds.count(kind)} {kind}" for kind in ("added", "removed", "changed") if kind in kinds]
    return ", ".join(told) or "no difference"


def _when(snapshot: Answer) -> str:
    """A time on this host's clock; text from the bucket that is not a time stays unchanged."""
    try:
        return datetime.fromisoformat(snapshot["created"]).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError):
        return str(snapshot["created"])


def _ago(snapshot: Answer) -> str:
    try:
        seconds = max(0, round(time.time() - datetime.fromisoformat(snapshot["created"]).timestamp()))
    except (ValueError, OverflowError):
        return "-"
    return f"{seconds} s" if seconds < 60 else format_duration(seconds)
