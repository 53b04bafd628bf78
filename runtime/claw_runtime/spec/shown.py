"""A workload as a file: with all defaults filled in, and old forms replaced by new ones.

The result loads without hints about its form and means the same; only secrets are masked.
"""

from typing import Any

from pydantic import BaseModel

from claw_runtime.logs import MASK
from claw_runtime.spec.dialect import DURATIONS
from claw_runtime.spec.loader import Document
from claw_runtime.spec.plan import Workload
from claw_runtime.spec.sync import KEYS

_UNITS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms"))
_SIZES = ((1 << 40, "t"), (1 << 30, "g"), (1 << 20, "m"), (1 << 10, "k"))


def shown(document: Document, workload: Workload | None) -> dict[str, Any]:
    """The file as it was understood, in its own keys.

    Args:
        workload: What file and image make together, None when the image's contract is not known: then only what the
            file itself says is told.
    """
    file = document.workload
    told = _said(file)
    told["environment"] = {name: file.filled(text) for name, text in file.environment.items()}
    told["network"] = file.reach
    told["pool"] |= {"min_size": file.pool.warm}
    told["pool"]["warmth"] |= {"created": file.pool.slots, "tree": file.pool.trees}
    for name in ("network_mode", "networks", "variables"):
        told.pop(name, None)
    if workload is not None:
        _merge(told, workload)
    found: dict[str, Any] = _written(told)
    return found


def _said(model: BaseModel) -> dict[str, Any]:
    """A model's data without unset fields that have no default."""
    return model.model_dump(mode="json", exclude_none=True)


def _merge(told: dict[str, Any], workload: Workload) -> None:
    """Put in what the image promises and what follows from the rest."""
    health, probe = told["healthcheck"], workload.probe
    told["name"] = workload.name
    told["environment"] |= {name: MASK for name in told["environment"] if _secret(name, workload)}
    if workload.port is not None:
        told["ports"] = [{"container": workload.port, "protocol": "tcp"}]
        health.pop("port", None)
    if workload.ready_path:
        health |= {"path": workload.ready_path, "ignore_failing": list(workload.ignore_failing)}
    health |= {
        "ready_timeout": workload.ready_timeout,
        "interval": probe.interval,
        "timeout": probe.timeout,
        "retries": probe.retries,
        "start_period": probe.start_period,
    }
    targets = {"state": workload.state_target, "logs": workload.logs_target, "secrets": workload.values_target}
    volumes = {name: {"target": target} for name, target in targets.items() if target is not None}
    told["volumes"] = {name: volume | told["volumes"].get(name, {}) for name, volume in volumes.items()} | {
        name: volume for name, volume in told["volumes"].items() if name not in volumes
    }
    limits = {"cpus": workload.limits.cpus, "memory": workload.limits.memory, "pids": workload.limits.pids}
    told["deploy"] = {"resources": {"limits": {name: value for name, value in limits.items() if value is not None}}}
    told["policy"]["drain_timeout"] = workload.policy.drain_timeout
    told["sync"]["exclude"], told["sync"]["logins"] = list(workload.exclude), list(workload.logins)


def _secret(name: str, workload: Workload) -> bool:
    allowed = workload.allowlist.get(name)
    return allowed is not None and allowed.secret


def _written(value: Any, name: str = "") -> Any:
    """Durations and sizes with their units, and keys masked."""
    if isinstance(value, dict):
        written = {key: _written(inner, key) for key, inner in value.items() if (key, inner) != ("per_tenant", False)}
        return {key: inner for key, inner in written.items() if inner not in ({}, []) or key == "ignore_failing"}
    if isinstance(value, list):
        return [_written(inner) for inner in value]
    if name in KEYS:
        return MASK
    if name in DURATIONS and isinstance(value, (int, float)):
        return _duration(value)
    return _size(value) if name in ("memory", "size", "body") and isinstance(value, int) else value


def _duration(seconds: float) -> str:
    rest, text = round(seconds * 1000), ""
    if abs(rest - seconds * 1000) > 1e-6:
        return f"{seconds:.9f}s"
    for size, unit in _UNITS:
        count, rest = divmod(rest, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def _size(count: int) -> str:
    return next((f"{count // size}{unit}" for size, unit in _SIZES if count % size == 0 and count), str(count))
