"""All errors of workload files, each and together: what `up` would refuse, without starting anything."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from claw_runtime.errors import InvalidSpec
from claw_runtime.spec import filters, loader, plan
from claw_runtime.spec.advice import located
from claw_runtime.spec.contract import Promise
from claw_runtime.spec.loader import Document
from claw_runtime.spec.marks import Hint, Mark
from claw_runtime.spec.plan import Workload
from claw_runtime.spec.sink import common_sink

_PLACED = re.compile(r":(\d+):(\d+): (.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """A finding about a file: `kind` is `error` or a hint's; `mark` is None when it concerns no particular line."""

    kind: str
    mark: Mark | None
    what: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The findings of one file.

    Attributes:
        id: Of the workload, None when the file could not be read.
        whole: Whether port, readiness and mounts were checked too, for which the image's contract may be needed.
    """

    path: Path
    id: str | None
    whole: bool
    remarks: tuple[Remark, ...]

    @property
    def errors(self) -> tuple[Remark, ...]:
        """Findings that `up` refuses."""
        return tuple(remark for remark in self.remarks if remark.kind == "error")

    def told(self, remark: Remark) -> str:
        """A finding as one line that begins with its position."""
        place = f"{self.path}:{remark.mark.line}:{remark.mark.column}" if remark.mark else str(self.path)
        return f"{place}: {remark.what}" + (f" ({remark.hint})" if remark.hint else "")


def check(paths: Sequence[Path], promise: Promise | None = None) -> list[Report]:
    """Check each file, and all of them together.

    Args:
        promise: The contract of the image of all these files; None takes what `contract:` in a file names, and checks
            a file without one as far as it says everything itself.
    """
    documents: dict[str, Document] = {}
    reports = []
    for path in paths:
        document, workload, found = None, None, []
        try:
            document = loader.load(path)
            if (other := documents.setdefault(document.workload.id, document)) is not document:
                raise document.refusal(
                    ("id",),
                    f"id {document.workload.id!r} is taken",
                    why=f"{other.path} has the same id",
                    hint="give each workload a different id",
                )
            common_sink(documents)
            filters.require(document)
            workload = planned(document, promise)
            whole = workload is not None
        except InvalidSpec as error:
            found, whole = _errors(path, error), False
            if document is not None and documents.get(document.workload.id) is document:
                del documents[document.workload.id]  # otherwise this file's error would count against the next one
        hints = [Remark(kind=hint.kind, mark=hint.mark, what=hint.what) for hint in _hints(document, workload)]
        reports.append(
            Report(
                path=path,
                id=document.workload.id if document else None,
                whole=whole,
                remarks=(*found, *hints),
            )
        )
    return reports


def _hints(document: Document | None, workload: Workload | None) -> list[Hint]:
    if document is None:
        return []
    late = located(document.workload, document.marked, workload.state_target) if workload else []
    return sorted((*document.hints, *late), key=lambda hint: (hint.mark.line, hint.mark.column))


def planned(document: Document, promise: Promise | None = None) -> Workload | None:
    """A file merged with its contract, where that is known or not needed; else None. Raises `InvalidSpec`."""
    file = document.workload
    if promise is not None:
        return plan.plan(document, promise)
    if file.contract is not None or ("state" in file.volumes and (file.healthcheck.path or file.healthcheck.test)):
        return plan.make(document)
    return None


def _errors(path: Path, error: InvalidSpec) -> list[Remark]:
    """The problems of a refusal one by one; only the first has a hint."""
    problems: list[str] = error.facts.get("problems") or [error.brief]
    found = []
    for number, problem in enumerate(problems):
        rest = problem.removeprefix(str(path))
        placed = _PLACED.fullmatch(rest)
        what = placed[3] if placed else rest.removeprefix(": ")
        if number == 0 and "problems" not in error.facts and error.why:
            what += f": {error.why}"
        mark = Mark(line=int(placed[1]), column=int(placed[2])) if placed else None
        found.append(Remark(kind="error", mark=mark, what=what, hint=error.hint if number == 0 else ""))
    return found
