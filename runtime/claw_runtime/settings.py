"""The operator's settings for this host; each from the first source that has it, with the source's name.

flags > `CLAW_*` environment > the file of `--config` > `$XDG_CONFIG_HOME/claw/runtime.toml` >
`/etc/claw/runtime.toml` > defaults. The standard `AWS_*` variables stand in for S3 values that none of these gives.
The keys of a TOML file are the names of the fields of `Settings`.
"""

import ipaddress
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from claw_runtime import units
from claw_runtime.errors import InvalidSpec
from claw_runtime.logs import Secret
from claw_runtime.tenancy import Layout

SYSTEM_FILE = Path("/etc/claw/runtime.toml")
SOCKET_PATH_MAX = 107  # bytes in sockaddr_un.sun_path, without its NUL

_PATHS = ("home", "run", "workloads", "encryption_key_file")
_SECRETS = ("access_key", "secret_key", "session_token")
ENVIRONMENT: Mapping[str, str] = {
    "home": "CLAW_HOME",
    "run": "CLAW_RUN",
    "workloads": "CLAW_WORKLOADS",
    "bucket": "CLAW_BUCKET",
    "endpoint": "CLAW_S3_ENDPOINT",
    "region": "CLAW_S3_REGION",
    "access_key": "CLAW_S3_ACCESS_KEY",
    "secret_key": "CLAW_S3_SECRET_KEY",
    "session_token": "CLAW_S3_SESSION_TOKEN",
    "encryption_key_file": "CLAW_ENCRYPTION_KEY_FILE",
    "cgroup_parent": "CLAW_CGROUP_PARENT",
    "limits": "CLAW_LIMITS",
    "services": "CLAW_SERVICES",
    "lease_ttl": "CLAW_LEASE_TTL",
    "listen": "CLAW_LISTEN",
    "allow_hosts": "CLAW_ALLOW_HOSTS",
    "allow_origins": "CLAW_ALLOW_ORIGINS",
    "ingress": "CLAW_INGRESS",
    "ingress_url": "CLAW_INGRESS_URL",
    "ingress_proxies": "CLAW_INGRESS_PROXIES",
}
LIMITS = ("enforce", "drop")
SERVICES = ("children", "units")
_PUBLIC = re.compile(r"https?://(?:[a-z0-9-]+(?:\.[a-z0-9-]+)*|\[[0-9a-f:]+\])(?::[0-9]{1,5})?")
_UNUSABLE = re.compile(r"[\s,\x00-\x1f\x7f]")
SHORTEST_TTL, LONGEST_TTL = 5.0, 86_400.0
AWS_ENVIRONMENT: Mapping[str, tuple[str, ...]] = {
    "endpoint": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    "access_key": ("AWS_ACCESS_KEY_ID",),
    "secret_key": ("AWS_SECRET_ACCESS_KEY",),
    "session_token": ("AWS_SESSION_TOKEN",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one host.

    Attributes:
        home: Directory of all that must survive a reboot.
        run: Directory of sockets and values files; short, since a Unix socket's path is at most 107 bytes.
        workloads: Directory whose `*.yaml` files the daemon loads.
        bucket: Store URL (`s3://bucket/prefix`, `file:///directory`); None lets the daemon start its own S3 server.
        endpoint: URL of the S3 service; None leaves it to the S3 client.
        region: Region of the S3 service; None leaves it to the S3 client.
        access_key, secret_key, session_token: S3 credentials; both keys or neither.
        encryption_key_file: File of the operator's keys, one per line, each 32 bytes in base64 or hex: states are then
            encrypted. The first key wraps tenants' keys, all unwrap them.
        cgroup_parent: Delegated control group for containers on a host without systemd, or None.
        limits: What to do with a limit that this host cannot enforce: `enforce` makes it an error, `drop` a warning.
        services: How Podman's API service and the S3 server run: as `children` of the daemon, or as systemd `units`.
        lease_ttl: Seconds without a heartbeat after which another runtime may take a runtime's leases.
        listen: Where the API listens over TCP, as `(address, port)`; None: only on its socket.
        allow_hosts: Names, beside that address, that a request over TCP may give as its Host.
        allow_origins: Web pages' origins, such as `https://console.example.org`, whose requests are not refused.
        ingress: Where the router listens for requests to tenants, as `(address, port)`; None: there is no router.
        ingress_url: The router's address for clients, such as `https://claw.example` behind a proxy with TLS. Below its
            name, each tenant has a name. Default: `http://localhost` with the router's port.
        ingress_proxies: Addresses of the proxies in front of the router, whose word for a client's address counts.
            Default: this host, if `ingress_url` begins with `https`; else none.
        origins: Field → where its value came from (`flag`, `CLAW_HOME`, a file's path, `default`).
    """

    home: Path
    run: Path
    workloads: Path
    bucket: str | None = None
    endpoint: str | None = None
    region: str | None = None
    access_key: Secret | None = None
    secret_key: Secret | None = None
    session_token: Secret | None = None
    encryption_key_file: Path | None = None
    cgroup_parent: str | None = None
    limits: str = "enforce"
    services: str = "children"
    lease_ttl: float = 60.0
    listen: tuple[str, int] | None = None
    allow_hosts: tuple[str, ...] = ()
    allow_origins: tuple[str, ...] = ()
    ingress: tuple[str, int] | None = None
    ingress_url: str | None = None
    ingress_proxies: tuple[str, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def layout(self) -> Layout:
        """The paths below `home` and `run`."""
        return Layout(home=self.home, run=self.run)


@dataclass(frozen=True, slots=True)
class _Found:
    value: str
    origin: str
    base: Path  # what a relative path in it is relative to


def load(
    flags: Mapping[str, str | Path | None] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    config: Path | None = None,
    system_file: Path = SYSTEM_FILE,
) -> Settings:
    """Collect the settings.

    Args:
        flags: Field name → value given on the command line; None and absent mean not given.
        environ: The environment; the process's own by default. An empty variable counts as not set.
        config: The file of `--config` (or `CLAW_CONFIG`), which must exist; the other two may be absent.

    Raises:
        InvalidSpec: A file cannot be read, holds an unknown key or a wrong type, or the values do not fit together.
    """
    environ = os.environ if environ is None else environ
    here = Path.cwd()
    found: dict[str, _Found] = {}
    for name, value in (flags or {}).items():
        if name not in ENVIRONMENT:
            raise InvalidSpec(f"unknown setting {name!r}", hint=_suggestion(name))
        if value is not None:
            found[name] = _Found(str(value), "flag", here)
    for name, variable in ENVIRONMENT.items():
        if environ.get(variable):
            found.setdefault(name, _Found(environ[variable], variable, here))
    if config is None and environ.get("CLAW_CONFIG"):
        config = Path(environ["CLAW_CONFIG"])
    user_file = _xdg(environ, "XDG_CONFIG_HOME", ".config") / "claw" / "runtime.toml"
    for path, required in ((config, True), (user_file, False), (system_file, False)):
        if path is not None:
            for name, value in _file(path.expanduser(), required=required).items():
                found.setdefault(name, _Found(value, str(path), path.expanduser().absolute().parent))
    _ambient(found, environ)
    return _settings(found, environ)


def _ambient(found: dict[str, _Found], environ: Mapping[str, str]) -> None:
    """Use AWS_* variables as a fallback; their keys only as a pair, since keys of two pairs do not fit together."""
    own_keys = any(name in found for name in _SECRETS)
    for name, variables in AWS_ENVIRONMENT.items():
        if name in _SECRETS and own_keys:
            continue
        for variable in variables:
            if environ.get(variable):
                found.setdefault(name, _Found(environ[variable], variable, Path("/")))


def _settings(found: dict[str, _Found], environ: Mapping[str, str]) -> Settings:
    paths = {name: _path(found[name]) for name in _PATHS if name in found}
    home = paths.get("home") or _xdg(environ, "XDG_DATA_HOME", ".local/share") / "claw"
    runtime_dir = environ.get("XDG_RUNTIME_DIR", "")
    run = paths.get("run") or (Path(runtime_dir) / "claw" if runtime_dir.startswith("/") else home / "run")
    texts = {name: item.value for name, item in found.items()}
    boxed = {name: Secret(found[name].value) for name in _SECRETS if name in found}
    settings = Settings(
        home=home,
        run=run,
        workloads=paths.get("workloads") or Layout(home=home, run=run).workloads,
        bucket=texts.get("bucket"),
        endpoint=texts.get("endpoint"),
        region=texts.get("region"),
        access_key=boxed.get("access_key"),
        secret_key=boxed.get("secret_key"),
        session_token=boxed.get("session_token"),
        encryption_key_file=paths.get("encryption_key_file"),
        cgroup_parent=texts.get("cgroup_parent"),
        limits=texts.get("limits", "enforce"),
        services=texts.get("services", "children"),
        lease_ttl=_seconds(found["lease_ttl"]) if "lease_ttl" in found else 60.0,
        listen=_address("listen", found["listen"]) if "listen" in found else None,
        allow_hosts=_words(texts.get("allow_hosts", "").lower()),
        allow_origins=_words(texts.get("allow_origins", "").lower()),
        ingress=_address("ingress", found["ingress"]) if "ingress" in found else None,
        ingress_url=texts["ingress_url"].lower().rstrip("/") if "ingress_url" in texts else None,
        ingress_proxies=_proxies(texts),
        origins={name: found[name].origin if name in found else "default" for name in ENVIRONMENT},
    )
    _check(settings)
    return settings


def _check(settings: Settings) -> None:
    origin = settings.origins
    if (settings.access_key is None) != (settings.secret_key is None):
        have, lack = ("access_key", "secret_key") if settings.secret_key is None else ("secret_key", "access_key")
        raise InvalidSpec(
            f"{have} without {lack}", why=f"{have} comes from {origin[have]}", hint=f"set {ENVIRONMENT[lack]} as well"
        )
    for name, value, forms in (
        ("bucket", settings.bucket, ("s3://bucket", "file:///directory")),
        ("endpoint", settings.endpoint, ("https://host", "http://127.0.0.1:8333")),
    ):
        schemes = tuple(form.split("//")[0] + "//" for form in forms)
        if value is not None and not value.startswith(schemes):
            raise InvalidSpec(
                f"{name} is not a supported URL: {value!r}",
                why=f"it comes from {origin[name]}",
                hint=f"write {' or '.join(forms)}",
            )
    if settings.limits not in LIMITS:
        raise InvalidSpec(
            f"limits is not one of {' and '.join(LIMITS)}: {settings.limits!r}",
            why=f"it comes from {origin['limits']}",
            hint="write drop only on a host whose tenants you trust with all of its memory",
        )
    if settings.services not in SERVICES:
        raise InvalidSpec(
            f"services is not one of {' and '.join(SERVICES)}: {settings.services!r}",
            why=f"it comes from {origin['services']}",
            hint="claw-runtime install writes units for claw-podman and claw-s3; without it leave this out",
        )
    for page in settings.allow_origins:
        if not re.fullmatch(r"https?://[a-z0-9.-]+(?::[0-9]+)?|https?://\[[0-9a-f:]+\](?::[0-9]+)?", page):
            raise InvalidSpec(
                f"allow_origins contains an invalid origin: {page!r}",
                why=f"it comes from {origin['allow_origins']}",
                hint="give scheme, name and port as a browser does: https://console.example.org",
            )
    if settings.ingress_url is not None and not _PUBLIC.fullmatch(settings.ingress_url):
        raise InvalidSpec(
            f"ingress_url is not an address without a path: {settings.ingress_url!r}",
            why=f"it comes from {origin['ingress_url']}",
            hint="give scheme, name and port as a browser does: https://claw.example.org",
        )
    for name, directory in (("home", settings.home), ("run", settings.run)):
        if wrong := _UNUSABLE.search(str(directory)):
            raise InvalidSpec(
                f"{name} has {wrong[0]!r} in its name: {str(directory)!r}",
                why="Podman or the S3 server would take a blank or a comma for the end of the name",
                hint=f"set {ENVIRONMENT[name]} to a directory of letters, digits and . _ - +",
            )
    longest = os.fsencode(settings.layout.engine_socket)
    if len(longest) > SOCKET_PATH_MAX:
        raise InvalidSpec(
            f"the run directory's path is too long: {settings.run}",
            why=f"a Unix socket's path has at most {SOCKET_PATH_MAX} bytes, {len(longest)} are needed",
            hint="set CLAW_RUN to a short directory such as /tmp/claw-run",
        )
    if settings.cgroup_parent is not None and not settings.cgroup_parent.startswith("/"):
        raise InvalidSpec(
            f"cgroup_parent is not a control group: {settings.cgroup_parent!r}",
            why=f"it comes from {origin['cgroup_parent']}",
            hint="write it from the root of the cgroup tree, such as /claw",
        )


def _seconds(found: _Found) -> float:
    try:
        seconds = units.duration(found.value)
    except ValueError as error:
        raise InvalidSpec(f"lease_ttl: {error}", why=f"it comes from {found.origin}") from error
    if not SHORTEST_TTL <= seconds <= LONGEST_TTL:
        raise InvalidSpec(
            f"lease_ttl cannot be {found.value}",
            why=f"it comes from {found.origin}",
            hint="use 5s to 1d; a shorter lease would expire during a brief pause of the host",
        )
    return seconds


def _address(name: str, found: _Found) -> tuple[str, int]:
    """An address and port of this host; no names, since what a name stands for may change."""
    host, _, port = found.value.rpartition(":")
    bare = "127.0.0.1" if host == "localhost" else host.removeprefix("[").removesuffix("]")
    why = "the port is a number up to 65535"
    try:
        address = ipaddress.ip_address(bare)
        if (address.version == 6) != host.startswith("["):
            why = "brackets are required around an IPv6 address, and allowed nowhere else"
        elif port.isascii() and port.isdigit() and int(port) <= 65535:
            return str(address), int(port)
    except ValueError as error:
        why = str(error)
    raise InvalidSpec(
        f"{name} is not an address and port: {found.value!r}",
        why=f"{why}; it comes from {found.origin}",
        hint="write 127.0.0.1:7070 or [::1]:7070",
    )


def _proxies(texts: Mapping[str, str]) -> tuple[str, ...]:
    if "ingress_proxies" not in texts:
        return ("127.0.0.1", "::1") if texts.get("ingress_url", "").lower().startswith("https://") else ()
    try:
        return tuple(str(ipaddress.ip_address(word)) for word in _words(texts["ingress_proxies"]))
    except ValueError as error:
        raise InvalidSpec(
            f"ingress_proxies contains no address: {error}", hint="write addresses, such as 127.0.0.1, 10.0.0.5"
        ) from error


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


def _path(found: _Found) -> Path:
    return Path(os.path.normpath(found.base / Path(found.value).expanduser()))


def _xdg(environ: Mapping[str, str], variable: str, default: str) -> Path:
    """A base directory; the XDG specification says that a relative one counts as not set."""
    value = environ.get(variable, "")
    return Path(value) if value.startswith("/") else Path(environ.get("HOME") or "/") / default


def _file(path: Path, *, required: bool) -> dict[str, str]:
    """The settings of one TOML file; empty when an optional file is absent."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(1 << 20).decode("utf-8")
        table: dict[str, Any] = tomllib.loads(text)
    except (FileNotFoundError, NotADirectoryError) as error:
        if required:
            raise InvalidSpec(f"{path}: no such file", hint="give --config a file that exists") from error
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSpec(
            f"{path}: cannot be read", why=str(error), hint="make it a UTF-8 file that this user can read"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise InvalidSpec(
            f"{path}: not TOML", why=str(error), hint='write lines such as bucket = "s3://name"'
        ) from error
    for name, value in table.items():
        where = f"{path}:{_line(text, name)}"
        if name not in ENVIRONMENT:
            raise InvalidSpec(f"{where}: unknown key {name!r}", hint=_suggestion(name))
        if not isinstance(value, str) or not value:
            raise InvalidSpec(f"{where}: {name} is not a text", hint=f'write it in quotes: {name} = "…"')
        if name in _SECRETS and stat.S_IMODE(mode) & 0o077:
            raise InvalidSpec(
                f"{where}: contains {name} and is accessible to other users",
                why=f"its mode is {stat.S_IMODE(mode):04o}",
                hint=f"chmod 0600 {path}",
            )
    return table


def _line(text: str, key: str) -> int:
    """tomllib keeps no positions; the line that begins with the key, or its table, is the one."""
    match = re.search(rf"^[ \t]*\[*[ \t]*[\"']?{re.escape(key)}\b", text, re.MULTILINE)
    return text.count("\n", 0, match.start()) + 1 if match else 1


def _suggestion(name: str) -> str:
    close = get_close_matches(name, ENVIRONMENT, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(ENVIRONMENT)}"
