"""The `podman` commands for images, with a small program in Podman's place."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from claw_runtime.engine import images, volatile
from claw_runtime.engine.images import BuildRecipe
from claw_runtime.errors import BuildFailed, DiskFull, EngineUnavailable, ImageMissing
from claw_runtime.ports import Bind


def silent(line: str) -> None:
    """Nobody listens."""


@pytest.fixture
def podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file for the stand-in's script; its arguments go to `arguments` beside it."""
    program = tmp_path / "bin" / "podman"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return program


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Something to load."""
    (tmp_path / "x.tar").write_bytes(b"archive")
    return tmp_path / "x.tar"


def says(program: Path, script: str) -> None:
    """Let the stand-in note its arguments and go on with `script`."""
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "$(dirname "$0")/arguments"\n{script}\n')
    program.chmod(0o755)


def test_a_build_is_described_by_its_arguments_alone() -> None:
    """Every part of a recipe is one argument, the context comes last, after `--`."""
    recipe = BuildRecipe(
        context=Path("-context"),
        containerfile=Path("/r/Containerfile"),
        tag="localhost/x:1",
        build_args={"BASE": "a b", "EMPTY": ""},
        labels={"io.claw.a": "1=2"},
        volumes=[Bind(source=Path("/s"), target="/t", read_only=True)],
        secrets={"token": Path("/k")},
        timestamp=0,
        jobs=2,
    )
    argv = images.build_argv(recipe, Path("/id"))
    assert argv[:2] == ["podman", "build"]
    assert argv[-2:] == ["--", "-context"]
    assert {
        "--network=host",
        "--file=/r/Containerfile",
        "--tag=localhost/x:1",
        "--iidfile=/id",
        "--build-arg=BASE=a b",
        "--build-arg=EMPTY=",
        "--label=io.claw.a=1=2",
        "--volume=/s:/t:ro",
        "--secret=id=token,src=/k",
        "--timestamp=0",
        "--jobs=2",
    } <= set(argv)


def test_what_a_recipe_leaves_out_is_not_asked_for() -> None:
    """And never a cgroup parent, in which buildah would kill everything."""
    argv = images.build_argv(BuildRecipe(context=Path("c"), containerfile=Path("f"), tag="t"), Path("i"))
    absent = ("--timestamp", "--volume", "--secret", "--build-arg", "--label", "--cgroup-parent")
    assert not [argument for argument in argv if argument.startswith(absent)]


@pytest.mark.spawns
def test_a_build_tells_each_line_and_gives_the_id(podman: Path, tmp_path: Path) -> None:
    """Both streams of Podman come line by line."""
    find_id_file = """for a in "$@"; do case $a in --iidfile=*) printf sha256:abc > "${a#--iidfile=}";; esac; done"""
    says(podman, f"echo STEP 1; echo warning >&2; {find_id_file}")
    told: list[str] = []
    recipe = BuildRecipe(context=tmp_path, containerfile=tmp_path / "Containerfile", tag="localhost/x:1")
    assert images.build(recipe, told.append) == "abc"
    assert sorted(told) == ["STEP 1", "warning"]


@pytest.mark.spawns
def test_a_failed_build_keeps_its_last_lines(podman: Path, tmp_path: Path) -> None:
    """BuildFailed holds the last twenty lines, the newest at the end."""
    says(podman, "seq 1 50; echo 'Error: npm ERR! 404' >&2; exit 1")
    recipe = BuildRecipe(context=tmp_path, containerfile=tmp_path / "Containerfile", tag="localhost/x:1")
    with pytest.raises(BuildFailed, match="localhost/x:1") as caught:
        images.build(recipe, silent)
    assert caught.value.why.splitlines()[-1] == "Error: npm ERR! 404"
    assert len(caught.value.why.splitlines()) == 20


@pytest.mark.spawns
def test_a_full_disk_is_named(podman: Path, archive: Path) -> None:
    """Whatever else Podman says around it."""
    says(podman, "echo 'Error: writing blob: no space left on device' >&2; exit 125")
    with pytest.raises(DiskFull):
        images.load(archive, silent)


@pytest.mark.spawns
@pytest.mark.parametrize(
    ("said", "names"),
    [
        ("Loaded image: localhost/a:1", ["localhost/a:1"]),
        ("Loaded image: localhost/a:1\nLoaded image: localhost/b:1", ["localhost/a:1", "localhost/b:1"]),
        ("Loaded image(s): localhost/a:1,localhost/b:1", ["localhost/a:1", "localhost/b:1"]),
    ],
)
def test_loading_tells_the_names(podman: Path, archive: Path, said: str, names: list[str]) -> None:
    """In the words of any Podman, amid its progress."""
    says(podman, f"echo Copying blob; echo '{said}'")
    assert images.load(archive, silent) == names


@pytest.mark.spawns
def test_an_import_carries_its_changes(podman: Path) -> None:
    """Each change is one argument; the file comes after `--`."""
    says(podman, "")
    images.import_rootfs(Path("-r.tar"), "localhost/base:1", silent, changes=['ENTRYPOINT ["/a b"]'])
    arguments = (podman.parent / "arguments").read_text().splitlines()
    assert arguments == ["import", '--change=ENTRYPOINT ["/a b"]', "--", "-r.tar", "localhost/base:1"]


@pytest.mark.spawns
def test_tagging_a_missing_image_says_so(podman: Path) -> None:
    """Whatever Podman's words are: the image is looked for."""
    says(podman, "echo 'Error: x: image not known' >&2; exit 125")
    with pytest.raises(ImageMissing, match="localhost/none:1"):
        images.tag("localhost/none:1", "localhost/x:1")


@pytest.mark.spawns
def test_a_listener_that_raises_ends_the_command(podman: Path, archive: Path) -> None:
    """An exception in the listener reaches the caller at once, and Podman is gone."""
    says(podman, "echo $$; exec sleep 60")
    told: list[str] = []

    def give_up(line: str) -> None:
        told.append(line)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        images.load(archive, give_up)
    assert not Path(f"/proc/{told[0]}").exists()


@pytest.mark.spawns
@pytest.mark.parametrize("call", [images.exists, lambda path: images.load(Path(path), silent)])
def test_without_podman_the_hint_says_how_to_get_it(
    podman: Path, archive: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[[str], object]
) -> None:
    """EngineUnavailable, from every function."""
    monkeypatch.setenv("PATH", str(podman.parent))
    with pytest.raises(EngineUnavailable, match="not installed"):
        call(str(archive))


@pytest.mark.spawns
@pytest.mark.parametrize("piped", [False, True])
def test_gzip_is_taken_off_before_podman_sees_it(
    podman: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piped: bool
) -> None:
    """Podman 4.3.1 refuses gzip; it gets the plain archive, from a file or from standard input, and no copy stays."""
    says(podman, 'cp "${2#--input=}" "$(dirname "$0")/seen"; echo "Loaded image: x"')
    packed = tmp_path / "x.tar.gz"
    packed.write_bytes(gzip.compress(b"archive"))
    monkeypatch.setenv("TMPDIR", str(podman.parent))
    with packed.open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert images.load(None if piped else packed, silent) == ["x"]
    assert (podman.parent / "seen").read_bytes() == b"archive"
    assert {path.name for path in podman.parent.iterdir()} == {"podman", "arguments", "seen"}


@pytest.mark.spawns
@pytest.mark.parametrize("reset", [True, False])
def test_an_image_is_not_missing_because_podman_refuses_to_work(
    podman: Path, monkeypatch: pytest.MonkeyPatch, *, reset: bool
) -> None:
    """After all processes of the user were killed, Podman is reset and asked again. If that fails, it is the error."""
    mark = podman.with_name("reset")
    says(podman, f"[ -e {mark} ] || {{ echo 'try \"podman system migrate\"' >&2; exit 1; }}")
    monkeypatch.setattr(volatile, "reset_after_a_kill", lambda: reset and mark.write_text("") == 0)

    if reset:
        assert images.exists("localhost/x:1")
    else:
        with pytest.raises(EngineUnavailable, match="system migrate"):
            images.exists("localhost/x:1")


def test_a_torn_or_missing_archive_is_refused(tmp_path: Path) -> None:
    """Before Podman is asked."""
    (tmp_path / "torn.gz").write_bytes(gzip.compress(bytes(10_000))[:-9])
    for name in ("torn.gz", "missing"):
        with pytest.raises(BuildFailed, match=name) as caught:
            images.load(tmp_path / name, silent)
        assert caught.value.why
