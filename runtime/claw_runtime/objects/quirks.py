"""Differences of particular S3 services, as data; each entry cites a report.

A service is looked up by the host of its endpoint. A service that is not listed is assumed to be standard. The
probe learns whether it accepts checksums, and reports other differences.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True, kw_only=True)
class Quirks:
    """How to speak to one service.

    Attributes:
        checksums: The service accepts the checksum that boto3 adds to every upload; otherwise only required ones are
            sent.
        quoted_etags: `If-Match` holds the etag as it was given out, in quotes, as RFC 9110 wants it.
        conditional_delete: The service honours `If-Match` on DELETE; otherwise such a delete is never sent, since it
            would remove any object.
    """

    checksums: bool = True
    quoted_etags: bool = True
    conditional_delete: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownService:
    """One service: a pattern for the whole host name, and where the quirk was reported."""

    service: str
    host: str
    quirks: Quirks
    sources: tuple[str, ...]


NONE: Final = Quirks()
KNOWN: Final = (
    KnownService(
        service="Hetzner Object Storage",
        host=r".+\.your-objectstorage\.com",
        quirks=Quirks(quoted_etags=False, conditional_delete=False),
        sources=("https://github.com/benbjohnson/litestream/pull/1509",),
    ),
    KnownService(
        service="DigitalOcean Spaces",
        host=r".+\.digitaloceanspaces\.com",
        quirks=Quirks(quoted_etags=False),
        sources=("https://github.com/slatedb/slatedb/issues/1818",),
    ),
    KnownService(
        service="Backblaze B2",
        host=r".+\.backblazeb2\.com",
        quirks=Quirks(checksums=False),
        sources=(
            "https://github.com/boto/s3transfer/issues/327",
            "https://github.com/home-assistant/core/issues/143995",
        ),
    ),
    KnownService(
        service="Cloudflare R2",
        host=r".+\.r2\.cloudflarestorage\.com",
        quirks=Quirks(checksums=False),
        sources=(
            "https://github.com/amd/gaia/pull/3029",
            "https://github.com/cloudflare/cloudflare-docs/pull/19236",
        ),
    ),
    KnownService(
        service="Google Cloud Storage",
        host=r"(.+\.)?storage\.googleapis\.com",
        quirks=Quirks(checksums=False),
        sources=("https://github.com/canonical/postgresql-k8s-operator/pull/901",),
    ),
    KnownService(
        service="Storj",
        host=r"gateway\.storjshare\.io",
        quirks=Quirks(checksums=False),
        sources=("https://github.com/storj/gateway-st/issues/89",),
    ),
    KnownService(
        service="Oracle Cloud Object Storage",
        host=r".+\.oraclecloud\.com",
        quirks=Quirks(checksums=False),
        sources=("https://github.com/TraceMachina/nativelink/issues/2767",),
    ),
)


def is_loopback(endpoint: str | None) -> bool:
    """Whether the endpoint is this host's own loopback, which a proxy of the operator's shell cannot reach."""
    host = urlsplit(endpoint or "").hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def quirks_of(endpoint: str | None) -> Quirks:
    """The quirks of the service at that endpoint; `NONE` for Amazon and all unlisted services."""
    host = urlsplit(endpoint or "").hostname or ""
    return next((known.quirks for known in KNOWN if re.fullmatch(known.host, host)), NONE)
