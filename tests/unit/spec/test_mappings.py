"""Mappings, what is kept and how much may be stored: what a workload file says of them, and what it comes to."""

import textwrap
from pathlib import Path

import pytest
from claw_runtime.errors import InvalidSpec
from claw_runtime.spec import check, loader, plan
from claw_runtime.spec.mappings import SyncMapping

HEAD = """
    id: a
    image: b
    volumes: {state: {target: /app/data}, comm: {target: /app/store}, own: {target: /srv/own, per_tenant: true}}
    healthcheck: {test: [CMD, x]}
"""


def read(text: str) -> loader.Document:
    """A workload file with this section `sync`."""
    return loader.parse(
        textwrap.dedent(HEAD) + f"sync:\n{textwrap.indent(textwrap.dedent(text), '  ')}", Path("w.yaml")
    )


def made(text: str) -> plan.Workload:
    """Its plan."""
    return plan.make(read(text))


def refused(text: str) -> str:
    """Why it is refused."""
    with pytest.raises(InvalidSpec) as caught:
        made(text)
    return str(caught.value)


def hints(text: str, kind: str) -> list[str]:
    """What its author is told."""
    return [hint.what for hint in read(text).hints if hint.kind == kind]


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/app/data", ""),
        ("/app/data/", ""),
        (".", ""),
        ("data", ""),
        ("/app/data/x/y", "x/y"),
        ("/app/data/.openclaw", ".openclaw"),
        ("data/x", "x"),
        ("x", "x"),
        ("./x/", "x"),
        ("/app/store", ".claw-volumes/comm"),
        ("store/x", ".claw-volumes/comm/x"),
        ("/srv/own/x", ".claw-volumes/own/x"),
    ],
)
def test_a_path_in_the_container_is_one_in_the_tree(path: str, place: str) -> None:
    """Of the state and of the tenant's other volumes, absolute or relative."""
    assert [mapping.path for mapping in made(f"mappings: [{{path: {path}}}]").mappings] == [place]


@pytest.mark.parametrize("path", ["/etc", "/app", "/app/database", "/app/data/../etc", "../../etc", "../data2"])
def test_what_lies_in_no_volume_governs_nothing(path: str) -> None:
    """And its author is told."""
    assert made(f"mappings: [{{path: {path}}}]").mappings == ()
    assert any("is in no volume" in hint for hint in hints(f"mappings: [{{path: {path}}}]", "advice"))


def test_everything_that_a_mapping_says_arrives() -> None:
    """In the plan, with the paths of the tree."""
    text = """
    mappings:
      - {path: x, pattern: "*.md", exclude: [old/], direction: upload, mode: copy, plain_view: all, sink_path: out/}
      - {path: y, plain_view: true}
    rest: ignore
    policy: {on_mass_delete: refuse}
    retention: {keep_last: 3, hourly: 0, daily: 1}
    limits: {size: 10g, files: 5, time: 2m}
    """
    workload = made(text)
    assert workload.mappings == (
        SyncMapping(
            path="x", pattern="*.md", exclude=("old/",), direction="upload", mode="copy", view="all", view_path="out"
        ),
        SyncMapping(path="y", view="files", view_path="y"),
    )
    assert workload.rest == "ignore"
    assert workload.sync_policy.on_mass_delete == "refuse"
    assert workload.retention == plan.Retention(keep_last=3, hourly=0, daily=1)
    assert workload.sync_limits == plan.SyncLimits(size=10 << 30, files=5, time=120)


def test_without_a_word_everything_is_stored() -> None:
    """No mapping, and the retention and limits that the documentation names: no tenant's tree may be read for ever."""
    workload = made("{}")
    assert (workload.mappings, workload.rest) == ((), "store")
    assert workload.retention == plan.Retention(keep_last=20, hourly=24, daily=14)
    assert workload.sync_limits == plan.SyncLimits(size=1 << 40, files=2_000_000, time=7200)
    assert hints("{}", "advice") == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('exclude: ["!"]', "is no pattern as in .gitignore"),
        ('exclude: ["[z-a]"]', "is no pattern as in .gitignore"),
        ('exclude: ["# x"]', "names nothing"),
        ('mappings: [{path: x, pattern: "!a"}]', "is a negated pattern"),
        ("mappings: [{path: x, pattern: '['}]", "names nothing"),
        ("mappings: [{path: x, sink_path: /x}]", "is no path below files/"),
        ("mappings: [{path: x, sink_path: a/../b}]", "is no path below files/"),
        ("mappings: [{path: x, plain_view: some}]", "plain_view"),
        ("rest: drop", "sync.rest"),
        ("limits: {files: 0}", "sync.limits.files"),
        ("limits: {size: 0}", "sync.limits.size"),
        ("retention: {keep_last: 0}", "sync.retention.keep_last"),
        ("policy: {on_mass_delete: ask}", "sync.policy.on_mass_delete"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, why: str) -> None:
    """Before a daemon is started with it, not at a tenant's first commit."""
    assert why in refused(text)


@pytest.mark.parametrize(
    "mappings",
    [
        "[{path: a, plain_view: true, sink_path: x}, {path: b, plain_view: true, sink_path: x}]",
        "[{path: a, plain_view: true, sink_path: x}, {path: b, plain_view: true, sink_path: x/y}]",
        "[{path: a, plain_view: true}, {path: b, plain_view: true, sink_path: a/b}]",
        "[{path: ., plain_view: true}, {path: b, plain_view: true, sink_path: c}]",
    ],
)
def test_two_files_cannot_be_one_in_the_plain_view(mappings: str) -> None:
    """Which of them a reader would find, nobody could tell."""
    assert "where another mapping's plain view is" in refused(f"mappings: {mappings}")


@pytest.mark.parametrize(
    "mappings",
    [
        "[{path: a, pattern: '*.x', plain_view: true}, {path: a, pattern: '*.y', plain_view: true}]",
        "[{path: a/b, plain_view: true}, {path: a, plain_view: true}, {path: ., plain_view: true}]",
        "[{path: a, plain_view: true, sink_path: x}, {path: a/b, plain_view: true, sink_path: x/b}]",
        "[{path: a, plain_view: true, sink_path: x}, {path: b, plain_view: true, sink_path: y}]",
        "[{path: a, sink_path: x}, {path: b, plain_view: true, sink_path: x}]",
    ],
)
def test_mappings_may_share_a_place_in_the_plain_view(mappings: str) -> None:
    """As long as each file has one of its own."""
    assert made(f"mappings: {mappings}").mappings


def test_camel_case_is_understood() -> None:
    """As boilerhouse's own API writes it."""
    text = """
    sink: {type: s3, bucket: states, rcloneFlags: [--fast-list]}
    mappings: [{path: a, sinkPath: x, plainView: true}]
    policy: {onMassDelete: refuse}
    retention: {keepLast: 3}
    """
    workload = made(text)
    assert workload.mappings == (SyncMapping(path="a", view="files", view_path="x"),)
    assert (workload.sync_policy.on_mass_delete, workload.retention.keep_last) == ("refuse", 3)
    assert "sync.mappings[0].sinkPath is written sink_path" in hints(text, "deprecated")
    assert "rclone_flags has no effect: nothing here runs rclone" in hints(text, "ignored")


def test_a_list_of_mappings_causes_a_hint_about_the_rest() -> None:
    """Unless the file says `rest` itself."""
    assert hints("mappings: [{path: data}]", "advice")[0].startswith(
        "files that no mapping names are stored and restored too"
    )
    assert hints("{mappings: [{path: data}], rest: store}", "advice") == []
    (ignored,) = hints("{mappings: [{path: data}], rest: ignore}", "advice")
    assert ignored.startswith("rest ignore: files that no mapping names are neither stored nor restored")


def test_a_sink_path_without_a_plain_view_has_no_effect() -> None:
    """The state itself has one layout."""
    assert hints("{mappings: [{path: data, sink_path: x}], rest: store}", "ignored") == [
        "sink_path is where the plain view is: it needs plain_view: true"
    ]


def test_a_path_is_held_against_the_contracts_state(tmp_path: Path) -> None:
    """A list for another image names nothing here: `config check` says so, as soon as it knows where the state is."""
    image = Path(__file__).resolve().parents[3] / "images" / "openclaw-nix" / "contract.json"
    file = tmp_path / "w.yaml"
    file.write_text(
        f"id: a\nimage: b\ncontract: {image}\nsync:\n  rest: store\n  mappings:\n"
        "  - path: /home/node/.openclaw/sessions\n  - path: /state/.openclaw/agents\n  - path: workspace\n"
    )
    (report,) = check.check([file])
    (told,) = (report.told(remark) for remark in report.remarks)
    assert "7:5: /home/node/.openclaw/sessions names nothing: it is in no volume of the tenant's own" in told
