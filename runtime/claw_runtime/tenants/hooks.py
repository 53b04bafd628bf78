"""Hooks: commands of the workload file that run in a tenant's container after a claim and before a release."""

import shlex
from collections.abc import Callable, Sequence

import structlog

from claw_runtime import logs
from claw_runtime.errors import EngineFailed, HookFailed
from claw_runtime.ports import Clock, Engine, ExecResult
from claw_runtime.spec.plan import Hook
from claw_runtime.tenancy import TenantId

log = structlog.get_logger(__name__)

FIRST_WAIT, LAST_WAIT = 0.5, 5.0
"""Seconds between attempts of a hook that is retried; each wait is twice the one before."""
_LAST_LINES, _LAST_CHARACTERS = 5, 500
_NOT_THERE = {126: "the program cannot be executed", 127: "there is no such program in the image"}


def run_hooks(
    engine: Engine,
    container: str,
    hooks: Sequence[Hook],
    *,
    tenant: TenantId,
    phase: str,
    clock: Clock,
    redact: Callable[[str], str] = logs.mask,
) -> None:
    """Run them one after another, with `CLAW_TENANT` and `CLAW_HOOK` (the phase) in their environment.

    Args:
        phase: `post_claim` or `pre_release`.
        redact: Masks secrets in a hook's output before it is reported or logged.

    Raises:
        HookFailed: A hook failed that must not, with the last lines of its standard error; later hooks did not run.
        NotClaimed, EngineUnavailable: There is no container, or no engine, to run hooks in.
    """
    for hook in hooks:
        try:
            _run(engine, container, hook, tenant=tenant, phase=phase, clock=clock, redact=redact)
        except HookFailed as error:
            if hook.on_error != "continue":
                raise
            log.warning("hook failed, continuing", tenant=tenant, phase=phase, hook=hook.command[0], error=str(error))


def _run(
    engine: Engine,
    container: str,
    hook: Hook,
    *,
    tenant: TenantId,
    phase: str,
    clock: Clock,
    redact: Callable[[str], str],
) -> None:
    environment = {"CLAW_TENANT": tenant, "CLAW_HOOK": phase}
    left = hook.retries if hook.on_error == "retry" else 0
    wait = FIRST_WAIT
    while True:
        try:
            said = engine.execute(container, hook.command, environment=environment, timeout=hook.timeout)
            code, why = said.exit_code, _reason(said, hook)
        except EngineFailed as error:
            code, why = None, str(error)
        if not why:
            return
        why = redact(why)
        if not left:
            raise HookFailed(
                f"the {phase} hook {hook.command[0]!r} of {tenant} failed",
                why=why,
                hint=f"try it by hand: claw-runtime exec {tenant} -- {redact(shlex.join(hook.command))}; "
                "or set on_error: continue in the workload file",
                phase=phase,
                exit_code=code,
            )
        log.info("hook failed, retrying", tenant=tenant, phase=phase, hook=hook.command[0], why=why, left=left)
        clock.sleep(wait)
        left, wait = left - 1, min(LAST_WAIT, wait * 2)


def _reason(said: ExecResult, hook: Hook) -> str:
    """Why the hook failed; empty when it succeeded."""
    if said.timed_out:
        reason = f"it took longer than {hook.timeout:g} s and was stopped"
    elif said.exit_code:
        reason = f"exit code {said.exit_code}"
        if known := _NOT_THERE.get(said.exit_code):
            reason = f"{reason}, {known}"
    else:
        return ""
    lines = said.stderr.decode("utf-8", "replace").strip().splitlines()[-_LAST_LINES:]
    return f"{reason}: {' | '.join(lines)[-_LAST_CHARACTERS:]}" if lines else reason
