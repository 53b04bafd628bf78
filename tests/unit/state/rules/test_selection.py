"""Which names are stored, restored and kept."""

import subprocess
from pathlib import Path

import pytest
from claw_runtime.spec import loader, plan
from claw_runtime.spec.plan import Workload
from claw_runtime.state.rules.selection import (
    COPIED,
    DOWNLOADED,
    EXCLUDED,
    IGNORED,
    SYNCED,
    UPLOADED,
    Fate,
    Rule,
    Selection,
    unexcluded,
)
from hypothesis import given, settings
from hypothesis import strategies as st


def fate(selection: Selection, path: str) -> Fate:
    """Of a path; one that ends in a slash is a directory."""
    return selection.fate(path.rstrip("/"), is_dir=path.endswith("/"))


def test_without_rules_everything_is_stored_but_what_is_excluded() -> None:
    """No mapping is needed to lose nothing."""
    selection = Selection.everything([".openclaw/tmp/", "*.lock"])
    assert fate(selection, "any/thing") is SYNCED
    assert fate(selection, ".openclaw/tmp/") is EXCLUDED
    assert fate(selection, ".openclaw/tmp/deep/file") is EXCLUDED
    assert fate(selection, "a/b.lock") is EXCLUDED
    assert fate(selection, ".openclaw/tmp") is SYNCED  # a file of that name
    assert not selection.descends(".openclaw/tmp")
    assert selection.descends("any")


def test_the_first_rule_that_names_a_path_governs_it() -> None:
    """Order decides, and the rest is stored."""
    selection = Selection(
        [
            Rule(path="data/keep", fate=SYNCED),
            Rule(path="data", fate=DOWNLOADED),
            Rule(path="store", fate=UPLOADED, pattern="*.db*"),
            Rule(path="store", fate=COPIED),
        ]
    )
    assert fate(selection, "data/keep/a") is SYNCED
    assert fate(selection, "data/b") is DOWNLOADED
    assert fate(selection, "data/") is DOWNLOADED
    assert fate(selection, "database/b") is SYNCED
    assert fate(selection, "store/messages.db-wal") is UPLOADED
    assert fate(selection, "store/deep/messages.db") is UPLOADED
    assert fate(selection, "store/auth.json") is COPIED
    assert fate(selection, "store/") is COPIED


def test_what_is_neither_stored_nor_restored_lasts_as_long_as_its_container() -> None:
    """Excluded and ignored names, but not what a claim restores, nor a directory with something that is stored."""
    rules = [
        Rule(path="data/keep", fate=SYNCED),
        Rule(path="data", fate=IGNORED),
        Rule(path="models", fate=DOWNLOADED),
    ]
    selection = Selection(rules, exclude=["tmp/"])
    gone = {("tmp", True), ("data/x", False), ("data/other", True)}
    stay = {("tmp", False), ("data", True), ("data/keep/a", False), ("models/m", False), ("notes", False)}

    assert {one for one in gone | stay if selection.forgets(*one)} == gone
    assert not selection.forgets_none
    assert Selection().forgets_none
    assert Selection(rules[2:]).forgets_none
    assert not Selection.everything(["tmp/"]).forgets_none


def test_a_rule_may_name_one_file() -> None:
    """With a pattern, the file's own name must match it."""
    selection = Selection([Rule(path="data/state.json", fate=COPIED), Rule(path="x.txt", fate=COPIED, pattern="*.md")])
    assert fate(selection, "data/state.json") is COPIED
    assert fate(selection, "data/state.json.bak") is SYNCED
    assert fate(selection, "x.txt") is SYNCED


def test_what_a_rule_leaves_out_is_left_out() -> None:
    """A mapping's exclude leaves out what the mapping governs, and nothing else."""
    selection = Selection(
        [Rule(path="a", fate=SYNCED, pattern="*.jsonl", exclude=("old/", "/first.jsonl")), Rule(path="a", fate=COPIED)]
    )
    assert fate(selection, "a/first.jsonl") is EXCLUDED
    assert fate(selection, "a/b/first.jsonl") is SYNCED
    assert fate(selection, "a/old/x.jsonl") is EXCLUDED
    assert fate(selection, "a/old/x.txt") is COPIED
    assert selection.descends("a/old")


def test_what_none_names_may_be_ignored() -> None:
    """Then it is neither stored nor restored, and what the store has of it stays."""
    selection = Selection([Rule(path="a/b", fate=SYNCED)], rest=IGNORED)
    assert fate(selection, "c") is IGNORED
    assert IGNORED.kept
    assert not selection.stores("a", is_dir=True)
    assert selection.descends("a")
    assert selection.descends("a/b/c")
    assert not selection.descends("c")


def test_a_directory_is_entered_when_a_pattern_may_match_in_it() -> None:
    """A rule with a pattern does not name the directories on the way."""
    selection = Selection([Rule(path="", fate=SYNCED, pattern="*.jsonl")], rest=IGNORED)
    assert not selection.stores("deep/down", is_dir=True)
    assert selection.descends("deep/down")
    assert selection.stores("deep/down/x.jsonl", is_dir=False)


def test_nothing_below_a_downloaded_directory_is_read() -> None:
    """Unless an earlier rule wants something there."""
    assert not Selection([Rule(path="a", fate=DOWNLOADED)]).descends("a")
    assert not Selection([Rule(path="a", fate=DOWNLOADED), Rule(path="a/b", fate=SYNCED)]).descends("a")
    assert Selection([Rule(path="a/b", fate=SYNCED), Rule(path="a", fate=DOWNLOADED)]).descends("a")


def test_an_excluded_directory_stays_excluded() -> None:
    """As git does: a file cannot come back when its directory is out."""
    selection = Selection.everything(["tmp/", "!tmp/keep", "logs/*", "!logs/keep"])
    assert fate(selection, "tmp/keep") is EXCLUDED
    assert fate(selection, "logs/keep") is SYNCED
    assert fate(selection, "logs/other") is EXCLUDED


def test_hostile_names_have_an_answer() -> None:
    """Newlines and undecodable bytes are names as any other."""
    selection = Selection.everything(["tmp/", "*.lock"])
    assert fate(selection, "a\nb/tmp/c") is EXCLUDED
    assert fate(selection, "a\nb.lock") is EXCLUDED
    assert fate(selection, "\udcff\udcfe") is SYNCED


@pytest.mark.parametrize(
    ("line", "named", "not_named"),
    [
        ("a", ["a", "b/a", "a/", "a/c"], ["a\n", "ab", "ba"]),
        ("a/**", ["a/b", "a/b/"], ["a", "a/", "b/a/c"]),
        ("a/**/", ["a/b/", "a/b/c"], ["a/", "a/b"]),
        ("a[!b]c", ["axc"], ["abc", "a/c"]),
        ("[]a]", ["]", "a"], ["b"]),
        ("[ab", [], ["[ab", "a"]),
        ("[]", [], ["[]", "]"]),
        ("[!]", [], ["[!]", "!"]),
        ("a//b", [], ["a/b", "a/c/b"]),
        (r"\!x", ["!x"], ["x", "\\!x"]),
        (r"a\*", ["a*"], ["ab"]),
        ("# a", [], ["# a", "a"]),
        ("a  ", ["a"], ["a  "]),
    ],
)
@pytest.mark.parametrize("others", [(), ("!never",)])
def test_a_pattern_names_whole_steps(
    line: str, named: list[str], not_named: list[str], others: tuple[str, ...]
) -> None:
    """A pattern means the same alone and beside a `!pattern`; what it names it names at the end of a step."""
    selection = Selection.everything([line, *others])
    assert [path for path in named if fate(selection, path) is not EXCLUDED] == []
    assert [path for path in not_named if fate(selection, path) is EXCLUDED] == []


def test_selections_are_compared_by_their_rules() -> None:
    """So that remembered answers are used with the rules that gave them alone."""
    assert Selection.everything(["a"]) == Selection.everything(["a"])
    assert hash(Selection.everything(["a"])) == hash(Selection.everything(["a"]))
    assert Selection.everything(["a"]) != Selection.everything(["b"])
    assert Selection([Rule(path="a", fate=SYNCED)]) != Selection([Rule(path="a", fate=COPIED)])


def test_a_selection_knows_what_it_never_does() -> None:
    """Without a filter nothing has to be filtered."""
    assert Selection().restores_all
    assert Selection.everything(["a"]).restores_all
    assert not Selection([Rule(path="a", fate=UPLOADED)]).restores_all
    assert Selection.everything(["a"]).keeps_none
    assert not Selection(rest=IGNORED).keeps_none


NAMES = st.sampled_from(["a", "b", "tmp", "x.log", "keep", "c d", "ä"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
LINES = st.sampled_from(
    [
        "tmp/",
        "*.log",
        "/a",
        "b/*",
        "!b/keep",
        "!x.log",
        "**/keep/",
        "a/**/b",
        "a/",
        "!a/b",
        "c d",
        "a/**",
        "*/",
        "*",
        "!*/",
        "a/**/",
        "k[a-e]?p",
        "\\!x",
    ]
)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty Git repository, to ask Git itself."""
    path = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "--quiet", str(path)], check=True)
    return path


@pytest.mark.spawns
@settings(max_examples=40, deadline=None)
@given(lines=st.lists(LINES, max_size=4), paths=st.sets(PATHS, min_size=1, max_size=8))
def test_patterns_mean_what_they_mean_to_git(repository: Path, lines: list[str], paths: set[str]) -> None:
    """The same files are ignored as `git check-ignore` ignores."""
    (repository / ".gitignore").write_text("".join(f"{line}\n" for line in lines))
    asked = sorted(paths)
    answer = subprocess.run(
        ["git", "-C", str(repository), "check-ignore", "--no-index", "-z", "--stdin"],
        input="\0".join(asked).encode(),
        capture_output=True,
        check=False,
    ).stdout.decode()
    selection = Selection.everything(lines)
    assert [path for path in asked if fate(selection, path) is EXCLUDED] == sorted(filter(None, answer.split("\0")))


@settings(max_examples=100, deadline=None)
@given(
    rules=st.lists(
        st.builds(
            Rule,
            path=st.one_of(st.just(""), PATHS),
            fate=st.sampled_from([SYNCED, COPIED, UPLOADED, DOWNLOADED, IGNORED]),
            pattern=st.one_of(st.none(), st.sampled_from(["*.log", "tmp/", "a/*"])),
            exclude=st.lists(LINES, max_size=2).map(tuple),
        ),
        max_size=4,
    ),
    exclude=st.lists(LINES, max_size=2),
    rest=st.sampled_from([SYNCED, IGNORED]),
    path=PATHS,
)
def test_no_stored_name_lies_where_nobody_looks(rules: list[Rule], exclude: list[str], rest: Fate, path: str) -> None:
    """Every directory above a stored name is entered."""
    selection = Selection(rules, exclude=exclude, rest=rest)
    steps = path.split("/")
    above = ["/".join(steps[:number]) for number in range(1, len(steps))]
    if selection.stores(path, is_dir=False) or selection.stores(path, is_dir=True):
        assert all(selection.descends(directory) for directory in above)


def workload(sync: str) -> Workload:
    text = "id: small\nimage: small\nvolumes: {state: {target: /state}}\nhealthcheck: {test: [CMD, x]}\n"
    return plan.make(loader.parse(f"{text}sync: {sync}\n", Path("small.yaml")))


class TestUnexcluded:
    def test_mappings_only_exclude(self) -> None:
        """What a mapping neither stores nor restores is stored, except what a pattern excludes."""
        found = unexcluded([workload("{exclude: ['*.lock'], rest: ignore, mappings: [{path: a, exclude: [b/]}]}")])

        assert fate(found, "other/file") == fate(found, "a/c") == SYNCED
        assert fate(found, "x.lock") == fate(found, "a/b/c") == EXCLUDED
        assert found.excludes("a/b", True)
        assert not found.excludes("a", True)

    def test_of_several_workloads(self) -> None:
        """The patterns that all have; none if one of them includes names again, and everything without a workload."""
        one, other = workload("{exclude: [cache/, '*.lock']}"), workload("{exclude: ['*.lock', tmp/]}")

        assert fate(unexcluded([one, other]), "x.lock") == EXCLUDED
        assert fate(unexcluded([one, other]), "cache/x") == fate(unexcluded([one, other]), "tmp/x") == SYNCED
        assert fate(unexcluded([one, one]), "cache/x") == EXCLUDED
        again = workload("{exclude: ['*.lock', '!uv.lock']}")
        assert fate(unexcluded([one, again]), "x.lock") == fate(unexcluded([]), "x.lock") == SYNCED
