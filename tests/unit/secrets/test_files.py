"""A tenant's secrets come from files that nobody else can read, and from no other tenant."""

import os
import stat
import threading
from pathlib import Path

import pytest
from claw_runtime.errors import DiskFull, InvalidSpec
from claw_runtime.secrets import files
from claw_runtime.secrets.files import SecretFiles
from claw_runtime.tenancy import Layout, tenant_id

ALICE, BOB = tenant_id("alice"), tenant_id("bob")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A home of its own."""
    return Layout(home=tmp_path / "home", run=tmp_path / "run")


def put(directory: Path, name: str, data: bytes, mode: int = 0o600) -> Path:
    """Write one secret file."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_bytes(data)
    path.chmod(mode)
    return path


def test_a_tenants_value_wins_over_the_shared_one(layout: Layout) -> None:
    """The shared directory stands in where the tenant has no value, and a name with neither is left out."""
    source = SecretFiles(layout)
    put(source.shared, "API_KEY", b"shared-key\n")
    put(source.shared, "OTHER", b"shared-other")
    put(layout.secrets(ALICE), "API_KEY", b"alice-key\n")
    values = source.read(ALICE, ["API_KEY", "OTHER", "ABSENT"])
    assert {name: value.reveal() for name, value in values.items()} == {"API_KEY": "alice-key", "OTHER": "shared-other"}
    assert source.read(BOB, ["API_KEY"])["API_KEY"].reveal() == "shared-key"


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\n\n", b"\r\n\r\n", b"\r"])
def test_line_ends_at_the_end_are_taken_off(layout: Layout, end: bytes) -> None:
    """What editors add, of any system, is removed; blanks and the secret's own lines are not."""
    put(layout.secrets(ALICE), "A", b" one\r\ntwo " + end)
    assert SecretFiles(layout).read(ALICE, ["A"])["A"].reveal() == " one\r\ntwo "


def test_the_mark_of_utf8_is_taken_off(layout: Layout) -> None:
    """Editors of Windows begin a file with it; it is part of no secret."""
    put(layout.secrets(ALICE), "A", b"\xef\xbb\xbfkey\r\n")
    assert SecretFiles(layout).read(ALICE, ["A"])["A"].reveal() == "key"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o666, 0o601])
def test_a_file_that_others_can_use_is_refused(layout: Layout, mode: int) -> None:
    """Any right of group or world refuses it, with the command that mends it and without its content."""
    path = put(layout.secrets(ALICE), "A", b"canary-value", mode)
    with pytest.raises(InvalidSpec) as caught:
        SecretFiles(layout).read(ALICE, ["A"])
    assert f"chmod 0600 {path}" in caught.value.hint
    assert f"{mode:04o}" in caught.value.why
    assert "canary" not in f"{caught.value}{caught.value.hint}{caught.value.facts}"


def test_a_refused_file_does_not_fall_back_to_the_shared_one(layout: Layout) -> None:
    """A tenant with a bad file gets an error, never silently another value."""
    source = SecretFiles(layout)
    put(source.shared, "A", b"shared")
    put(layout.secrets(ALICE), "A", b"own", 0o644)
    with pytest.raises(InvalidSpec):
        source.read(ALICE, ["A"])


@pytest.mark.parametrize(
    ("data", "why"),
    [(b"", "empty"), (b"\n", "empty"), (b"a\0b", "NUL"), (b"\xff\xfe", "UTF-8"), (b"x" * 65_537, "64 KiB")],
    ids=["empty", "newline", "nul", "latin", "large"],
)
def test_a_value_that_cannot_be_one_is_refused(layout: Layout, data: bytes, why: str) -> None:
    """An empty, binary or huge file is a mistake, and says which."""
    put(layout.secrets(ALICE), "A", data)
    with pytest.raises(InvalidSpec) as caught:
        SecretFiles(layout).read(ALICE, ["A"])
    assert why in caught.value.why


def test_links_fifos_and_directories_are_refused(layout: Layout, tmp_path: Path) -> None:
    """A link could lead to another tenant's file, and a FIFO must not hang the daemon."""
    source = SecretFiles(layout)
    target = put(layout.secrets(BOB), "A", b"bobs")
    directory = layout.secrets(ALICE)
    directory.mkdir(parents=True)
    (directory / "LINK").symlink_to(target)
    os.mkfifo(directory / "FIFO", 0o600)
    (directory / "DIR").mkdir(mode=0o700)
    for name in ("LINK", "FIFO", "DIR"):
        with pytest.raises(InvalidSpec, match="secret refused"):
            source.read(ALICE, [name])


def test_a_file_of_another_user_is_refused(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever owns the file can change it, so it must be us."""
    put(layout.secrets(ALICE), "A", b"value")
    monkeypatch.setattr(files.os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(InvalidSpec) as caught:
        SecretFiles(layout).read(ALICE, ["A"])
    assert "belongs to user" in caught.value.why


@pytest.mark.parametrize("name", ["", "../A", "a/b", ".hidden", "A B", "A\n", "1A", "a" * 200])
def test_a_name_that_is_a_path_is_refused(layout: Layout, name: str) -> None:
    """A name never leaves its directory."""
    with pytest.raises(InvalidSpec, match="name"):
        SecretFiles(layout).read(ALICE, [name])
    with pytest.raises(InvalidSpec, match="name"):
        SecretFiles(layout).generate(ALICE, name)


def test_a_generated_token_is_made_once(layout: Layout) -> None:
    """32 random bytes, mode 0600 in a 0700 directory, the same at the next call, another for another tenant."""
    source = SecretFiles(layout)
    old = os.umask(0)
    try:
        first, path = source.generate(ALICE, "TOKEN")
    finally:
        os.umask(old)
    assert len(first.reveal()) == 43
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert source.generate(ALICE, "TOKEN") == (first, path)
    assert source.read(ALICE, ["TOKEN"])["TOKEN"] == first
    assert source.generate(BOB, "TOKEN")[0] != first
    assert [entry.name for entry in path.parent.iterdir()] == ["TOKEN"], "no draft is left"


def test_an_existing_value_is_never_replaced(layout: Layout) -> None:
    """What an operator wrote is used, and what an operator wrote badly is refused, not overwritten."""
    put(layout.secrets(ALICE), "TOKEN", b"chosen-by-hand\n")
    assert SecretFiles(layout).generate(ALICE, "TOKEN")[0].reveal() == "chosen-by-hand"
    path = put(layout.secrets(BOB), "TOKEN", b"open", 0o644)
    with pytest.raises(InvalidSpec):
        SecretFiles(layout).generate(BOB, "TOKEN")
    assert path.read_bytes() == b"open"


def test_many_generators_agree(layout: Layout) -> None:
    """Claims that race for one token all get the one that is on disk."""
    source = SecretFiles(layout)
    found: list[str] = []
    barrier = threading.Barrier(8)

    def run() -> None:
        barrier.wait()
        found.append(source.generate(ALICE, "TOKEN")[0].reveal())

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert set(found) == {(layout.secrets(ALICE) / "TOKEN").read_text()}


def test_a_full_disk_is_named_and_leaves_nothing(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """No half token remains for the next start to believe."""

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(DiskFull):
        SecretFiles(layout).generate(ALICE, "TOKEN")
    assert list(layout.secrets(ALICE).iterdir()) == []


def test_a_kill_leaves_no_half_secret(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it is whole, a secret lies only where the next start of the daemon removes everything."""
    drafts: list[Path] = []
    link = os.link
    monkeypatch.setattr(os, "link", lambda source, target: (drafts.append(Path(source)), link(source, target)))
    SecretFiles(layout).generate(ALICE, "TOKEN")
    assert [draft.parent for draft in drafts] == [layout.scratch]
    assert [path.name for path in layout.secrets(ALICE).iterdir()] == ["TOKEN"]


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A secret manager's directory of this user, with one generation, as sops-nix makes it."""
    run = tmp_path / "run-user"
    generation = run / "secrets.d/1"
    generation.mkdir(parents=True, mode=0o700)
    (run / "secrets").symlink_to(generation)
    file = generation / "KEY"
    file.write_text("managed")
    file.chmod(0o400)
    for path in (run, run / "secrets.d", generation):
        path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(run))
    return run


def linked(layout: Layout, target: Path) -> Path:
    directory = layout.home / "secrets"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    (directory / "KEY").symlink_to(target)
    return directory / "KEY"


def test_a_link_into_a_secret_manager_is_followed(layout: Layout, manager: Path) -> None:
    """Through the manager's own link to its newest generation; a new generation counts at the next claim."""
    linked(layout, manager / "secrets/KEY")
    assert SecretFiles(layout).read(tenant_id("alice"), ["KEY"])["KEY"].reveal() == "managed"
    later = manager / "secrets.d/2"
    later.mkdir(mode=0o700)
    (later / "KEY").write_text("newer")
    (later / "KEY").chmod(0o400)
    (manager / "secrets").unlink()
    (manager / "secrets").symlink_to(later)
    assert SecretFiles(layout).read(tenant_id("alice"), ["KEY"])["KEY"].reveal() == "newer"


@pytest.mark.parametrize("fault", ["elsewhere", "out again", "nowhere", "open to others", "writable on the way"])
def test_a_link_that_others_may_have_chosen_is_refused(
    layout: Layout, manager: Path, tmp_path: Path, fault: str
) -> None:
    """Outside the managers' directories, also by a second link; to no file; to one that others can read or replace."""
    target = manager / "secrets/KEY"
    other = tmp_path / "other"
    other.write_text("x")
    other.chmod(0o600)
    if fault == "elsewhere":
        target = other
    elif fault == "out again":
        target = manager / "secrets/OUT"
        target.symlink_to(other)
    elif fault == "nowhere":
        target = manager / "secrets/NONE"
    elif fault == "open to others":
        (manager / "secrets.d/1/KEY").chmod(0o440)
    else:
        (manager / "secrets.d").chmod(0o770)
    linked(layout, target)
    with pytest.raises(InvalidSpec, match="secret refused") as refused:
        SecretFiles(layout).read(tenant_id("alice"), ["KEY"])
    assert refused.value.hint
