"""Making images and looking into them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from claw_runtime.ports.engine import ExecResult


class ImageTool(Protocol):
    """Making images and looking into them. The tool of people who build; no claim ever waits for it.

    `report` gets one line of progress at a time, without its newline. Every method raises `EngineUnavailable` when the
    tool does not answer; `make_base`, `build` and `load` raise `BuildFailed` with the tool's last lines as `why`.
    """

    def has(self, reference: str) -> bool:
        """Whether an image of that name is in the store."""

    def make_base(self, reference: str, *, report: Callable[[str], None]) -> None:
        """Make an image of a minimal Debian bookworm from this host's own mirrors, without a trace of them in it."""

    def build(
        self, context: Path, reference: str, *, arguments: Mapping[str, str], report: Callable[[str], None]
    ) -> str:
        """Build `context`/Containerfile, reusing layers that are there already; the image's id.

        Steps see the host's network, and at /mnt this host's package-client settings (`environment` for a shell to
        read, sources, certificates); no layer keeps any of it. Nothing is ever built with a timestamp of its own.
        """

    def load(self, archive: Path, *, report: Callable[[str], None]) -> Sequence[str]:
        """Load a docker or OCI archive, plain or compressed; the names that it gave."""

    def config(self, reference: str) -> Mapping[str, Any]:
        """The image's OCI configuration: `User`, `Env`, `Entrypoint`, `Cmd`, `ExposedPorts`, `Labels`, `Healthcheck`…,
        absent or empty where the image sets none. Raises `ImageMissing`."""

    def run(self, reference: str, argv: Sequence[str]) -> ExecResult:
        """Run `argv`, past the image's entrypoint, in a throw-away hardened container (keep-id, no capability, no
        network, read-only root) with nothing mounted, and wait. Raises `ImageMissing`, `EngineFailed`."""
