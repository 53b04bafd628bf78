"""`ports.ImageTool` on the `podman` and `mmdebstrap` commands: what builds images on this host.

mmdebstrap makes the base image as this user, in its own user namespace, in about 15 seconds.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from claw_runtime.engine import buildhost, images, mapping
from claw_runtime.engine.refusals import image_missing, inherited, podman_missing, refuse_what_inherits
from claw_runtime.errors import BuildFailed, EngineFailed
from claw_runtime.ports import Bind, ExecResult
from claw_runtime.seccomp import profiles

Report = Callable[[str], None]

_RUN_SECONDS = 1800.0  # the first container of an image copies all of its layers
_PODMAN_FAILED = 125  # podman's own exit code for a container that it could not run
# What the host leaves in a root that mmdebstrap makes: its mirrors, its name, its resolver.
_CLEAN = (
    'rm -rf "$1"/etc/apt/sources.list* "$1"/etc/apt/auth.conf* "$1"/etc/apt/apt.conf.d/99mmdebstrap '
    '"$1"/etc/resolv.conf "$1"/etc/hostname "$1"/var/log/* "$1"/var/cache/ldconfig/*'
)


class PodmanImageTool:
    """Images of this user's Podman.

    Args:
        cgroup_parent: Parent of every container's cgroup; None on ordinary hosts (see host/README.md).
    """

    def __init__(self, *, cgroup_parent: str | None = None) -> None:
        self._cgroup_parent = cgroup_parent

    def has(self, reference: str) -> bool:
        """See `ports.ImageTool`."""
        return images.exists(reference)

    def make_base(self, reference: str, *, report: Report) -> None:
        """See `ports.ImageTool`."""
        host = buildhost.this_host()
        sources = buildhost.debian_sources(host)
        hint = "use `--base` with any Debian bookworm image that Podman can find"
        if not sources:
            raise BuildFailed(
                "cannot make a base image here", why="apt on this host has no Debian mirror configured", hint=hint
            )
        if shutil.which("mmdebstrap") is None:
            raise BuildFailed("cannot make a base image here", why="mmdebstrap is not installed", hint=hint)
        with tempfile.TemporaryDirectory(prefix="claw-base-") as scratch:
            tar = Path(scratch) / "root.tar"
            argv = base_argv(host, sources, Path(scratch), tar)
            report("mmdebstrap: a minimal Debian bookworm")
            done = subprocess.run(
                argv, env={**os.environ, "SOURCE_DATE_EPOCH": "0"}, capture_output=True, text=True, check=False
            )
            if done.returncode:
                last = "\n".join(done.stderr.strip().splitlines()[-20:])
                raise BuildFailed("mmdebstrap could not make a base image", why=last, hint=hint)
            images.import_rootfs(tar, reference, report)

    def build(self, context: Path, reference: str, *, arguments: Mapping[str, str], report: Report) -> str:
        """See `ports.ImageTool`."""
        with tempfile.TemporaryDirectory(prefix="claw-build-") as scratch:
            buildhost.write_settings(buildhost.this_host(), Path(scratch))
            recipe = images.BuildRecipe(
                context=context,
                containerfile=context / "Containerfile",
                tag=reference,
                build_args=arguments,
                volumes=[Bind(source=Path(scratch), target=buildhost.MOUNT, read_only=True)],
                timestamp=0,
                jobs=2,
            )
            return images.build(recipe, report)

    def load(self, archive: Path, *, report: Report) -> Sequence[str]:
        """See `ports.ImageTool`."""
        names = images.load(archive, report)
        if not names:
            raise BuildFailed(
                f"{archive} contains no named image", hint="save the image with its name: podman save NAME"
            )
        return names

    def config(self, reference: str) -> Mapping[str, Any]:
        """See `ports.ImageTool`."""
        done = self._podman("image", "inspect", "--", reference)
        if done.returncode:
            raise image_missing(reference)
        inspected: dict[str, Any] = json.loads(done.stdout)[0]
        return {**(inspected.get("Config") or {}), "Healthcheck": inspected.get("Healthcheck")}

    def run(self, reference: str, argv: Sequence[str]) -> ExecResult:
        """See `ports.ImageTool`."""
        refuse_what_inherits(reference, inherited(self.config(reference).get("Env") or ()))
        parent = [f"--cgroup-parent={self._cgroup_parent}"] if self._cgroup_parent else []
        flags = ["--rm", "--pull=never", "--network=none", "--read-only", *mapping.flags()]
        flags += ["--cap-drop=all", "--security-opt=no-new-privileges", "--http-proxy=false"]
        flags += [f"--security-opt=seccomp={profiles.path_of(profiles.DEFAULT)}", f"--entrypoint={argv[0]}", *parent]
        done = self._podman("run", *flags, reference, *argv[1:])
        if done.returncode == _PODMAN_FAILED:
            raise EngineFailed(
                f"podman could not run {argv[0]} in {reference}",
                why=done.stderr.decode(errors="replace").strip(),
                hint="run claw-runtime doctor to find what this host lacks",
            )
        return ExecResult(exit_code=done.returncode, stdout=done.stdout, stderr=done.stderr)

    def _podman(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        argv = ["podman", *arguments]
        try:
            return subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=_RUN_SECONDS
            )
        except FileNotFoundError as error:
            raise podman_missing() from error
        except subprocess.TimeoutExpired as error:
            raise EngineFailed("podman did not end", why=f"{_RUN_SECONDS:.0f} s passed: {arguments[0]}") from error


def base_argv(host: buildhost.BuildHost, sources: Sequence[str], scratch: Path, tar: Path) -> list[str]:
    """The mmdebstrap command that makes the base image's root as `tar`; its inputs are written to `scratch`."""
    (scratch / "sources.list").write_text("".join(f"{line}\n" for line in sources))
    credentials = buildhost.apt_credentials(host)
    hooks = [f"--customize-hook={_CLEAN}"]
    if credentials:
        path = scratch / "auth.conf"
        path.write_text(credentials)
        path.chmod(0o600)
        hooks.insert(0, f'--setup-hook=cp "{path}" "$1"/etc/apt/auth.conf')
    options = [f"--aptopt={line}" for line in buildhost.apt_options(host)]
    excluded = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "info", "locale")]
    command = ["mmdebstrap", "--quiet", "--variant=minbase", *options, *excluded, *hooks]
    return [*command, buildhost.SUITE, str(tar), str(scratch / "sources.list")]
