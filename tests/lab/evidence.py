"""The table that `make lab` leaves: platform by check."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

_VERDICTS = {"passed": "ok", "failed": "**failed**", "skipped": "not run"}


def write(path: Path, reports: Iterable[pytest.TestReport], platforms: Iterable[str]) -> None:
    """Write a Markdown table of what each test found on each platform, with its seconds.

    Args:
        path: The file; its directory is made.
        reports: Reports of tests whose ids contain a platform, such as `test_start.py::test_it_boots[trixie]`.
        platforms: The columns.
    """
    columns = tuple(platforms)
    rows: dict[str, dict[str, str]] = {}
    for report in reports:
        name, _, parameters = report.nodeid.rpartition("::")[2].partition("[")
        words = parameters.removesuffix("]").split("-")
        check = " ".join(
            [name.removeprefix("test_").replace("_", " "), *(word for word in words if word not in columns)]
        )
        for platform in columns:
            if platform in words:
                rows.setdefault(check, {})[platform] = f"{_VERDICTS[report.outcome]}, {report.duration:.1f} s"
    lines = [f"| check | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    lines += [f"| {check} | {' | '.join(row.get(one, '') for one in columns)} |" for check, row in rows.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("# Laboratory\n\n" + "\n".join(lines) + "\n")


def add(name: str, heading: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write another table beside the first, if `make lab` wants evidence."""
    if path := os.environ.get("CLAW_LAB_EVIDENCE"):
        lines = [" | ".join(columns), "|".join(["---"] * len(columns)), *(" | ".join(row) for row in rows)]
        table = "\n".join(f"| {line} |" for line in lines)
        target = Path(path).with_name(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(f"# {heading}\n\n{table}\n")
