"""A bucket that another tool wrote, on a real S3 protocol: names of any kind, and the times that rclone notes."""

from pathlib import Path

from claw_runtime.interchange.bucket_in import gather
from claw_runtime.logs import Secret
from claw_runtime.objects.s3 import S3Store


def test_what_rclone_wrote_is_read(moto_endpoint: str, tmp_path: Path) -> None:
    """Below a prefix, with its times; what lies beside the prefix is not."""
    keys = {"access_key": Secret("a" * 8), "secret_key": Secret("b" * 8)}
    whole = S3Store(bucket="foreign-bucket", endpoint=moto_endpoint, **keys)
    whole.create_bucket()
    for key, noted in (("tenants/alice/notes/täglich 1.md", "1700000000.25"), ("tenants/bob/x", ""), ("alice", "")):
        whole._client.put_object(
            Bucket="foreign-bucket", Key=key, Body=key.encode(), Metadata={"mtime": noted} if noted else {}
        )
    store = S3Store(bucket="foreign-bucket", prefix="tenants/alice", endpoint=moto_endpoint, **keys)

    assert gather(store, tmp_path) == []

    [path] = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert path == tmp_path / "notes/täglich 1.md"
    assert path.read_text() == "tenants/alice/notes/täglich 1.md"
    assert path.stat().st_mtime == 1700000000.25
