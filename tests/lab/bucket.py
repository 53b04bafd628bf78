"""An S3 server beside hosts in user-mode Linux: on this machine, in their network namespace. It outlives them."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab import hosts
from lab.hosts import STATE, Host

ADDRESS = "10.99.0.1"
SETTINGS = f"""\
bucket = "s3://claw"
endpoint = "http://{ADDRESS}:8333"
access_key = "laboratory"
secret_key = "laboratory"
"""
"""A host's runtime.toml that names it."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """The bucket `claw` of a running server.

    Attributes:
        space: The network namespace in which it can be reached.
    """

    space: str

    def generation(self, tenant: str) -> int:
        """The generation that the tenant's HEAD names, 0 without one. Read without claw and without keys."""
        text = self._curl(f"tenants/{tenant}/HEAD")
        return int(json.loads(text)["generation"]) if text else 0

    def make(self) -> bool:
        """Make it; whether the server did."""
        return bool(self._curl("", "--request", "POST"))

    def _curl(self, path: str, *options: str) -> str:
        url = f"http://{ADDRESS}:8888/buckets/claw/{path}"
        inside = ["ip", "netns", "exec", self.space, "curl", "--silent", "--fail", "--max-time", "20"]
        return subprocess.run([*inside, *options, url], capture_output=True, text=True, check=False).stdout


@contextmanager
def serve(host: Host) -> Iterator[Bucket]:
    """SeaweedFS in a host's network namespace. It ends with this process; its data, with the host's directory."""
    home = STATE / host.name / "bucket"
    (home / "data").mkdir(parents=True)
    bucket = Bucket(f"claw-lab-{host.name}")
    weed = Path(hosts.lab("venv", host.dist).out.strip()) / "bin/weed"
    options = ["-dir=data", f"-ip={ADDRESS}", f"-ip.bind={ADDRESS}", "-s3.port=8333", "-filer.port=8888"]
    options += ["-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-admin.ui=false", "-master.telemetry=false"]
    options += ["-s3.localSocket=s3.sock", "-filer.localSocket=filer.sock"]
    keys = {"AWS_ACCESS_KEY_ID": "laboratory", "AWS_SECRET_ACCESS_KEY": "laboratory"}
    with (home / "log").open("wb") as log:
        server = subprocess.Popen(
            ["setpriv", "--pdeathsig=KILL", "ip", "netns", "exec", bucket.space, weed, "mini", *options],
            cwd=home,
            env={**keys, "HOME": str(home), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + 60
        while not bucket.make():
            assert time.monotonic() < deadline, f"the S3 server does not answer: {(home / 'log').read_text()[-2000:]}"
            time.sleep(0.2)
        yield bucket
    finally:
        server.kill()
        server.wait()
