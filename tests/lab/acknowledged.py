"""What a host has acknowledged to tenants before its power was cut, and whether that is still there."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lab.deeds import FILES


class Lost(AssertionError):
    """Something that was acknowledged is gone, or something is there that was never written."""


@dataclass
class Tenant:
    """One tenant, as its user knows it.

    Attributes:
        certain: Version of each file that a commit has sealed, or that the program has flushed to its disk.
        present: Version of each file that the program has written.
        begun: The newest version that the program may have written.
        generation: The newest generation that an answer named.
    """

    certain: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FILES, 0))
    present: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FILES, 0))
    begun: int = 0
    generation: int = 0


class Acknowledged:
    """All tenants' acknowledged deeds; `hear` takes the lines of deeds.py, in their order."""

    def __init__(self, names: Iterable[str]) -> None:
        self.tenants = {name: Tenant() for name in names}
        self.under_way: dict[str, str] = {}
        self.counts: dict[str, int] = {}

    def hear(self, line: Mapping[str, Any]) -> None:
        """Take one line. Raises `Lost`."""
        name, deed, tenant = line["tenant"], line["deed"], self.tenants[line["tenant"]]
        if line["at"] == "begin":
            self.under_way[name] = deed
            tenant.begun = line.get("version", tenant.begun)
            return
        self.under_way.pop(name, None)
        answer = line.get("answer", {})
        if answer.get("refused"):
            raise Lost(f"the {deed} of {name} was refused: {answer}")
        self.counts[deed] = self.counts.get(deed, 0) + 1
        if deed == "read":
            self._compare(name, tenant, line["found"])
        elif "version" in line:
            tenant.present = dict.fromkeys(FILES, line["version"])
            if deed == "flushed write":
                tenant.certain = dict(tenant.present)
        else:
            if answer["generation"] < tenant.generation:
                raise Lost(f"the {deed} of {name} answers {answer} after generation {tenant.generation}")
            tenant.generation = answer["generation"]
            if deed != "claim":
                tenant.certain = dict(tenant.present)

    def _compare(self, name: str, tenant: Tenant, found: Mapping[str, int | None]) -> None:
        """What a claim has put in place: nothing older than what is certain, and nothing that was never written."""
        for file, least in tenant.certain.items():
            version = found[file]
            if not least <= (version or 0) <= tenant.begun or (version is None and least):
                raise Lost(
                    f"{name} has {found}, but version {least} of {file} is certain and {tenant.begun} is the newest"
                )
        tenant.certain = {file: found[file] or 0 for file in FILES}
        tenant.present = dict(tenant.certain)

    def power_was_cut(self) -> Mapping[str, str]:
        """What was under way at that moment, by tenant; none of it was acknowledged."""
        under_way, self.under_way = dict(self.under_way), {}
        return under_way
