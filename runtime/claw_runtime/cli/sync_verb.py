"""`claw-runtime sync`."""

import click

from claw_runtime.cli import output
from claw_runtime.cli.arguments import Tenant, tenant_argument, typed_path
from claw_runtime.cli.sync import moving, state
from claw_runtime.errors import RestoreFailed


@click.group("sync")
def command() -> None:
    """Tenants' state in the object store."""


generation_option = click.option(
    "-g", "--generation", type=click.IntRange(1), help="Use this generation, not the newest."
)


@command.command("list")
@tenant_argument
@generation_option
@output.form_option
@click.pass_obj
def list_files(context: output.Context, tenant: str, generation: int | None) -> None:
    """List the files of a tenant's saved state.

    In a PATH, a backslash is `\\\\`, a line break `\\n`, and a byte that cannot be printed `\\x` with two digits.
    `sync cat` and `snapshot restore --path` accept these.

    \b
    Examples:
      claw-runtime sync list alice
      claw-runtime sync list alice --generation 3 -o json
    """
    answer = context.client().get(f"/api/v1/tenants/{tenant}/files", generation=generation)
    if output.emitted(context, answer, [entry["quoted"] for entry in answer["files"]]):
        return
    rows = [(f["mode"], f["size"], f["modified"], f["kind"], _name(f)) for f in answer["files"]]
    output.table(("MODE", "BYTES", "MODIFIED", "KIND", "PATH"), rows)
    output.note(f"{tenant}: generation {answer['generation']}, {len(rows)} {'entry' if len(rows) == 1 else 'entries'}")


def _name(entry: dict) -> str:  # type: ignore[type-arg]
    if entry["type"] == "link":
        return f"{entry['quoted']} -> {entry['target']}"
    return f"{entry['quoted']}/" if entry["type"] == "directory" else str(entry["quoted"])


@command.command("cat")
@tenant_argument
@click.argument("path")
@generation_option
@click.pass_obj
def cat(context: output.Context, tenant: str, path: str, generation: int | None) -> None:
    """Print one file of a tenant's saved state, byte for byte.

    PATH is as `sync list` prints it; put it into single quotes if it has a backslash.

    \b
    Examples:
      claw-runtime sync cat alice workspace/SOUL.md
    """
    inside = typed_path(path).lstrip("/")
    if not inside or {".", ".."} & set(inside.split("/")):
        raise click.BadParameter("a path inside the state cannot contain '.' or '..'", param_hint="PATH")
    url = f"/api/v1/tenants/{tenant}/content"
    for piece in context.client().stream(url, path=inside, generation=generation):
        output.raw(piece)


@command.command("rekey")
@click.argument("tenants", nargs=-1, type=Tenant())
@output.form_option
@click.pass_obj
def rekey(context: output.Context, tenants: tuple[str, ...]) -> None:
    """Wrap tenants' keys with the newest of the operator's keys.

    Without TENANTS, wraps the keys of all. First put the new key before the old one in the file of encryption_key_file,
    and restart the daemon; afterwards the old line may be removed. State itself is not written again.

    \b
    Examples:
      claw-runtime sync rekey
      claw-runtime sync rekey alice bob
    """
    answer = context.client().post("/api/v1/keys/rewrap", {"tenants": list(tenants)})
    if not output.emitted(context, answer, []):
        output.table(("WRAPPED", "CURRENT", "FAILED"), [(answer["wrapped"], answer["current"], len(answer["failed"]))])
    if answer["failed"]:
        first = answer["failed"][0]
        raise RestoreFailed(
            f"{len(answer['failed'])} tenants' keys were not changed",
            why=f"{first['tenantId']}: {first['why']}",
            hint="keep the old line in the operator's key file until no key fails",
        )


for verb in (
    state.status,
    moving.push,
    moving.pull,
    state.history,
    state.verify,
    moving.export,
    moving.bring,
    state.gc,
    state.clean,
):
    command.add_command(verb)
