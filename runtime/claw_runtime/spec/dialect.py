"""Converts the second dialect of workload files to the first before validation, with one hint for each old form.

Some files have `resources` for `deploy.resources`, `security.user` for `user`, milliseconds in keys that end in `_ms`
or `Ms`, memory as a number of MiB, and custom volumes as a list. Older files have the tiers' former names. Positions
move with their values, so that a later error still names the line in the file.
"""

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from claw_runtime import units
from claw_runtime.spec.lifecycle import PolicyFile, PoolFile
from claw_runtime.spec.marks import Hint, Mark, Marked, Place, UnreadableYaml
from claw_runtime.spec.shapes import Closed
from claw_runtime.spec.sync import MappingFile, RetentionFile, SinkFile, SyncLimitsFile, SyncPolicyFile
from claw_runtime.spec.workload import SMALLEST_MEMORY, HealthcheckFile

MOVED: Mapping[Place, Place] = {
    ("resources",): ("deploy", "resources"),
    ("security", "user"): ("user",),
}
"""Place in the second dialect → place in the first."""

FORMER_TIERS: Mapping[str, str] = {"slot": "created", "parked": "entrypoint", "waiting": "interpreter"}
"""Former name of a tier → present name. A tenant at rest may be `parked` too: that name has not changed."""

SECTIONS: Mapping[Place, type[Closed]] = {
    ("pool",): PoolFile,
    ("policy",): PolicyFile,
    ("sync", "sink"): SinkFile,
    ("sync", "policy"): SyncPolicyFile,
    ("sync", "retention"): RetentionFile,
    ("sync", "limits"): SyncLimitsFile,
    ("healthcheck",): HealthcheckFile,
}
"""Sections whose keys may be in camelCase, or end in their unit."""

UNITS = {"_ms": "ms", "_seconds": "s", "_secs": "s"}
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
DURATIONS = frozenset(
    {"interval", "timeout", "ready_timeout", "start_period", "drain_timeout", "min_running", "min_warm"}
)
DURATIONS |= {"idle_timeout", "file_idle_ttl", "affinity_timeout", "time"}
"""Keys that hold a duration, wherever they are."""


def modern(marked: Marked) -> tuple[Marked, list[Hint]]:
    """The file in the first dialect, and hints about old forms.

    Raises:
        UnreadableYaml: The file sets the same thing in both dialects.
    """
    reader = _Reader(marked)
    reader.run()
    return Marked(data=reader.data, values=reader.values, keys=reader.keys), reader.hints


class _Reader:
    def __init__(self, marked: Marked) -> None:
        self.data: dict[str, Any] = deepcopy(marked.data)
        self.values, self.keys = dict(marked.values), dict(marked.keys)
        self.hints: list[Hint] = []

    def run(self) -> None:
        self._memory()
        for old, new in MOVED.items():
            if self._parent(old) is not None:
                self._move(old, new)
                self._hint(new, f"{dotted(old)} is written {dotted(new)}")
        if self.data.get("security") == {}:
            del self.data["security"]
        for section, model in SECTIONS.items():
            self._keys_of(section, model)
        self._tiers()
        mappings = self._get(("sync", "mappings"))
        for number in range(len(mappings) if isinstance(mappings, list) else 0):
            self._keys_of(("sync", "mappings", number), MappingFile)
        for place in self._duration_places():
            self._duration(place)
        self._custom_volumes()

    # --- forms ---

    def _memory(self) -> None:
        """A plain number in the second dialect is MiB, where bytes would be less than anything can run in."""
        place = ("resources", "limits", "memory")
        parent = self._parent(place)
        if parent is None:
            return
        number = parent["memory"]
        if isinstance(number, int) and not isinstance(number, bool) and 0 < number < SMALLEST_MEMORY:
            parent["memory"] = f"{number}m"
            self._hint(place, f"memory {number} is taken as MiB: write {number}m", key=False)

    def _keys_of(self, section: Place, model: type[Closed]) -> None:
        mapping = self._get(section)
        if not isinstance(mapping, dict):
            return
        known = model.model_fields
        for key in [key for key in mapping if key not in known]:
            name, value = _CAMEL.sub("_", key).lower(), mapping[key]
            unit = next((unit for suffix, unit in UNITS.items() if name.endswith(suffix)), "")
            if unit:
                name = name.rpartition("_")[0]
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if name not in known or (unit and not (number and name in DURATIONS)):
                continue
            self._move((*section, key), (*section, name))
            if unit:
                mapping[name] = f"{value}{unit}"
            told = f": {_written(value, unit)}" if unit else ""
            self._hint((*section, name), f"{dotted((*section, key))} is written {name}{told}")

    def _tiers(self) -> None:
        """The former words of the tiers."""
        warmth: Place = ("pool", "warmth")
        for old, new in FORMER_TIERS.items():
            if self._parent((*warmth, old)) is not None:
                self._move((*warmth, old), (*warmth, new))
                self._hint((*warmth, new), f"{dotted((*warmth, old))} is called {new} now")

    def _duration_places(self) -> Iterator[Place]:
        for section, model in SECTIONS.items():
            yield from ((*section, name) for name in model.model_fields if name in DURATIONS)
        for at in ("post_claim", "pre_release"):
            hooks = self._get(("hooks", at))
            yield from (
                ("hooks", at, number, "timeout") for number in range(len(hooks) if isinstance(hooks, list) else 0)
            )

    def _duration(self, place: Place) -> None:
        """A number without a unit: seconds, except where the second dialect counts milliseconds."""
        parent = self._parent(place)
        if parent is None:
            return
        value, unit = parent[place[-1]], "s"
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
            return
        if place == ("sync", "policy", "interval"):
            unit = "ms"
            parent[place[-1]] = f"{value}ms"
        words = "milliseconds" if unit == "ms" else "seconds"
        self._hint(place, f"{dotted(place)} {value} is taken as {words}: write {_written(value, unit)}", key=False)

    def _custom_volumes(self) -> None:
        """A list of volumes with names, in place of names with volumes."""
        volumes = self._get(("volumes",))
        if not isinstance(volumes, dict) or not isinstance(volumes.get("custom"), list):
            return
        named = {}
        for number, item in enumerate(volumes["custom"]):
            place: Place = ("volumes", "custom", number)
            if not isinstance(item, dict) or not isinstance(item.get("name"), str):
                raise UnreadableYaml(f"{dotted(place)} has no name", self.values[place], "write volumes: {NAME: {…}}")
            name = item.pop("name")
            if name in volumes or name in named:
                raise UnreadableYaml(
                    f"the volume {name!r} again", self.values[(*place, "name")], "keep only one of them"
                )
            named[name] = item
            own = "source" not in item
            if own:
                item["per_tenant"] = True
            self._moved_marks(place, ("volumes", name))
            told = f"{name}: {{target: …, per_tenant: true}}" if own else f"{name}: {{source: …, target: …}}"
            self._hint(("volumes", name), f"{dotted(place)} is written {told}", key=False)
        del volumes["custom"]
        volumes |= named

    # --- moving ---

    def _get(self, place: Place) -> Any:
        current: Any = self.data
        for part in place:
            if isinstance(part, int):
                current = current[part] if isinstance(current, list) and part < len(current) else None
            else:
                current = current.get(part) if isinstance(current, dict) else None
        return current

    def _parent(self, place: Place) -> Any:
        """The mapping in which the last part of a place is; None when it is not."""
        parent = self._get(place[:-1])
        return parent if isinstance(parent, dict) and place[-1] in parent else None

    def _move(self, old: Place, new: Place) -> None:
        """Move a value and its positions. Raises `UnreadableYaml` when both places have one."""
        if self._parent(new) is not None:
            raise UnreadableYaml(f"{dotted(old)} and {dotted(new)} set the same", self.keys[old], f"keep {dotted(new)}")
        value, target = self._parent(old).pop(old[-1]), self._get(new[:-1])
        if not isinstance(target, dict):
            target = self.data
            for part in new[:-1]:
                if not isinstance(target.setdefault(str(part), {}), dict):
                    self.data[str(old[0])] = value  # the model refuses both, at their own places
                    return
                target = target[str(part)]
        target[str(new[-1])] = value
        self._moved_marks(old, new)

    def _moved_marks(self, old: Place, new: Place) -> None:
        for marks in (self.values, self.keys):
            marks |= {new + place[len(old) :]: mark for place, mark in marks.items() if place[: len(old)] == old}

    def _hint(self, place: Place, what: str, *, key: bool = True) -> None:
        mark: Mark | None = self.keys.get(place) if key else self.values.get(place)
        if mark is not None:
            self.hints.append(Hint(mark=mark, kind="deprecated", what=what))


def _written(value: float, unit: str) -> str:
    """A number with a unit, and what that is when it is not plain to see."""
    text = f"{value}{unit}"
    try:
        seconds = units.duration(text)
    except ValueError:
        return text
    rounded = units.format_duration(seconds).replace(" ", "").replace("min", "m").replace(".0", "")
    return rounded if units.duration(rounded) == seconds else text


def dotted(place: Place) -> str:
    """A place as people write it: `ports[0].container`."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
