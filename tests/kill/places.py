"""What lies beside a data directory: the bucket, which can be away, and a note of all that tenants' programs wrote."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

from claw_runtime.clock import SystemClock
from claw_runtime.errors import StoreUnavailable
from claw_runtime.objects.directory import DirectoryStore
from claw_runtime.state.repository import CommitRequest, Repository
from claw_runtime.state.rules.selection import EVERYTHING
from claw_runtime.tenancy import TenantId
from kill.image import MARKER


class Store(DirectoryStore):
    """A bucket that is away while a file beside it says so."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._away = root.with_name("away")

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        if self._away.exists():
            raise StoreUnavailable("the store does not answer", why="a test said so")
        return super().put(key, data, if_absent=if_absent, if_match=if_match)


def remember(place: Path, tenant: str, files: Mapping[str, str]) -> None:
    """Note what a tenant's program has written."""
    words = remembered(place)
    words.setdefault(tenant, {}).update(files)
    (place / "words.json").write_text(json.dumps(words))


def unremember(place: Path, tenant: str) -> None:
    """Count on nothing that a tenant has written but its name."""
    words = remembered(place)
    words[tenant] = {MARKER: words[tenant][MARKER]}
    (place / "words.json").write_text(json.dumps(words))


def remembered(place: Path) -> dict[str, dict[str, str]]:
    """Tenant → file → what was written there last."""
    file = place / "words.json"
    return json.loads(file.read_text()) if file.exists() else {}  # type: ignore[no-any-return]


def set_away(place: Path, *, away: bool) -> None:
    """Take the store away, or bring it back."""
    if away:
        (place / "away").touch()
    else:
        (place / "away").unlink(missing_ok=True)


def go_on(place: Path, tenant: str, files: Mapping[str, str]) -> None:
    """Let another host claim a tenant, write, and release it; what its program says there is not counted."""
    with tempfile.TemporaryDirectory(dir=place) as directory:
        repository = Repository(Store(place / "bucket"), "elsewhere", SystemClock(), Path(directory) / "scratch")
        tree = Path(directory) / "tree"
        right = repository.restorer.restore(repository.leases.acquire(TenantId(tenant)), tree)
        for name, text in files.items():
            (tree / name).write_text(text)
        repository.committer.commit(
            CommitRequest(right=right, tree=tree, selection=EVERYTHING, image_digest="", application="", release=True)
        )
    remember(place, tenant, files)
