"""The addresses of tenants, as their clients see them."""

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from claw_runtime.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Of one router.

    Attributes:
        domain: The name below which each tenant has one; empty where clients know the router by a number, which has
            no names below it.
        port: With its colon; empty for the scheme's own.
    """

    scheme: str
    host: str
    domain: str
    port: str

    def browser(self, tenant: str) -> str | None:
        """Where a person opens the tenant; None without a domain, since pages of all tenants would be one origin."""
        return f"{self.scheme}://{tenant}.{self.domain}{self.port}" if self.domain else None

    def program(self, tenant: str) -> str:
        """The base address for programs; a link's token comes after it as one more part."""
        return f"{self.scheme}://{self.host}{self.port}/~{tenant}"

    def shown(self, tenant: str) -> str:
        """The one to show."""
        return self.browser(tenant) or self.program(tenant)


def addresses(settings: Settings) -> Addresses | None:
    """The addresses of this host's router; None without one."""
    if settings.ingress is None:
        return None
    found = urlsplit(settings.ingress_url or f"http://localhost:{settings.ingress[1]}")
    host = found.hostname or "localhost"
    return Addresses(
        scheme=found.scheme,
        host=f"[{host}]" if ":" in host else host,
        domain="" if _is_number(host) else host,
        port=f":{found.port}" if found.port else "",
    )


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
