"""What a start does: wait for its tenant when told to, seed, then become the gateway, or the command given instead."""

import os
from _collections_abc import Callable
from _signal import SIG_DFL, SIGPIPE, SIGXFSZ, signal  # type: ignore[import-not-found]  # `signal` itself needs enum

from claw_entrypoint import contract as contracts
from claw_entrypoint.document import dumps
from claw_entrypoint.errors import SeedError
from claw_entrypoint.log import Log
from claw_entrypoint.seed import seed
from claw_entrypoint.values import scrub

_Execute = Callable[[str, list[str], dict[str, str]], object]


def main(argv: list[str], prefix: str = "") -> int:
    """Replace this process; the exit code when that was not possible.

    Args:
        argv: Empty for the gateway, which must have a whole configuration; `--park TIER` to wait for a tenant first
            (`claw_entrypoint.park`); `--bind` to seed for a program that is already there, and to print the gateway's
            whole environment as one JSON object. Else a command, found through PATH, which a person runs and which no
            defect of the configuration may keep from running.
        prefix: Directory that stands for `/` (tests).

    Returns:
        0 when it was told to end while it waited, or has printed the environment; 78 when seeding failed, 127 when the
        program is not there, 126 when it cannot be run.
    """
    environment = dict(os.environ)
    parks, binds = argv[:1] == ["--park"], argv == ["--bind"]
    log = Log(strict=parks or binds or not argv)
    try:
        contract = contracts.load(prefix + contracts.PLACE)
        if parks:
            from claw_entrypoint import park

            name = park.tier(argv[1:])
            if name != park.ENTRYPOINT:
                waiter = park.waiter(contract, name)
                os.chdir("/")
                return _become(os.execve, waiter, environment | contract.exec.environment, log)
            if not park.wait(prefix + park.gate(contract), log):
                return 0
        needs = seed(contract, environment, log, prefix)
    except SeedError as error:
        if log.strict:
            log.fatal(error)
            return error.exit_code
        log.warning("seed.defect", message=error.brief, hint=error.hint)
        return _become(os.execvpe, argv, environment, log)
    if argv and not log.strict:
        return _become(os.execvpe, argv, environment, log)
    environment = scrub(contract, environment) | contract.exec.environment | needs
    if binds:
        return _print(dumps(environment) + "\n")
    os.chdir("/")  # the gateway reads `.env` where it stands, and must not stand where the tenant writes
    return _become(os.execve, list(contract.exec.argv), environment, log)


def _print(text: str) -> int:
    rest = text.encode()
    while rest:
        rest = rest[os.write(1, rest) :]
    return 0


def _become(execute: _Execute, argv: list[str], environment: dict[str, str], log: Log) -> int:
    for number in (SIGPIPE, SIGXFSZ):  # Python ignores both, and an ignored signal stays ignored over exec
        signal(number, SIG_DFL)
    reason, code = "it came back", 126
    try:
        execute(argv[0], argv, environment)
    except FileNotFoundError as error:
        reason, code = str(error.strerror), 127
    except (OSError, ValueError) as error:
        reason = str(getattr(error, "strerror", error))
    log.line("error", "exec.failed", program=argv[0], reason=reason, exit_code=code)
    return code
