"""The peer that keeps snapshots of directories: restic, installed or unpacked from Debian's package into the cache."""

import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.fleet import Unavailable
from claw_runtime.objects.seaweedfs import SeaweedFS

DOWNLOAD = 240.0  # seconds that apt may take
PATIENCE = 300.0  # seconds for one command


@dataclass(frozen=True, slots=True, kw_only=True)
class Restic:
    """The program, ready to use one repository in a bucket."""

    path: Path
    environment: Mapping[str, str]

    def run(self, *arguments: str) -> float:
        """One command; seconds of the whole process."""
        began = time.perf_counter()
        subprocess.run(
            [str(self.path), "--quiet", *arguments],
            env=self.environment,
            check=True,
            capture_output=True,
            timeout=PATIENCE,
        )
        return time.perf_counter() - began


def prepared(server: SeaweedFS, bucket: str, place: Path) -> Restic:
    """A new repository in the bucket, with its cache below `place`. Raises `Unavailable`: restic cannot be had here."""
    found = Restic(
        path=_path(),
        environment={
            "PATH": os.environ["PATH"],
            "HOME": str(place),
            "RESTIC_CACHE_DIR": str(place / "restic-cache"),
            "RESTIC_REPOSITORY": f"s3:{server.endpoint}/{bucket}/restic",
            "RESTIC_PASSWORD": "bench",
            "AWS_ACCESS_KEY_ID": server.access_key.reveal(),
            "AWS_SECRET_ACCESS_KEY": server.secret_key.reveal(),
            "AWS_DEFAULT_REGION": "us-east-1",
        },
    )
    found.run("init")
    return found


def _path() -> Path:
    if installed := shutil.which("restic"):
        return Path(installed)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "claw-bench", "restic")
    program = cache / "usr/bin/restic"
    if program.exists():
        return program
    shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir(parents=True)
    try:
        download = ["apt-get", "download", "--quiet", "restic"]
        subprocess.run(download, cwd=cache, check=True, capture_output=True, text=True, timeout=DOWNLOAD)
        [package] = cache.glob("restic_*.deb")
        subprocess.run(["dpkg-deb", "--extract", str(package), str(cache)], check=True, capture_output=True, text=True)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise Unavailable(f"restic is not installed, nor to be had from Debian: {str(said).strip()[-300:]}") from error
    return program
