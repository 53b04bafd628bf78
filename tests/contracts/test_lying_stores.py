"""Real servers that accept conditional writes and ignore them: each is refused, by name and with its reasons."""

from contextlib import ExitStack
from pathlib import Path

import pytest
from claw_runtime.errors import StoreDishonest
from claw_runtime.objects.probe import probe
from fakes import servers

IGNORED = (
    "it overwrote an object although the write said If-None-Match: *",
    "it overwrote an object although If-Match named an old etag",
)


@pytest.mark.s3
@pytest.mark.parametrize("name", servers.LIARS)
def test_a_server_that_lies_is_refused(name: str, tmp_path: Path) -> None:
    """Both conditions are found ignored, the message names the store, and nothing of the probe stays behind."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(servers.LIARS[name](tmp_path))
        except servers.Missing as missing:
            pytest.skip(str(missing))
        store = server.store("leases")
        with pytest.raises(StoreDishonest) as refused:
            probe(store)
        assert str(refused.value).startswith(f"the object store s3://leases?endpoint={server.endpoint} cannot hold")
        assert all(reason in refused.value.why for reason in IGNORED)
        assert "SeaweedFS" in refused.value.hint
        assert list(store.list("")) == []
