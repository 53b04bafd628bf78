"""Copies of what a tenant made impossible on purpose: times that no file system of this host can hold."""

import io
import tarfile
from pathlib import Path

import pytest
from claw_runtime.interchange.untar import unpack


@pytest.mark.parametrize("time", ["inf", "-inf", "nan", "9e99", str(2**62), str(-(2**62)), "-1"])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE])
def test_no_time_keeps_a_file_from_being_copied(tmp_path: Path, kind: bytes, time: str) -> None:
    """A file with a time that cannot be is copied all the same, and those after it too."""
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w", format=tarfile.PAX_FORMAT) as made:
        made.addfile(_entry("d", tarfile.DIRTYPE, {}))
        made.addfile(_entry("d/odd", kind, {"mtime": time}))
        made.addfile(_entry("d/z", tarfile.REGTYPE, {}))
    body.seek(0)

    copied = unpack(body, tmp_path / "copy", name="d")

    assert copied.skipped == []
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == ["odd", "z"]


def _entry(name: str, kind: bytes, headers: dict[str, str]) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname, info.pax_headers = kind, 0o700, "z" if kind == tarfile.SYMTYPE else "", headers
    return info
