"""One start's seeding, in order: volumes, plugins, values, and last the configuration that the gateway will read."""

import os

from claw_entrypoint.contract import Contract
from claw_entrypoint.document import dumps, loads
from claw_entrypoint.errors import SeedError
from claw_entrypoint.log import Log
from claw_entrypoint.places import empty, open_directory, write_file
from claw_entrypoint.render import render
from claw_entrypoint.state import generated, plugins, skeleton, sweep
from claw_entrypoint.values import collect


def seed(contract: Contract, environment: dict[str, str], log: Log, prefix: str = "") -> dict[str, str]:
    """Make everything ready for the gateway; a strict log makes every defect the end of the start.

    Returns:
        What the gateway's environment needs because of it.

    Args:
        prefix: Directory that stands for `/` (tests); link targets and argv are not moved there.

    Raises:
        SeedError: Nothing may be started; /config is then empty, never stale.
    """
    skeleton(contract, log, prefix)
    if log.strict:  # a shell beside a running gateway must not take its locks away
        sweep(contract, log, prefix)
    plugins(contract, log, prefix)
    directory = _emptied(contract, log, prefix)
    needs = {}
    try:
        given = collect(contract, environment, log, prefix)
        complete(contract, given, log, prefix)
        if contract.discovery and contract.discovery.value in given:
            from claw_entrypoint.discovery import narrow

            needs = narrow(contract, given, log, prefix)
        document = render(_template(contract, prefix), contract, given, log)
        write_file(contract.template.target.rpartition("/")[2], directory, dumps(document, indent=2).encode() + b"\n")
    except OSError as error:
        raise SeedError(f"cannot write {contract.template.target}: {error.strerror}", _hint(contract)) from error
    finally:
        os.close(directory)
    return needs


def complete(contract: Contract, given: dict[str, str], log: Log, prefix: str = "") -> None:
    """Add what may be made up to the values that were given: defaults and generated ones.

    Raises:
        SeedError: A required value is missing (when strict); all such names are in the one message.
    """
    missing = []
    for value in contract.values.values():
        if value.name in given:
            continue
        made = generated(value, log, prefix) if value.need == "generated" else value.default
        if made is not None:
            given[value.name] = made
        elif value.need == "required":
            missing.append(value.name)
    if missing:
        hint = f"set it in the environment, or name a mounted file in {missing[0]}_FILE"
        log.defect(SeedError(f"required value missing: {', '.join(missing)}", hint))


def _template(contract: Contract, prefix: str) -> object:
    source = contract.template.source
    try:
        with open(prefix + source, encoding="utf-8") as file:
            document = loads(file.read())
    except OSError as error:
        raise SeedError(f"cannot read the template {source}: {error.strerror}", "build the image again") from error
    except ValueError as error:
        raise SeedError(f"the template {source} is not JSON: {error}", "build the image again") from error
    if not isinstance(document, dict):
        raise SeedError(f"the template {source} is not an object", "build the image again")
    return document


def _emptied(contract: Contract, log: Log, prefix: str) -> int:
    """The open directory of the configuration, with nothing left in it from an earlier start."""
    place = contract.template.target.rpartition("/")[0]
    try:
        directory = open_directory(prefix, place, create=True)
        kept = empty(directory)
    except OSError as error:
        raise SeedError(f"cannot use {place}: {error.strerror}", _hint(contract)) from error
    if kept:
        log.warning("config.kept", path=place, entries=kept)
    return directory


def _hint(contract: Contract) -> str:
    place = contract.template.target.rpartition("/")[0]
    return f"run with --tmpfs {place}:rw,mode=1777, and mount nothing at {contract.template.target} itself"
