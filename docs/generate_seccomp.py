"""Writes strict.json and browser.json of runtime/claw_runtime/seccomp/: `python docs/generate_seccomp.py`.

Their source is groups.py beside them.

tests/unit/seccomp/test_profiles.py fails if a file differs from what this script would write.
"""

import json
from collections.abc import Sequence
from typing import Any

from claw_runtime.seccomp.groups import BROWSER, STRICT, Argument, Group
from claw_runtime.seccomp.profiles import path_of

ENOSYS = 38
GROUPS = {"strict": STRICT, "browser": BROWSER}


def description(groups: Sequence[Group]) -> str:
    """The whole text of a profile, in the form that Podman reads."""
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": ENOSYS,
        "archMap": [{"architecture": f"SCMP_ARCH_{name}", "subArchitectures": []} for name in ("X86_64", "AARCH64")],
        "syscalls": [_rule(group) for group in groups],
    }
    return json.dumps(profile, indent=1) + "\n"


def _rule(group: Group) -> dict[str, Any]:
    rule: dict[str, Any] = {"comment": group.purpose, "names": sorted(group.names), "action": "SCMP_ACT_ALLOW"}
    if group.arguments:
        rule["args"] = [_condition(argument) for argument in group.arguments]
    return rule


def _condition(argument: Argument) -> dict[str, Any]:
    if argument.mask is None:
        return {"index": argument.index, "value": argument.value, "op": "SCMP_CMP_EQ"}
    return {
        "index": argument.index,
        "value": argument.mask,
        "valueTwo": argument.value,
        "op": "SCMP_CMP_MASKED_EQ",
    }


if __name__ == "__main__":
    for name, groups in GROUPS.items():
        path_of(name).write_text(description(groups), encoding="utf-8")
