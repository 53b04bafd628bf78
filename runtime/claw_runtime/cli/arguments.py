"""Parameter types of verbs: tenants, pools and durations, with their shell completion.

Completion asks the daemon. Without a daemon, or with a slow or old one, it completes nothing and prints nothing.
"""

import json
import re
from typing import TYPE_CHECKING, Any

import click

from claw_runtime.cli.output import Context
from claw_runtime.errors import ClawError
from claw_runtime.tenancy import TenantId, tenant_id
from claw_runtime.units import duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.shell_completion import CompletionItem

PATIENCE = 0.5
"""Seconds that completion waits for the daemon."""

STATES = ("cold", "claiming", "active", "releasing", "kept", "frozen", "parked")
"""States of a tenant, as ports.TenantState, whose import would slow completion down."""


_PLAIN = str.maketrans("", "", "-_.")
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")


class Tenant(click.ParamType[TenantId]):
    """A tenant id; `InvalidTenantId` for any other text. Completes with tenants in one of `states`, or with all."""

    name = "tenant"

    def __init__(self, *states: str) -> None:
        self._states = states

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> TenantId:  # noqa: ARG002
        return tenant_id(value)

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> "list[CompletionItem[str]]":
        found = _asked(ctx, "/api/v1/tenants")
        wanted = [one for one in found if not self._states or one.get("state") in self._states]
        return _items(incomplete, [(one.get("tenantId"), one.get("state")) for one in wanted])


class Pool(click.ParamType[str]):
    """A pool's id, completed with those of the daemon."""

    name = "text"

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> "list[CompletionItem[str]]":
        return _items(incomplete, [(pool.get("id"), pool.get("image")) for pool in _asked(ctx, "/api/v1/pools")])


class Duration(click.ParamType[float]):
    """Seconds, written as `30`, `90s`, `10m` or `1h30m`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return duration(float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Object(click.ParamType[dict[str, Any]]):
    """A JSON object."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        try:
            found = json.loads(value)
        except ValueError as error:
            self.fail(f"{value!r} is not JSON: {error}.", param, ctx)
        except RecursionError:
            self.fail("the JSON is nested too deeply.", param, ctx)
        if not isinstance(found, dict):
            self.fail(f'{value!r} is not a JSON object such as \'{{"plan": "gold"}}\'.', param, ctx)
        return found


LIVE = Tenant("active")
"""A tenant for verbs that need its container."""

tenant_argument = click.argument("tenant", type=Tenant())
live_argument = click.argument("tenant", type=LIVE)


def typed_path(path: str) -> str:
    """A path of a state as it was typed; bytes that are not UTF-8, which a shell may complete, are escaped."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def told_of(
    ctx: click.Context, path: str, incomplete: str, names: "Callable[[dict[str, Any]], list[tuple[str, str]]]"
) -> "list[CompletionItem[str]]":
    """Completions from one of the daemon's answers; none if the answer has another form."""
    try:
        return _items(incomplete, list(names(_answered(ctx, path))))
    except (AttributeError, KeyError, TypeError):
        return []


def _asked(context: click.Context, path: str) -> list[dict[str, Any]]:
    """A list from the daemon, or an empty one."""
    answer = _answered(context, path)
    return [one for one in answer if isinstance(one, dict)] if isinstance(answer, list) else []


def _answered(context: click.Context, path: str) -> Any:
    given = context.find_root().params  # of a line that is not finished, which no verb has seen
    try:
        return Context(home=given.get("home"), config=given.get("config")).client(timeout=PATIENCE).get(path)
    except (ClawError, OSError):
        return None


def _items(incomplete: str, found: list[tuple[Any, Any]]) -> "list[CompletionItem[str]]":
    """Items with this prefix that a shell can take as one plain word."""
    from click.shell_completion import CompletionItem

    return [
        CompletionItem(name, help=str(told))
        for name, told in found
        if isinstance(name, str) and name.startswith(incomplete) and name.translate(_PLAIN).isalnum()
    ]
