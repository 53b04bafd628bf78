"""What systemd itself says of unit files: for tests here, where no manager runs, and for hosts of the laboratory."""

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path


def written(texts: Mapping[str, str], directory: Path) -> list[Path]:
    """The units as files."""
    for name, text in texts.items():
        (directory / name).write_text(text)
    return [directory / name for name in texts]


def complaints(paths: list[Path]) -> str:
    """Every warning of `systemd-analyze --user verify`; empty for units that are in order."""
    environment = {"XDG_RUNTIME_DIR": str(paths[0].parent), **os.environ}
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", *map(str, paths)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return (done.stdout + done.stderr).strip() or ("" if done.returncode == 0 else f"it ended with {done.returncode}")


def exposure(path: Path) -> float:
    """The exposure of a unit by `systemd-analyze security`: 0 is closed, 10 open."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(re.findall(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)[0])
