"""Images by real Podman: built, saved, loaded again from every kind of archive, and tagged."""

import gzip
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from claw_runtime.engine import images
from claw_runtime.engine.images import BuildRecipe
from claw_runtime.engine.podman import PodmanEngine
from claw_runtime.errors import BuildFailed
from claw_runtime.ports import Bind, ContainerSpec

pytestmark = pytest.mark.podman


@pytest.fixture
def name() -> Iterator[str]:
    """An image name of the test's own, gone afterwards."""
    name = f"localhost/claw-test-images:{os.getpid()}"
    yield name
    # Without force: that would take the small image along, which has this name too.
    subprocess.run(["podman", "image", "rm", name], check=False, capture_output=True)


def both(engine: PodmanEngine, image: str) -> bytes:
    """What the build wrote into /etc/both."""
    container = engine.create(ContainerSpec(name=f"claw-test-images-{os.getpid()}", image=image, network="none"))
    try:
        engine.start(container)
        return engine.execute(container, ["cat", "/etc/both"]).stdout
    finally:
        engine.remove(container)


def test_a_build_runs_commands_with_arguments_labels_secrets_and_volumes(
    engine: PodmanEngine, small_image: str, name: str, tmp_path: Path
) -> None:
    """All of a recipe arrives in the step; a failing step says why and leaves the image that was there."""
    step = 'RUN --mount=type=secret,id=token ["/bin/sh", "-c", "cat /lent/f /run/secrets/token > /etc/both"]'
    (tmp_path / "Containerfile").write_text(f"ARG BASE\nFROM ${{BASE}}\n{step}\n")
    (tmp_path / "f").write_text("lent")
    (tmp_path / "token").write_text("secret")
    recipe = BuildRecipe(
        context=tmp_path,
        containerfile=tmp_path / "Containerfile",
        tag=name,
        build_args={"BASE": small_image},
        labels={"io.claw.x": "y"},
        volumes=[Bind(source=tmp_path, target="/lent", read_only=True)],
        secrets={"token": tmp_path / "token"},
        timestamp=0,
    )
    lines: list[str] = []
    identity = images.build(recipe, lines.append)
    built = engine.image(name)
    assert built.id == identity
    assert built.labels["io.claw.x"] == "y"
    assert any("STEP" in line for line in lines)
    assert both(engine, name) == b"lentsecret"
    (tmp_path / "Containerfile").write_text(f"FROM {small_image}\nRUN exit 3\n")
    with pytest.raises(BuildFailed) as caught:
        images.build(recipe, lines.append)
    assert "exit status 3" in caught.value.why
    assert engine.image(name).id == identity


@pytest.mark.parametrize("packing", ["plain", "gzip", "zstd"])
def test_an_archive_is_loaded_however_it_is_packed(
    engine: PodmanEngine, small_image: str, name: str, tmp_path: Path, packing: str
) -> None:
    """The same image comes back under its name."""
    images.tag(small_image, name)
    archive = tmp_path / "image.tar"
    subprocess.run(["podman", "save", "--quiet", f"--output={archive}", name], check=True, capture_output=True)
    subprocess.run(["podman", "untag", name, name], check=True, capture_output=True)
    assert not images.exists(name)
    pack = {"plain": bytes, "gzip": gzip.compress, "zstd": zstandard.compress}[packing]
    archive.write_bytes(pack(archive.read_bytes()))
    assert images.load(archive, lambda line: None) == [name]
    assert engine.image(name).id == engine.image(small_image).id


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    """With Podman's reason."""
    (tmp_path / "x").write_text("not an image")
    for path in (tmp_path / "x", tmp_path / "missing"):
        with pytest.raises(BuildFailed) as caught:
            images.load(path, lambda line: None)
        assert caught.value.why
