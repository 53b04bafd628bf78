"""What of a host's package-client settings a build is lent, and what it is not."""

import subprocess
from pathlib import Path

import pytest
from claw_runtime.engine.buildhost import (
    MOUNT,
    BuildHost,
    apt_options,
    debian_sources,
    npm_settings,
    pip_settings,
    write_settings,
)
from claw_runtime.engine.imagetool import base_argv

DEB822 = """\
# a comment
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: https://mirror.example/debian-security
Suites:
 bookworm-security
Components: main
"""


@pytest.fixture
def host(tmp_path: Path) -> BuildHost:
    """A Debian host without settings of its own."""
    (tmp_path / "etc/apt/sources.list.d").mkdir(parents=True)
    (tmp_path / "etc/apt/sources.list.d/debian.sources").write_text(DEB822)
    (tmp_path / "home").mkdir()
    return BuildHost(root=tmp_path, home=tmp_path / "home", environ={})


def _with(host: BuildHost, **changes: object) -> BuildHost:
    return BuildHost(
        **{"root": host.root, "home": host.home, "environ": host.environ, "apt_dump": host.apt_dump, **changes}
    )  # type: ignore[arg-type]


def test_the_hosts_mirrors_are_used(host: BuildHost) -> None:
    """Stanzas with several types, suites and folded lines become plain lines."""
    assert debian_sources(host) == [
        "deb http://mirror.example/debian bookworm main",
        "deb http://mirror.example/debian bookworm-updates main",
        "deb https://mirror.example/debian-security bookworm-security main",
    ]


@pytest.mark.parametrize("suite", ["trixie", "sid", "stable", "bullseye"])
def test_another_release_still_gives_bookworm(host: BuildHost, suite: str) -> None:
    """The image is bookworm whatever the host is; only the mirror is the host's."""
    (host.root / "etc/apt/sources.list.d/debian.sources").unlink()
    (host.root / "etc/apt/sources.list").write_text(f"deb [arch=amd64] http://m.example/debian {suite} main # own\n")
    assert debian_sources(host) == ["deb http://m.example/debian bookworm main"]


@pytest.mark.parametrize(
    "line",
    [
        "deb https://packages.example/tools stable main",
        "deb https://m.example/debian bookworm-pgdg main",
        "deb https://m.example/debian bookworm stable",
        "deb-src http://m.example/debian bookworm main",
        "# deb http://m.example/debian bookworm main",
        "deb",
        "",
    ],
)
def test_other_sources_are_left_out(host: BuildHost, line: str) -> None:
    """Third parties, sources of sources, comments and fragments give nothing."""
    (host.root / "etc/apt/sources.list.d/debian.sources").write_text("Types: deb\nEnabled: no\nURIs: http://x/debian\n")
    (host.root / "etc/apt/sources.list").write_text(line + "\n")
    assert debian_sources(host) == []


def test_a_foreign_host_keeps_the_base_images_sources(tmp_path: Path) -> None:
    """Without Debian mirrors apt is not pointed anywhere: the base image's own are used."""
    (tmp_path / "out").mkdir()
    write_settings(BuildHost(root=tmp_path, home=tmp_path, environ={}), tmp_path / "out")
    assert "SourceList" not in (tmp_path / "out/apt.conf").read_text()


def test_apt_keeps_only_how_to_reach_mirrors(host: BuildHost) -> None:
    """Proxies and date checks go along; hooks, which name the host's programs, do not."""
    dump = """\
Acquire::http::Proxy "http://proxy.example:3128";
Acquire::Check-Valid-Until "false";
Acquire::http::Proxy-Auto-Detect "/usr/bin/detect";
DPkg::Post-Invoke:: "rm -rf /";
Acquire::Languages "none";
"""
    kept = apt_options(_with(host, apt_dump=dump))
    assert kept == ['Acquire::http::Proxy "http://proxy.example:3128";', 'Acquire::Check-Valid-Until "false";']


def test_npm_keeps_only_how_to_reach_registries(host: BuildHost) -> None:
    """Registries and their tokens go along, with variables resolved; paths of this host do not."""
    (host.root / "etc/npmrc").write_text("registry=https://r.example/\ncafile=/etc/own.pem\nprefix=/usr/local\n")
    (host.home / ".npmrc").write_text(
        "; mine\n@team:registry = https://t.example/\n//t.example/:_authToken=${TOKEN}\nnodedir=/usr\nyes=true\n"
    )
    environ = {"TOKEN": "abc", "NPM_CONFIG_STRICT_SSL": "false", "npm_config_cache": "/tmp/x"}
    assert npm_settings(_with(host, environ=environ)) == {
        "registry": "https://r.example/",
        "@team:registry": "https://t.example/",
        "//t.example/:_authToken": "abc",
        "strict-ssl": "false",
    }


def test_pip_keeps_only_how_to_reach_indexes(host: BuildHost) -> None:
    """Several indexes on folded lines survive; find-links, a directory of this host, does not."""
    (host.root / "etc/pip.conf").write_text("[global]\ncert = /etc/own.pem\nindex-url = https://a.example/simple\n")
    environ = {"PIP_FIND_LINKS": "/wheels", "PIP_DEFAULT_TIMEOUT": "5", "PIP_INDEX_URL": "https://b.example/simple"}
    assert pip_settings(_with(host, environ=environ)) == {"index-url": "https://b.example/simple"}
    (host.root / "etc/pip.conf").write_text("[global]\nextra-index-url =\n  https://c.example\n  https://d.example\n")
    (host.root / "out").mkdir()
    write_settings(host, host.root / "out")
    lent = BuildHost(
        root=host.root / "nowhere", home=host.home, environ={"PIP_CONFIG_FILE": f"{host.root}/out/pip.conf"}
    )
    assert pip_settings(lent) == pip_settings(host)
    assert "https://d.example" in (host.root / "out/pip.conf").read_text()


def test_broken_client_files_are_no_obstacle(host: BuildHost) -> None:
    """A file that its own client could not read, or a missing one, gives no setting."""
    (host.root / "etc/pip.conf").write_text("not an ini file")
    (host.home / ".npmrc").write_bytes(b"\xff\xfe\n==\n")
    assert pip_settings(host) == {}
    assert npm_settings(host) == {}


def test_the_host_s_authorities_are_lent(host: BuildHost) -> None:
    """The system's bundle and what variables and npm add are one file, which every client is pointed at."""
    bundle = host.root / "etc/ssl/certs/ca-certificates.crt"
    bundle.parent.mkdir(parents=True)
    bundle.write_text("SYSTEM\n")
    (host.root / "own.pem").write_text("OWN\n")
    (host.home / ".npmrc").write_text(f"cafile={host.root}/own.pem\n")
    out = host.root / "out"
    out.mkdir()
    write_settings(_with(host, environ={"SSL_CERT_FILE": str(bundle)}), out)
    assert (out / "certificates.pem").read_text() == "SYSTEM\nOWN\n"
    for name in ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "PIP_CERT"):
        assert f"export {name}={MOUNT}/certificates.pem\n" in (out / "environment").read_text()


def test_lent_files_are_private(host: BuildHost) -> None:
    """They may hold tokens and passwords."""
    (host.root / "etc/apt/auth.conf").write_text("machine m.example login a password b\n")
    out = host.root / "out"
    out.mkdir()
    write_settings(host, out)
    assert "password b" in (out / "auth.conf").read_text()
    assert {path.stat().st_mode & 0o777 for path in out.iterdir()} == {0o600}


@pytest.mark.spawns
def test_a_shell_can_read_the_environment(host: BuildHost, tmp_path: Path) -> None:
    """Every step begins with it."""
    out = tmp_path / "out"
    out.mkdir()
    write_settings(host, out)
    script = f'. "{out}/environment"; echo "$APT_CONFIG"'
    done = subprocess.run(["/bin/sh", "-euc", script], capture_output=True, text=True, check=True)
    assert done.stdout == f"{MOUNT}/apt.conf\n"


def test_the_base_is_cleaned_of_the_host(host: BuildHost, tmp_path: Path) -> None:
    """Mirrors, passwords, name and resolver are removed before the base becomes an image."""
    (host.root / "etc/apt/auth.conf").write_text("machine m.example login a password b\n")
    argv = base_argv(host, debian_sources(host), tmp_path, tmp_path / "root.tar")
    clean = next(word for word in argv if word.startswith("--customize-hook="))
    for name in ("sources.list*", "auth.conf*", "99mmdebstrap", "resolv.conf", "hostname"):
        assert name in clean
    assert argv[-3:] == ["bookworm", str(tmp_path / "root.tar"), str(tmp_path / "sources.list")]
    assert "password" not in " ".join(argv)
