"""The object store that workload files name, for a host whose settings name none."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode

from claw_runtime.logs import Secret
from claw_runtime.spec.loader import Document
from claw_runtime.spec.sync import SinkFile, endpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Sink:
    """An object store that a workload file names.

    Attributes:
        url: As `objects.open.open_store` takes it: `s3://bucket?endpoint=…&region=…`, never with keys.
        access_key, secret_key: Both, or None when the settings or the S3 client must know them.
    """

    url: str
    access_key: Secret | None = field(default=None, repr=False)
    secret_key: Secret | None = field(default=None, repr=False)


def sink(file: SinkFile) -> Sink:
    """The store that a `sync.sink` means."""
    options = {"endpoint": endpoint(file), "region": file.region}
    query = urlencode({name: value for name, value in options.items() if value})
    return Sink(
        url=f"s3://{file.bucket}{'?' if query else ''}{query}",
        access_key=Secret(file.access_key_id) if file.access_key_id else None,
        secret_key=Secret(file.secret_access_key) if file.secret_access_key else None,
    )


def common_sink(documents: Mapping[str, Document]) -> Sink | None:
    """The one store that these workloads name; a workload without a sink takes the others'. None when none has one.

    Args:
        documents: Workloads by id, as `daemon.home.load_workloads` returns them.

    Raises:
        InvalidSpec: Two name different stores, or different keys for it: one daemon has one store.
    """
    found: tuple[Document, Sink] | None = None
    for document in documents.values():
        file = document.workload.sync.sink
        if file is None:
            continue
        current = sink(file)
        if found is None:
            found = document, current
        elif found[1] != current:
            what = "sync.sink is another store than" if found[1].url != current.url else "sync.sink has other keys than"
            raise document.refusal(
                ("sync", "sink"),
                f"{what} that of workload {found[0].workload.id!r}",
                why=f"{found[0].path} names {found[1].url}, this one {current.url}; one daemon has one store",
                hint="name the same in both, or set CLAW_BUCKET and leave sync.sink out",
            )
    return found[1] if found else None
