"""Values come from the first place that has them, for allowlisted names only."""

import os
from pathlib import Path

import pytest
from claw_entrypoint.contract import Contract, parse
from claw_entrypoint.errors import SeedError
from claw_entrypoint.log import Log
from claw_entrypoint.values import collect, is_reference, scrub
from fakes.image_root import contract_document, events, hand_over

STRICT, LENIENT = Log(strict=True), Log(strict=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "run/claw").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def contract() -> Contract:
    """Two optional names, A and B, and nothing else."""
    names = {name: {"need": "optional", "secret": True} for name in ("A", "B")}
    document = contract_document() | {"values": names, "features": {}}
    del document["probes"]["ready"]["bearer"], document["discovery"]
    return parse(document)


def test_the_runtime_file_wins_over_a_file_and_that_over_the_environment(root: Path, contract: Contract) -> None:
    """Taking away the first source uncovers the second, and that one the third."""
    secret = root / "secret"
    secret.write_text("from file\n")
    environment = {"A": "from environment", "A_FILE": str(secret)}

    hand_over(root, A="from runtime")
    assert collect(contract, environment, STRICT, str(root)) == {"A": "from runtime"}
    hand_over(root)
    assert collect(contract, environment, STRICT, str(root)) == {"A": "from file"}
    del environment["A_FILE"]
    assert collect(contract, environment, STRICT, str(root)) == {"A": "from environment"}
    assert collect(contract, {}, STRICT, str(root)) == {}


def test_without_a_runtime_file_the_environment_serves(root: Path, contract: Contract) -> None:
    """A person's `podman run -e` needs no file, nor its directory."""
    assert collect(contract, {"A": "x"}, STRICT, str(root / "nowhere")) == {"A": "x"}


def test_a_name_outside_the_allowlist_is_never_read_from_the_environment(root: Path, contract: Contract) -> None:
    """Neither `C` nor `C_FILE` is looked at."""
    assert collect(contract, {"C": "y", "C_FILE": "/nowhere", "B": "x"}, STRICT, str(root)) == {"B": "x"}


def test_an_empty_text_is_no_value(root: Path, contract: Contract) -> None:
    """Empty in one place, the value of the next place counts; empty everywhere, it is missing."""
    empty = root / "empty"
    empty.write_text("\n")
    hand_over(root, A="", B="")

    assert collect(contract, {"A": "x", "B": "", "B_FILE": str(empty)}, STRICT, str(root)) == {"A": "x"}


def test_an_overruled_source_is_not_read(root: Path, contract: Contract) -> None:
    """A `NAME_FILE` that is gone does no harm when the runtime gave the value."""
    hand_over(root, A="x")

    assert collect(contract, {"A_FILE": "/nowhere"}, STRICT, str(root)) == {"A": "x"}


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ("x\n", "x"),
        ("x\n\n", "x"),
        ("x\r\n", "x"),
        ("x\r\ny\r\n", "x\r\ny"),
        ("\ufeffx", "x"),
        ("x", "x"),
        (" x ", " x "),
        ("é", "é"),
    ],
)
def test_line_ends_at_the_end_of_a_file_are_the_editor_s(
    root: Path, contract: Contract, content: str, value: str
) -> None:
    """They are taken off, and so is a byte order mark; nothing else is."""
    (root / "secret").write_bytes(content.encode())

    assert {"A": value} == collect(contract, {"A_FILE": str(root / "secret")}, STRICT, str(root))


def test_a_mounted_secret_may_be_reached_through_links(root: Path, contract: Contract) -> None:
    """Kubernetes mounts secrets as links into a dated directory."""
    (root / "..data").mkdir()
    (root / "..data/a").write_text("x")
    (root / "a").symlink_to("..data/a")

    assert collect(contract, {"A_FILE": str(root / "a")}, STRICT, str(root)) == {"A": "x"}


def spoil(root: Path, how: str) -> dict[str, str]:
    """Make one source unfit; the environment that goes with it."""
    place, secret = root / "run/claw/values.json", root / "secret"
    match how:
        case "not allowlisted":
            hand_over(root, C="sesame")
        case "NUL from the runtime":
            hand_over(root, A="ses\0ame")
        case "surrogate from the runtime":
            place.write_text('{"v": 1, "values": {"A": "sesame\\ud800"}}')
        case "a number":
            hand_over(root, A=1)
        case "not JSON":
            place.write_text('{"A": sesame')
        case "not UTF-8 JSON":
            place.write_bytes(b'{"A": "\xff"}')
        case "another version":
            place.write_text('{"v": 2, "values": {"A": "sesame"}}')
        case "another form":
            place.write_text('["sesame"]')
        case "values not an object":
            place.write_text('{"v": 1, "values": ["sesame"]}')
        case "a directory":
            place.mkdir()
        case "a FIFO":
            os.mkfifo(place)
        case "NUL from a file":
            secret.write_text("ses\0ame")
        case "not UTF-8":
            secret.write_bytes(b"sesame\xff")
        case "a FIFO as secret":
            os.mkfifo(secret)
        case "endless":
            secret.symlink_to("/dev/zero")
        case "too large":
            secret.write_bytes(b"x" * ((1 << 20) + 1))
        case "not UTF-8 in the environment":
            return {"A": "sesame\udcff"}
        case "gone":
            pass
    return {"A_FILE": str(secret)} if secret.exists() or how == "gone" else {}


UNFIT = [
    ("not allowlisted", "holds C, which the contract does not allow"),
    ("NUL from the runtime", "A from /run/claw/values.json holds a NUL"),
    ("surrogate from the runtime", "is not UTF-8"),
    ("a number", "A is not a text"),
    ("not JSON", "is not JSON"),
    ("not UTF-8 JSON", "is not JSON in UTF-8"),
    ("another version", "is not of the form"),
    ("another form", "is not of the form"),
    ("values not an object", "is not of the form"),
    ("a directory", "not a regular file"),
    ("a FIFO", "not a regular file"),
    ("NUL from a file", "A from the file that A_FILE names holds a NUL"),
    ("not UTF-8", "is not UTF-8 text"),
    ("a FIFO as secret", "not a regular file"),
    ("endless", "not a regular file"),
    ("too large", "more than"),
    ("not UTF-8 in the environment", "is not UTF-8 text"),
    ("gone", "A_FILE: cannot read"),
]


@pytest.mark.parametrize(("how", "what"), UNFIT)
def test_an_unfit_source_ends_a_start_and_only_warns_a_command(
    root: Path, contract: Contract, how: str, what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Strict: exit code 78, saying which name or file and what to do. Lenient: a warning. Never the value."""
    environment = {"B": "fine"} | spoil(root, how)

    with pytest.raises(SeedError) as caught:
        collect(contract, environment, STRICT, str(root))
    assert what in caught.value.brief
    assert caught.value.hint
    assert caught.value.exit_code == 78

    assert collect(contract, environment, LENIENT, str(root)) == {"B": "fine"}
    [warning] = events(text := capfd.readouterr().err)
    assert (warning["level"], warning["event"]) == ("warning", "seed.defect")
    assert "ses" not in text + caught.value.brief


def test_the_gateway_s_environment_has_no_value_of_the_allowlist(contract: Contract) -> None:
    """Names, and the files they may be read from, are taken out; all else stays."""
    environment = {"A": "x", "A_FILE": "/a", "B_FILE": "/b", "PATH": "/bin", "A_FILES": "y", "AB": "z"}

    assert scrub(contract, environment) == {"PATH": "/bin", "A_FILES": "y", "AB": "z"}


@pytest.mark.parametrize("secret", ["${ONE}", "$ONE", " ${PATH}", "secretref-env:HOME", "__env__:HOME"])
def test_a_secret_that_is_a_reference_is_named(secret: str) -> None:
    """OpenClaw resolves it again after its expansion, whatever is escaped, and ends with an error that names nothing of
    it: the start ends before, with the value's name and without its text. A command starts all the same."""
    contract = parse(contract_document())
    given = {"CLAW_MODEL_API_KEY": secret}
    with pytest.raises(SeedError, match="CLAW_MODEL_API_KEY from the environment") as refused:
        collect(contract, given, Log(strict=True), "/nonexistent")
    assert secret.strip() not in f"{refused.value.brief}{refused.value.hint}"
    assert collect(contract, given, Log(strict=False), "/nonexistent")["CLAW_MODEL_API_KEY"] == secret


def test_other_texts_are_no_references() -> None:
    """Only a whole name in one of the forms is one, and only of a secret."""
    for text in (
        "",
        "$",
        "${}",
        "${one}",
        "a${ONE}",
        "${ONE}a",
        "$${ONE}",
        "$1",
        "${ONE}${TWO}",
        "secretref-env:",
        "x",
    ):
        assert not is_reference(text), text
    contract = parse(contract_document())
    assert collect(contract, {"CLAW_MODEL_ID": "${X}"}, Log(strict=True), "/nonexistent") == {"CLAW_MODEL_ID": "${X}"}
