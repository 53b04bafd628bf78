"""Settings come from the first place that says them, remember which it was, and refuse what cannot work."""

from pathlib import Path

import pytest
from claw_runtime import settings
from claw_runtime.errors import InvalidSpec
from claw_runtime.logs import Secret


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A person's environment with a short runtime directory; nothing of this machine's."""
    return {"HOME": str(tmp_path / "me"), "XDG_RUNTIME_DIR": "/run/user/1000"}


def load(environ: dict[str, str], tmp_path: Path, **arguments) -> settings.Settings:
    """Load with a system file below the test's own directory."""
    return settings.load(environ=environ, system_file=tmp_path / "etc" / "runtime.toml", **arguments)


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    """Write one TOML file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def test_defaults_follow_the_base_directories(environ: dict[str, str], tmp_path: Path) -> None:
    """Nothing set: data below ~/.local/share, sockets in the runtime directory, no bucket, all origins `default`."""
    found = load(environ, tmp_path)
    assert found.home == tmp_path / "me/.local/share/claw"
    assert found.run == Path("/run/user/1000/claw")
    assert found.workloads == found.home / "workloads"
    assert found.bucket is found.endpoint is found.region is found.access_key is found.cgroup_parent is None
    assert found.limits == "enforce"
    assert set(found.origins.values()) == {"default"}
    assert found.layout.api_socket == Path("/run/user/1000/claw/api.sock")


@pytest.mark.parametrize("value", ["", "relative/dir"])
def test_an_empty_or_relative_base_directory_counts_as_not_set(environ, tmp_path: Path, value: str) -> None:
    """So the XDG specification has it."""
    environ |= {"XDG_DATA_HOME": value, "XDG_RUNTIME_DIR": value, "HOME": "/home/me"}
    found = load(environ, tmp_path)
    assert found.home == Path("/home/me/.local/share/claw")
    assert found.run == found.home / "run"


def test_every_place_wins_over_the_next(environ: dict[str, str], tmp_path: Path) -> None:
    """Flag, environment, --config, the user's file, the host's file, AWS variables, default: taken away one by one."""
    own = write(tmp_path / "me/.config/claw/runtime.toml", 'region = "user-file"')
    host = write(tmp_path / "etc/runtime.toml", 'region = "host-file"')
    config = write(tmp_path / "given.toml", 'region = "config-file"')
    environ |= {"CLAW_S3_REGION": "variable", "AWS_REGION": "aws"}

    def region(flags: dict[str, str] | None = None, given: Path | None = None) -> tuple[str | None, str]:
        found = load(environ, tmp_path, flags=flags, config=given)
        return found.region, found.origins["region"]

    assert region({"region": "flag"}, config) == ("flag", "flag")
    assert region(None, config) == ("variable", "CLAW_S3_REGION")
    del environ["CLAW_S3_REGION"]
    assert region(None, config) == ("config-file", str(config))
    assert region() == ("user-file", str(own))
    own.unlink()
    assert region() == ("host-file", str(host))
    host.unlink()
    assert region() == ("aws", "AWS_REGION")
    del environ["AWS_REGION"]
    assert region() == (None, "default")


def test_every_setting_can_be_given_in_every_way(environ: dict[str, str], tmp_path: Path) -> None:
    """Environment and file know the same settings as `Settings` has fields."""
    values = {
        "home": "/srv/h",
        "run": "/srv/r",
        "workloads": "/srv/w",
        "bucket": "s3://b/p",
        "endpoint": "https://s3",
        "region": "r",
        "access_key": "access-key",
        "secret_key": "secret-key",
        "session_token": "session-token",
        "encryption_key_file": "/etc/claw/key",
        "cgroup_parent": "/claw",
        "limits": "drop",
        "services": "units",
        "lease_ttl": "2m",
        "listen": "127.0.0.1:7070",
        "allow_hosts": "api.example.org, api",
        "allow_origins": "https://console.example.org",
        "ingress": "127.0.0.1:8080",
        "ingress_url": "https://claw.example.org",
        "ingress_proxies": "127.0.0.1, 10.0.0.5",
    }
    assert set(values) == set(settings.ENVIRONMENT) == set(settings.Settings.__dataclass_fields__) - {"origins"}
    by_variable = load(environ | {settings.ENVIRONMENT[name]: value for name, value in values.items()}, tmp_path)
    toml = write(tmp_path / "a.toml", "".join(f'{name} = "{value}"\n' for name, value in values.items()))
    by_file = load(environ, tmp_path, config=toml)
    by_flag = load(environ, tmp_path, flags=values)
    assert by_variable == by_file == by_flag
    assert "default" not in by_file.origins.values()


def test_keys_are_boxed(environ: dict[str, str], tmp_path: Path) -> None:
    """No credential shows in the settings' own text."""
    environ |= {"CLAW_S3_ACCESS_KEY": "canary-access", "CLAW_S3_SECRET_KEY": "canary-secret"}
    found = load(environ, tmp_path)
    assert found.secret_key == Secret("canary-secret")
    assert "canary" not in repr(found)


def test_standard_aws_variables_stand_in(environ: dict[str, str], tmp_path: Path) -> None:
    """A host that is set up for other S3 tools needs nothing more."""
    environ |= {
        "AWS_ACCESS_KEY_ID": "aws-access",
        "AWS_SECRET_ACCESS_KEY": "aws-secret",
        "AWS_SESSION_TOKEN": "aws-session",
    }
    environ |= {"AWS_ENDPOINT_URL": "https://all", "AWS_ENDPOINT_URL_S3": "https://only-s3", "AWS_DEFAULT_REGION": "eu"}
    found = load(environ, tmp_path)
    assert (found.access_key, found.session_token) == (Secret("aws-access"), Secret("aws-session"))
    assert (found.endpoint, found.region) == ("https://only-s3", "eu")
    assert found.origins["secret_key"] == "AWS_SECRET_ACCESS_KEY"


def test_pairs_of_keys_are_never_mixed(environ: dict[str, str], tmp_path: Path) -> None:
    """Our own keys come without another account's session token, and half a pair is an error."""
    environ |= {
        "AWS_ACCESS_KEY_ID": "aws-access",
        "AWS_SECRET_ACCESS_KEY": "aws-secret",
        "AWS_SESSION_TOKEN": "aws-session",
    }
    environ["CLAW_S3_ACCESS_KEY"] = "own-access"
    with pytest.raises(InvalidSpec, match="access_key without secret_key") as caught:
        load(environ, tmp_path)
    assert caught.value.why == "access_key comes from CLAW_S3_ACCESS_KEY"
    assert "CLAW_S3_SECRET_KEY" in caught.value.hint
    environ["CLAW_S3_SECRET_KEY"] = "own-secret"
    assert load(environ, tmp_path).session_token is None


def test_an_unknown_key_is_refused_where_it_stands(environ: dict[str, str], tmp_path: Path) -> None:
    """File, line and the key that was probably meant."""
    path = write(tmp_path / "etc/runtime.toml", '# the host\nhome = "/srv/h"\nbuckett = "s3://b"\n')
    with pytest.raises(InvalidSpec) as caught:
        load(environ, tmp_path)
    assert caught.value.brief == f"{path}:3: unknown key 'buckett'"
    assert caught.value.hint == "did you mean 'bucket'?"


@pytest.mark.parametrize("text", ["home = 3", "[home]\na = 1", 'home = ""', "home = true"])
def test_a_wrong_type_is_refused(environ: dict[str, str], tmp_path: Path, text: str) -> None:
    """Every setting is a text; the message says how to write it."""
    write(tmp_path / "etc/runtime.toml", text)
    with pytest.raises(InvalidSpec, match=r"runtime.toml:1: home is not a text") as caught:
        load(environ, tmp_path)
    assert 'home = "' in caught.value.hint


def test_broken_toml_is_refused_with_its_line(environ: dict[str, str], tmp_path: Path) -> None:
    """The parser's own position reaches the person."""
    write(tmp_path / "etc/runtime.toml", 'home = "/a"\nhome = "/b"\n')
    with pytest.raises(InvalidSpec, match="not TOML") as caught:
        load(environ, tmp_path)
    assert "line 2" in caught.value.why


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_file_with_keys_must_be_private(environ: dict[str, str], tmp_path: Path, mode: int) -> None:
    """A configuration that others can read may hold anything but credentials."""
    path = write(tmp_path / "etc/runtime.toml", 'access_key = "a"\n', mode)
    with pytest.raises(InvalidSpec, match="is accessible to other users") as caught:
        load(environ, tmp_path)
    assert caught.value.hint == f"chmod 0600 {path}"
    write(path, 'bucket = "s3://b"', 0o644)
    assert load(environ, tmp_path).bucket == "s3://b"


def test_a_config_that_was_asked_for_must_exist(environ: dict[str, str], tmp_path: Path) -> None:
    """By flag or CLAW_CONFIG: a misspelt path is not silently the default."""
    with pytest.raises(InvalidSpec, match="no such file"):
        load(environ, tmp_path, config=tmp_path / "nowhere.toml")
    with pytest.raises(InvalidSpec, match="no such file"):
        load(environ | {"CLAW_CONFIG": str(tmp_path / "nowhere.toml")}, tmp_path)


def test_relative_paths_belong_to_the_place_that_says_them(environ, tmp_path: Path, monkeypatch) -> None:
    """In a file they are relative to that file, elsewhere to where the person stands; `~` is the home directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    path = write(tmp_path / "conf/a.toml", 'home = "../data"\nrun = "~/r"\n')
    found = load(environ | {"CLAW_WORKLOADS": "w"}, tmp_path, config=path)
    assert (found.home, found.run, found.workloads) == (tmp_path / "data", Path("/home/me/r"), tmp_path / "w")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bucket", "my-bucket"),
        ("bucket", "gs://b"),
        ("endpoint", "localhost:8333"),
        ("cgroup_parent", "claw"),
        ("limits", "no"),
    ],
)
def test_a_value_of_the_wrong_form_is_refused(environ, tmp_path: Path, name: str, value: str) -> None:
    """The message names the setting and where it came from; the hint has a right one."""
    with pytest.raises(InvalidSpec, match=name) as caught:
        load(environ | {settings.ENVIRONMENT[name]: value}, tmp_path)
    assert settings.ENVIRONMENT[name] in caught.value.why
    assert "write" in caught.value.hint


def test_a_run_directory_too_long_for_a_socket_is_refused(environ, tmp_path: Path) -> None:
    """Better here than as 'AF_UNIX path too long' from a child; 107 bytes still fit."""
    socket = "/podman.sock"
    longest = "/" + "r" * (107 - len(socket) - 1)
    assert load(environ | {"CLAW_RUN": longest}, tmp_path).run == Path(longest)
    with pytest.raises(InvalidSpec, match="too long") as caught:
        load(environ | {"CLAW_RUN": longest + "r"}, tmp_path)
    assert "CLAW_RUN" in caught.value.hint


@pytest.mark.parametrize("name", ["a b", "e,f", "a\tb", "a\nb"])
@pytest.mark.parametrize("variable", ["CLAW_HOME", "CLAW_RUN"])
def test_a_directory_whose_name_would_be_cut_is_refused(environ, tmp_path: Path, variable: str, name: str) -> None:
    """Podman's mounts and the S3 server end such a name early: the error names the character and the variable."""
    with pytest.raises(InvalidSpec) as refused:
        load(environ | {variable: f"/srv/{name}"}, tmp_path)
    assert repr(name[1]) in refused.value.brief
    assert variable in refused.value.hint
    odd = "/srv/c:d=q'uote-ü"
    assert load(environ | {variable: odd}, tmp_path).home is not None


def test_an_unknown_flag_is_refused(environ: dict[str, str], tmp_path: Path) -> None:
    """A face that misspells a setting fails instead of being ignored."""
    with pytest.raises(InvalidSpec, match="unknown setting 'bukket'"):
        load(environ, tmp_path, flags={"bukket": "s3://b"})


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:7070", ("127.0.0.1", 7070)),
        ("localhost:0", ("127.0.0.1", 0)),
        ("[::1]:7070", ("::1", 7070)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),
    ],
)
def test_an_address_to_listen_on(environ, tmp_path: Path, text: str, address: tuple[str, int]) -> None:
    """An address of either family and a port, or localhost."""
    assert load(environ, tmp_path, flags={"listen": text}).listen == address


@pytest.mark.parametrize(
    "text", ["7070", ":7070", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "::1:7070", "example.org:1"]
)
def test_what_is_no_address_is_refused(environ, tmp_path: Path, text: str) -> None:
    """A name, a bare port, a port out of range: one error that shows the form."""
    with pytest.raises(InvalidSpec, match="listen is not an address and port") as caught:
        load(environ, tmp_path, flags={"listen": text})
    assert "127.0.0.1:7070" in caught.value.hint


def test_names_and_origins_are_lists(environ, tmp_path: Path) -> None:
    """They are separated by commas or spaces, and compared in lower case, as browsers write them."""
    environ |= {"CLAW_ALLOW_HOSTS": "A.example.org, b", "CLAW_ALLOW_ORIGINS": "https://A.example.org http://b:81"}
    found = load(environ, tmp_path)
    assert found.allow_hosts == ("a.example.org", "b")
    assert found.allow_origins == ("https://a.example.org", "http://b:81")


@pytest.mark.parametrize("text", ["*", "null", "console.example.org", "https://a/", "https://*.example.org"])
def test_what_is_no_origin_is_refused(environ, tmp_path: Path, text: str) -> None:
    """A wildcard, a path, a name without a scheme would never be what a browser sends, or would let everybody in."""
    with pytest.raises(InvalidSpec, match="allow_origins contains an invalid origin"):
        load(environ, tmp_path, flags={"allow_origins": text})


@pytest.mark.parametrize("text", ["claw.example.org", "https://a/b", "https://*.example.org", "ftp://a", "https://a:b"])
def test_what_is_no_public_address_is_refused(environ, tmp_path: Path, text: str) -> None:
    """Tenants' names are put before its name, so there is no wildcard in it, and no path after it."""
    with pytest.raises(InvalidSpec, match="ingress_url is not an address without a path"):
        load(environ, tmp_path, flags={"ingress_url": text})


def test_a_public_address_is_compared_as_browsers_write_it(environ, tmp_path: Path) -> None:
    """A slash at its end means nothing, and names are in lower case."""
    environ |= {"CLAW_INGRESS": "[::1]:8080", "CLAW_INGRESS_URL": "https://Claw.Example.org/"}
    found = load(environ, tmp_path)
    assert (found.ingress, found.ingress_url) == (("::1", 8080), "https://claw.example.org")


def test_a_proxy_with_tls_is_on_this_host_unless_another_is_named(environ, tmp_path: Path) -> None:
    """The router has no TLS, so an address with TLS means a proxy."""
    assert load(environ, tmp_path, flags={"ingress_url": "http://claw.example.org"}).ingress_proxies == ()
    assert load(environ, tmp_path, flags={"ingress_url": "https://claw.example.org"}).ingress_proxies == (
        "127.0.0.1",
        "::1",
    )
    named = {"ingress_url": "https://claw.example.org", "ingress_proxies": "10.0.0.5 fe80::1"}
    assert load(environ, tmp_path, flags=named).ingress_proxies == ("10.0.0.5", "fe80::1")
    with pytest.raises(InvalidSpec, match="ingress_proxies contains no address"):
        load(environ, tmp_path, flags={"ingress_proxies": "10.0.0.0/8"})
