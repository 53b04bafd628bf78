"""`seccomp` of a workload file: which profile it names, and what is refused with its place."""

from pathlib import Path

import pytest
from claw_runtime.errors import InvalidSpec
from claw_runtime.seccomp import profiles
from claw_runtime.spec import check, filters, loader, plan

HEAD = "id: a\nimage: b\nports: [{container: 1}]\nhealthcheck: {path: /}\nvolumes: {state: {target: /s}}\n"
WHOLE = '{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": []}'


def document(text: str, path: Path = Path("w.yaml")) -> loader.Document:
    return loader.parse(HEAD + text, path)


@pytest.mark.parametrize(
    ("text", "name"), [("", "strict"), ("seccomp: strict", "strict"), ("seccomp: browser", "browser")]
)
def test_claws_own_profiles_have_names(text: str, name: str) -> None:
    """Without the key it is strict."""
    assert plan.make(document(text)).seccomp == name
    assert filters.require(document(text)) == profiles.text(name)


@pytest.mark.parametrize("written", ["own.json", "./own.json", "../{name}/own.json", "{directory}/own.json"])
def test_a_path_starts_at_the_file(tmp_path: Path, written: str) -> None:
    """A relative path is beside the workload file, whatever directory the daemon runs in."""
    (tmp_path / "own.json").write_text(WHOLE)
    text = f"seccomp: {written.format(name=tmp_path.name, directory=tmp_path)}"
    found = document(text, tmp_path / "w.yaml")
    assert Path(plan.make(found).seccomp).samefile(tmp_path / "own.json")
    assert filters.require(found) == WHOLE


@pytest.mark.parametrize("word", ["unconfined", "strickt", "default", '""', "STRICT", "[strict]", "true"])
def test_other_words_are_refused(word: str) -> None:
    """A word is no path: a misspelt profile is an error with its place, and never another profile."""
    with pytest.raises(InvalidSpec) as caught:
        document(f"seccomp: {word}\n")
    assert caught.value.brief.startswith("w.yaml:6:")


def test_a_missing_file_is_refused_with_its_place(tmp_path: Path) -> None:
    """One error that names the line, the file and the reason."""
    found = document("seccomp: ./own.json\n", tmp_path / "w.yaml")
    with pytest.raises(InvalidSpec) as caught:
        filters.require(found)
    assert f"w.yaml:6:10: the seccomp profile {tmp_path}/own.json cannot be used" in caught.value.brief
    assert caught.value.why == "No such file or directory"


def test_config_check_finds_it(tmp_path: Path) -> None:
    """`config check` refuses the file, once."""
    (tmp_path / "w.yaml").write_text(HEAD + "seccomp: ./own.json\n")
    (report,) = check.check([tmp_path / "w.yaml"])
    assert [(remark.mark.line, "own.json" in remark.what) for remark in report.errors if remark.mark] == [(6, True)]


def test_browser_comes_with_advice() -> None:
    """A weaker profile gives advice that names its cost."""
    (hint,) = document("seccomp: browser\n").hints
    assert (hint.kind, hint.mark.line) == ("advice", 6)
    assert "user namespaces" in hint.what
    assert document("seccomp: strict\n").hints == ()
