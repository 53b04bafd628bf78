"""Settings of this host's package clients, available to a build and kept out of the image.

A build needs the host's Debian mirrors, its npm and PyPI settings, and the certificates it trusts; an image must hold
none of them. They are gathered into one private directory, mounted at `/mnt` while a step runs: `environment` for a
a shell to read, and the files that it names. Only settings for reaching a server are copied, nothing else of a client's
configuration.
"""

import configparser
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

MOUNT = "/mnt"
SUITE = "bookworm"

_CODENAMES = "bullseye|bookworm|trixie|forky|sid|oldoldstable|oldstable|stable|testing|unstable"
_SUITE = re.compile(rf"(?:{_CODENAMES})(?P<kind>|-updates|-security)")
_APT_KEYS = re.compile(r"Acquire::(?:https?(?!::Proxy-?Auto-?Detect)|Check-|Retries|ForceIPv)[\w:.-]*", re.IGNORECASE)
_NPM_KEYS = re.compile(r"(?:@[^:]+:)?registry|proxy|https-proxy|noproxy|strict-ssl|always-auth|fetch-[a-z-]+|//.*")
_PIP_KEYS = frozenset({"index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries"})
_CERTIFICATES = ("etc/ssl/certs/ca-certificates.crt", "etc/pki/tls/certs/ca-bundle.crt", "etc/ssl/ca-bundle.pem")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildHost:
    """The place from which settings are read; tests use a separate tree.

    Attributes:
        root: The root of the file system.
        home: The user's home directory.
        environ: The user's environment.
        apt_dump: What `apt-config dump` prints; empty where there is no apt.
    """

    root: Path = Path("/")
    home: Path = field(default_factory=Path.home)
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    apt_dump: str = ""


def this_host() -> BuildHost:
    """The host that this process runs on."""
    if shutil.which("apt-config") is None:
        return BuildHost()
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False)
    return BuildHost(apt_dump=dump.stdout)


def write_settings(host: BuildHost, directory: Path) -> None:
    """Fill a private directory with what `MOUNT` must show during a build."""
    sources = debian_sources(host)
    exports = {"DEBIAN_FRONTEND": "noninteractive", "APT_CONFIG": f"{MOUNT}/apt.conf"}
    certificates = _certificates(host)
    if certificates:
        _write(directory / "certificates.pem", certificates)
        names = ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "NPM_CONFIG_CAFILE", "PIP_CERT", "REQUESTS_CA_BUNDLE")
        exports |= dict.fromkeys(names, f"{MOUNT}/certificates.pem")
    exports |= {"NPM_CONFIG_USERCONFIG": f"{MOUNT}/npmrc", "PIP_CONFIG_FILE": f"{MOUNT}/pip.conf"}
    _write(directory / "sources.list", "".join(f"{line}\n" for line in sources))
    _write(directory / "auth.conf", apt_credentials(host))
    _write(directory / "npmrc", "".join(f"{key}={value}\n" for key, value in npm_settings(host).items()))
    pip = "".join(f"{key} = {value}\n" for key, value in pip_settings(host).items())
    _write(directory / "pip.conf", f"[global]\n{pip}")
    _write(directory / "apt.conf", _apt_conf(host, own_sources=bool(sources), own_certificates=bool(certificates)))
    _write(directory / "environment", "".join(f"export {k}={shlex.quote(v)}\n" for k, v in exports.items()))


def debian_sources(host: BuildHost) -> list[str]:
    """The host's Debian mirrors as `deb URI SUITE main` lines for bookworm, whatever release the host is.

    Empty when the host is not a Debian one; a base image's own mirrors then have to do.
    """
    apt = host.root / "etc/apt"
    lines: dict[str, None] = {}
    for path in [apt / "sources.list", *sorted(apt.glob("sources.list.d/*.list"))]:
        for uri, suite, components in _one_line_entries(_text(path)):
            lines |= dict.fromkeys(_bookworm(uri, suite, components))
    for path in sorted(apt.glob("sources.list.d/*.sources")):
        for uri, suite, components in _stanza_entries(_text(path)):
            lines |= dict.fromkeys(_bookworm(uri, suite, components))
    return list(lines)


def apt_options(host: BuildHost) -> list[str]:
    """The host's settings for reaching mirrors, as lines of an apt configuration."""
    return [line for line in host.apt_dump.splitlines() if _APT_KEYS.fullmatch(line.partition(" ")[0])]


def apt_credentials(host: BuildHost) -> str:
    """The host's mirror passwords, as far as this user may read them."""
    apt = host.root / "etc/apt"
    return "".join(_text(path) for path in [apt / "auth.conf", *sorted(apt.glob("auth.conf.d/*.conf"))])


def npm_settings(host: BuildHost) -> dict[str, str]:
    """How to reach npm registries; later files and then the environment win, as in npm."""
    found: dict[str, str] = {}
    for path in _npm_files(host):
        for line in _text(path).splitlines():
            key, equals, value = (part.strip() for part in line.partition("="))
            if equals and not key.startswith(("#", ";")):
                found[key] = _expand(value.strip("\"'"), host.environ)
    for name, value in host.environ.items():
        if name.lower().startswith("npm_config_"):
            found[name[len("npm_config_") :].lower().replace("_", "-")] = value
    return {key: value for key, value in found.items() if _NPM_KEYS.fullmatch(key)}


def pip_settings(host: BuildHost) -> dict[str, str]:
    """How to reach Python package indexes; later files and then the environment win, as in pip."""
    found: dict[str, str] = {}
    names = [host.root / "etc/pip.conf", host.home / ".pip/pip.conf", host.home / ".config/pip/pip.conf"]
    for path in [*names, Path(host.environ.get("PIP_CONFIG_FILE", os.devnull))]:
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read_string(_text(path))
        except configparser.Error:
            continue
        found |= dict(parser["global"]) if parser.has_section("global") else {}
    for name, value in host.environ.items():
        if name.startswith("PIP_"):
            found[name[4:].lower().replace("_", "-")] = value
    return {key: value.replace("\n", "\n    ") for key, value in found.items() if key in _PIP_KEYS}


def _bookworm(uri: str, suite: str, components: Iterable[str]) -> Iterator[str]:
    """One source of the host, for bookworm. A third party may use a Debian suite's name, but signs with other keys."""
    match = _SUITE.fullmatch(suite)
    if match and "main" in components and "debian" in uri.partition("://")[2].partition("/")[2]:
        yield f"deb {uri} {SUITE}{match['kind']} main"


def _one_line_entries(text: str) -> Iterator[tuple[str, str, list[str]]]:
    for line in text.splitlines():
        words = re.sub(r"\[[^]]*\]", "", line.partition("#")[0]).split()
        if len(words) >= 4 and words[0] == "deb":
            yield words[1], words[2], words[3:]


def _stanza_entries(text: str) -> Iterator[tuple[str, str, list[str]]]:
    text = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, list[str]] = {}
        key = ""
        for line in stanza.splitlines():
            if not line.startswith((" ", "\t")):
                key, _, line = line.partition(":")  # noqa: PLW2901  # the rest of the line is the value
            fields.setdefault(key.strip().lower(), []).extend(line.split())
        if "deb" in fields.get("types", []) and fields.get("enabled", ["yes"])[0].lower() != "no":
            for uri in fields.get("uris", []):
                for suite in fields.get("suites", []):
                    yield uri, suite, fields.get("components", [])


def _apt_conf(host: BuildHost, *, own_sources: bool, own_certificates: bool) -> str:
    lines = [*apt_options(host), 'APT::Sandbox::User "root";']  # apt's own user could not read a private directory
    if own_sources:
        lines += [f'Dir::Etc::SourceList "{MOUNT}/sources.list";', 'Dir::Etc::SourceParts "/dev/null";']
        lines += [f'Dir::Etc::netrc "{MOUNT}/auth.conf";']
    if own_certificates:
        lines += [f'Acquire::https::CAInfo "{MOUNT}/certificates.pem";']
    return "".join(f"{line}\n" for line in lines)


def _certificates(host: BuildHost) -> str:
    """All authorities that the host's clients trust: the system's bundle, and those that variables and npm add."""
    named = [host.environ.get(name, "") for name in ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "PIP_CERT")]
    for path in _npm_files(host):
        named += re.findall(r"^\s*cafile\s*=\s*(\S+)", _text(path), re.MULTILINE)
    system = next((host.root / name for name in _CERTIFICATES if (host.root / name).is_file()), None)
    paths = dict.fromkeys([*([system] if system else []), *(Path(name) for name in named if name)])
    return "".join(dict.fromkeys(_text(path).rstrip("\n") + "\n" for path in paths if path.is_file()))


def _npm_files(host: BuildHost) -> list[Path]:
    user = host.environ.get("NPM_CONFIG_USERCONFIG", "")
    return [host.root / "etc/npmrc", host.root / "usr/etc/npmrc", Path(user) if user else host.home / ".npmrc"]


def _expand(value: str, environ: Mapping[str, str]) -> str:
    return re.sub(r"\$\{(\w+)\}", lambda match: environ.get(match[1], match[0]), value)


def _text(path: Path) -> str:
    """A file's text; empty if it is missing or this user may not read it."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)
