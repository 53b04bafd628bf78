"""The benchmarks' arithmetic, lines, table and terms; nothing here measures, and no time is judged."""

import json
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from bench import (
    bench_fake,
    bench_fleet,
    bench_hostile,
    bench_image,
    bench_lab,
    bench_sync,
    footprint,
    pages,
    run,
    sync_peers,
)
from bench.figures import Figure, NotHere, allowed, append, busy, cells, duration, newest, table, take_turns
from bench.first_sign import OPENED, seconds_until
from bench.fleet import Unavailable
from bench.picture import draw
from bench.podman_run import PodmanRun, compare
from bench.stage import Stage
from claw_runtime import settings
from claw_runtime.engine import mapping
from claw_runtime.errors import ImageMissing
from claw_runtime.ports import EngineInfo
from claw_runtime.seccomp import profiles
from claw_runtime.spec import loader, plan
from claw_runtime.tenancy import SlotDirs

PROJECT = Path(__file__).parents[2]


def figure(**changes: object) -> Figure:
    """A figure whose medians are 0.02 s and 0.1 s."""
    members: dict[str, object] = {
        "name": "claim_warm",
        "peer": "podman run -d",
        "goal": 0.2,
        "ours": [0.03, 0.01, 0.02],
        "theirs": [0.1, 0.5, 0.1],
        "load": (0.5, 1.25),
        "at": "2026-11-20T07:00:00+00:00",
    }
    return Figure(**members | changes)  # type: ignore[arg-type]


def line(**changes: object) -> dict[str, Any]:
    """Its JSON line."""
    recorded: dict[str, Any] = json.loads(figure(**changes).line())
    return recorded


ALONE = {"peer": "", "theirs": (), "goal": None}


def test_a_line_is_the_documented_json() -> None:
    """A line holds the documented members and no other, all of both sides' costs, and what else was going on."""
    assert line(busy=0.301, parts={"lease": 0.0061}, counts={"mounts": (3, 3)}, note="so") == {
        "name": "claim_warm",
        "value": 0.02,
        "unit": "s",
        "spread": [0.01, 0.03],
        "quantile": 0.5,
        "peer": "podman run -d",
        "peer_value": 0.1,
        "peer_spread": [0.1, 0.5],
        "ratio": 0.2,
        "goal": "ratio <= 0.2",
        "met": True,
        "n": 3,
        "load": [0.5, 1.25],
        "busy": 0.3,
        "parts": {"lease": 0.0061},
        "counts": {"mounts": [3, 3]},
        "note": "so",
        "at": "2026-11-20T07:00:00+00:00",
    }
    assert "\n" not in figure().line()


def test_a_figure_without_a_goal_only_informs() -> None:
    """Without a goal the line says null, the table nothing, and it is neither met nor missed."""
    informing = line(goal=None)
    assert (informing["goal"], informing["met"]) == (None, None)
    assert cells(informing)[5:7] == ("", "")


def test_a_figure_may_have_no_peer() -> None:
    """Without a peer there is no ratio, in the line as in the table, and a goal is the value's own."""
    alone = line(**ALONE, unit="/s", ours=[1200.0, 1300.0, 1100.0], least=1000)
    assert (alone["ratio"], alone["peer"], alone["peer_value"], alone["peer_spread"]) == (None, None, None, None)
    assert cells(alone)[1:7] == ("1200 /s", "1100–1300 /s", "", "", ">= 1000 /s", "yes")
    assert figure(**ALONE, ours=[999.0], least=1000).met is False


def test_all_goals_of_a_figure_must_be_met() -> None:
    """A ratio that is kept does not help a value that is too high, nor the other way round."""
    assert figure(goal=0.2, most=0.02).met is True
    assert figure(goal=0.2, most=0.019).met is False
    assert figure(goal=0.1, most=0.02).met is False
    assert line(goal=0.4, most=1.0)["goal"] == "ratio <= 0.4, <= 1.00 s"


def test_a_percentile_counts_the_slow_ones() -> None:
    """Of a hundred costs the value at 0.95 is the 95th, and the table says that it is no median."""
    hundred = [number / 1000 for number in range(100, 0, -1)]
    slow = line(quantile=0.95, ours=hundred, theirs=hundred, goal=None, most=0.095)
    assert (slow["value"], slow["met"]) == (0.095, True)
    assert cells(slow)[1] == "95 ms (p95)"


def test_what_is_no_time_has_its_unit() -> None:
    """A size is written with its unit, in the line as in the table, and never as seconds."""
    size = line(unit="MB", ours=[1079.4], theirs=[1164.1])
    assert size["unit"] == "MB"
    assert cells(size)[1:4] == ("1079 MB", "", "1164 MB")


def test_value_and_ratio_come_from_medians() -> None:
    """One slow turn changes neither the value nor the ratio; of an even number of turns the middle two count."""
    assert figure(ours=[0.02, 0.02, 9.0]).value == pytest.approx(0.02)
    assert figure(ours=[0.02, 0.02, 9.0]).ratio == pytest.approx(0.2)
    assert figure(ours=[1, 2, 3, 100], theirs=[5, 5, 5, 5]).ratio == pytest.approx(0.5)


def test_a_goal_is_met_up_to_its_number() -> None:
    """A ratio of exactly the goal is met, one beyond it is not."""
    assert figure(ours=[0.5], theirs=[1.0], goal=0.5).met is True
    assert figure(ours=[0.51], theirs=[1.0], goal=0.5).met is False


def test_the_table_is_aligned_markdown() -> None:
    """The table has a row a figure with costs, spread, ratio and whether the goal was met, in columns of one width."""
    text = table([line(), line(name="claim_to_answer", goal=1.0, ours=[2.5, 2.4, 9], theirs=[2.0])])
    lines = text.splitlines()
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in lines]
    assert rows[0] == ["figure", "ours", "spread", "peer's", "ratio", "goal", "met", "n", "load", "peer"]
    assert set(lines[1]) == {"|", "-"}
    assert rows[2][:7] == ["claim_warm", "20 ms", "10–30 ms", "100 ms", "0.2", "ratio <= 0.2", "yes"]
    assert rows[2][7:] == ["3", "0.5–1.2", "podman run -d"]
    assert rows[3][:7] == ["claim_to_answer", "2.50 s", "2.40–9.00 s", "2.00 s", "1.25", "ratio <= 1", "NO"]
    assert len({len(row) for row in lines}) == 1


def test_durations_have_three_digits() -> None:
    """Below a second people read milliseconds."""
    assert [duration(seconds) for seconds in (0.00512, 0.0451, 0.158, 1.0, 13.571)] == [
        "5.12 ms",
        "45.1 ms",
        "158 ms",
        "1.00 s",
        "13.57 s",
    ]


def test_lines_are_appended(tmp_path: Path) -> None:
    """The file grows by a line a figure; earlier runs stay, and a missing directory is made."""
    path = tmp_path / "evidence" / "bench.jsonl"
    append(path, [figure(), figure(name="two")])
    append(path, [figure(name="three")])
    assert [json.loads(line)["name"] for line in path.read_text().splitlines()] == ["claim_warm", "two", "three"]


def test_turns_alternate_and_warming_does_not_count() -> None:
    """Ours and the peer work back to back, the one who begins changes, and the first turns are thrown away."""
    order: list[str] = []

    def work(name: str) -> str:
        order.append(name)
        return f"{name}{order.count(name)}"

    ours, theirs = take_turns("any", 3, lambda: work("o"), lambda: work("p"), warming=1)
    assert "".join(order) == "oppooppo"
    assert (ours, theirs) == (["o2", "o3", "o4"], ["p2", "p3", "p4"])


def test_turns_end_with_the_time_but_not_before_three() -> None:
    """When the time is over three turns are made and no more; with time left, all that were asked for."""

    def turns(seconds: float, runs: int) -> int:
        with allowed(seconds):
            [done] = take_turns("any", runs, lambda: 0)
        return len(done)

    assert turns(-1, 9) == 3
    assert turns(-1, 2) == 2
    assert turns(60, 9) == 9


def test_the_newest_line_of_each_figure_counts(tmp_path: Path) -> None:
    """Of a file that many runs wrote into, each figure's last line is taken, in the order of the first ones."""
    path = tmp_path / "bench.jsonl"
    append(path, [figure(name="one"), figure(name="two", ours=[1])])
    append(path, [figure(name="two", ours=[2])])
    assert [(one["name"], one["value"]) for one in newest(path)] == [("one", 0.02), ("two", 2)]


def test_other_work_is_noticed() -> None:
    """How busy the processors are is a share of them all."""
    assert 0 <= busy(0.02) <= 1


def test_the_first_sign_is_seen_during_and_after_the_act(tmp_path: Path) -> None:
    """The clock stops when the file appears, not when the act returns, and other files do not stop it."""
    late = threading.Timer(0.05, (tmp_path / "late").touch)
    with_others = [(tmp_path / "other").touch, late.start]
    assert seconds_until(tmp_path, "late", lambda: [act() for act in with_others]) >= 0.05
    pause = threading.Event()
    during = seconds_until(tmp_path, "early", lambda: ((tmp_path / "early").touch(), pause.wait(1.0)))
    assert during < 1.0


def test_a_file_that_is_opened_is_a_sign(tmp_path: Path) -> None:
    """The clock can also stop when a file that is there is opened, as a loader does it; looking at it is none."""
    (tmp_path / "preload").touch()
    opening = threading.Timer(0.05, (tmp_path / "preload").read_bytes)
    acts = [(tmp_path / "preload").stat, opening.start]
    assert seconds_until(tmp_path, "preload", lambda: [act() for act in acts], sign=OPENED) >= 0.05


def test_a_sign_that_is_there_already_measures_nothing(tmp_path: Path) -> None:
    """A file of an earlier run is an error, and so is an act that fails; neither becomes a figure."""
    (tmp_path / "starts").touch()
    with pytest.raises(FileExistsError):
        seconds_until(tmp_path, "starts", lambda: None)
    with pytest.raises(ZeroDivisionError):
        seconds_until(tmp_path, "other", lambda: 1 // 0)


@pytest.fixture
def peer(tmp_path: Path) -> PodmanRun:
    """The peer of a workload with a limit that the engine enforces and one that it does not."""
    file = tmp_path / "workload.yaml"
    file.write_text(
        "id: small\nimage: localhost/small:dev\nports: [{container: 8080}]\nhealthcheck: {path: /healthz}\n"
        "volumes: {state: {target: /state}}\ndeploy: {resources: {limits: {memory: 64m, pids: 32}}}\n"
    )
    stage = Stage(
        home=tmp_path,
        settings=settings.load({"home": tmp_path, "run": "/tmp/r", "cgroup_parent": "/g"}, environ={}),
        workloads=(file,),
    )
    info = EngineInfo(
        version="4",
        rootless=True,
        storage_driver="overlay",
        cgroup_version="v2",
        cgroup_controllers=("pids",),
        runtime="crun",
    )
    return PodmanRun(stage, plan.make(loader.load(file)), info, "k8s-file")


def test_the_peer_runs_as_hardened_as_ours(peer: PodmanRun) -> None:
    """The peer's command carries every hardening flag, our limits where they count, and its own directories."""
    argv = peer.argv(SlotDirs(Path("/s"), Path("/l"), Path("/v")))
    assert {
        *mapping.flags(),
        f"--security-opt=seccomp={profiles.path_of('strict')}",
        "--cap-drop=all",
        "--security-opt=no-new-privileges",
        "--read-only",
        "--read-only-tmpfs=false",
        "--tmpfs=/tmp:mode=1777",
        "--volume=/s:/state:rw,nosuid,nodev",
        "--network=slirp4netns:allow_host_loopback=false",
        "--publish=127.0.0.1::8080",
        "--pids-limit=32",
        "--cgroup-parent=/g",
    } <= set(argv)
    assert not [flag for flag in argv if flag.startswith("--memory")]
    assert argv[:2] == ["run", "-d"]
    assert argv[-1] == "localhost/small:dev"


def test_a_daemon_of_a_stage_has_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes to `claw-runtime up` as variables is read there as what it was, durations and secrets too."""
    given = {
        "home": tmp_path,
        "run": "/tmp/r",
        "bucket": "s3://b",
        "access_key": "x",
        "secret_key": "y",
        "lease_ttl": "90s",
    }
    stage = Stage(home=tmp_path, settings=settings.load(given, environ={}), workloads=())
    assert settings.load({}, environ=stage.environment()) == stage.settings


def test_a_peer_under_other_terms_is_refused() -> None:
    """A ratio to a peer with less hardening is never written: the difference is named instead."""
    ours = {"CapDrop": ["CAP_CHOWN"], "ReadonlyRootfs": True}
    compare(ours, dict(ours))
    with pytest.raises(AssertionError, match="CapDrop"):
        compare(ours, ours | {"CapDrop": []})


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The command line with two invented figures, one of which fails, and without changing this process; the file."""

    def fail(_runs: int) -> list[Figure]:
        raise ImageMissing("no image", why="nobody built it", hint="make image")

    def measure(runs: int) -> list[Figure]:
        return [figure(name=name, ours=[0.02] * runs, theirs=[0.1] * runs) for name in ("good", "better")]

    invented = {"bad": run.Bench(fail, 1, 60), "good": run.Bench(measure, 4, 60, ("better",))}
    monkeypatch.setattr(run, "BENCHES", invented)
    monkeypatch.setattr(run, "busy", lambda: 0.1)
    monkeypatch.setattr(run.logs, "configure", lambda **_: None)
    monkeypatch.setattr(run.signal, "signal", lambda *_: None)
    monkeypatch.setattr(run.signal, "setitimer", lambda *_: None)
    monkeypatch.setenv("EVIDENCE_DIR", str(tmp_path / "evidence"))
    return tmp_path / "evidence/bench.jsonl"


def test_the_command_measures_what_was_named(command: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Named figures are measured with the asked number of runs, or their own, written to the file and printed."""
    assert run.main(["good"]) == 0
    assert run.main(["better", "--runs", "2"]) == 0
    recorded = [json.loads(text) for text in command.read_text().splitlines()]
    assert [(one["name"], one["n"], one["busy"]) for one in recorded] == [
        ("good", 4, 0.1),
        ("better", 4, 0.1),
        ("good", 2, 0.1),
        ("better", 2, 0.1),
    ]
    assert "| good " in capsys.readouterr().out


def test_a_failing_figure_hides_no_other(command: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """When one cannot be measured the others are, written and shown; the exit code is the error's."""
    assert run.main([]) == ImageMissing.exit_code
    assert len(command.read_text().splitlines()) == 2
    told = capsys.readouterr()
    assert "| good " in told.out
    assert "bad failed" in told.err
    assert "make image" in told.err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (subprocess.CalledProcessError(125, "podman", stderr=b"no space left"), "no space left"),
        (AssertionError("other terms than ours"), "AssertionError: other terms than ours"),
        (run._Overdue("it hangs"), "it hangs"),
    ],
)
def test_a_figure_that_fails_is_reported_and_passed_over(
    command: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    said: str,
) -> None:
    """A command's last words, a comparison that is none, a bench that hangs: each is told, and the rest goes on."""

    def fail(_runs: int) -> list[Figure]:
        raise error

    monkeypatch.setitem(run.BENCHES, "bad", run.Bench(fail, 1, 60))  # type: ignore[arg-type]
    assert run.main([]) == 1
    assert len(command.read_text().splitlines()) == 2
    assert said in capsys.readouterr().err


def test_what_a_host_cannot_give_is_left_out(
    command: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A figure that needs another host is no failure: its reason is reported, and the others are measured."""

    def absent(_runs: int) -> list[Figure]:
        raise NotHere("it needs root")

    monkeypatch.setitem(run.BENCHES, "bad", run.Bench(absent, 1, 60))  # type: ignore[arg-type]
    assert run.main([]) == 0
    assert len(command.read_text().splitlines()) == 2
    assert "bad: not measured on this host: it needs root" in capsys.readouterr().err


@pytest.mark.spawns
@pytest.mark.parametrize("measure", [bench_lab.measure_restart, bench_lab.measure_boot, bench_lab.measure_claim])
def test_figures_of_booted_hosts_need_root(
    measure: Callable[[int], list[Figure]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no host can be booted, the reason names the command that root can run."""
    monkeypatch.setattr(bench_lab.hosts, "boot", None)
    with pytest.raises(NotHere, match=r"it needs root; as root: tests/lab/run bench"):
        measure(1)


def test_a_hanging_bench_is_ended(command: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each bench has a time after which it is ended, and none is left set afterwards."""
    timers: list[float] = []
    monkeypatch.setattr(run.signal, "setitimer", lambda _which, seconds: timers.append(seconds))
    run.main(["good"])
    assert timers == [run.GIVE_UP * 60 + run.SLACK, 0]


def test_other_load_is_reported(
    command: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When other work uses the processors the run says so, and so does the line."""
    monkeypatch.setattr(run, "busy", lambda: 0.8)
    run.main(["good"])
    assert "other work uses 80% of the processors" in capsys.readouterr().err
    assert json.loads(command.read_text().splitlines()[0])["busy"] == 0.8


@pytest.mark.parametrize("arguments", [["no-such-figure"], ["--runs", "0"], ["--runs", "many"]])
def test_a_wrong_command_line_measures_nothing(command: Path, arguments: list[str]) -> None:
    """Unknown figures and impossible numbers of runs are refused before anything is measured."""
    with pytest.raises(SystemExit, match="2"):
        run.main(arguments)
    assert not command.exists()


CONTRACT = json.loads((PROJECT / "images/openclaw-nix/contract.json").read_text())
OF_NIX = {name: value for name, value in CONTRACT.items() if name != "build"}


@pytest.mark.parametrize(
    ("ours", "theirs", "reason"),
    [
        (OF_NIX, CONTRACT, ""),
        (None, CONTRACT, "there is no localhost/openclaw-nix:nix"),
        (OF_NIX, None, "there is no localhost/openclaw-nix:dev"),
        (OF_NIX, OF_NIX, "localhost/openclaw-nix:dev is built with Nix, too"),
    ],
)
def test_builders_are_compared_only_when_both_images_are_there(
    ours: dict[str, object] | None, theirs: dict[str, object] | None, reason: str
) -> None:
    """Without one of them, or with the same builder's twice, the reason is said, and what would help."""
    told = bench_image.lacking({bench_image.OURS: ours, bench_image.THEIRS: theirs})
    assert told.startswith(reason)
    assert bool(told) == bool(reason)


def test_a_figure_that_cannot_be_compared_writes_nothing(
    command: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images that are not there are one line each and no failure; neither file nor table has them."""
    monkeypatch.setattr(bench_image, "_contract", lambda _image: None)
    measures = {"size": run.Bench(bench_image.measure_size, 1, 5), "ready": run.Bench(bench_image.measure_ready, 3, 5)}
    monkeypatch.setattr(run, "BENCHES", measures)
    assert run.main([]) == 0
    told = capsys.readouterr()
    assert [line.split(" is skipped")[0] for line in told.err.splitlines()] == [
        "bench: image_nix_mb",
        "bench: image_nix_ready_s",
    ]
    assert told.out == ""
    assert not command.exists()


def test_both_builders_images_start_alike(tmp_path: Path) -> None:
    """The image's name is all that differs, and both start as hardened as a tenant's container, without a network."""
    one, two = (bench_image.start(image, tmp_path) for image in (bench_image.OURS, bench_image.THEIRS))
    assert one[:-1] == two[:-1]
    hardened = {
        "--network=none",
        "--read-only",
        "--cap-drop=all",
        "--userns=keep-id",
        "--security-opt=no-new-privileges",
    }
    assert hardened <= set(one)


def test_a_peer_that_cannot_be_had_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without fleet its figures are one line that says why, and nothing else."""

    @contextmanager
    def prepared() -> Iterator[None]:
        raise Unavailable("there is no npm on this host to get it with")
        yield

    monkeypatch.setattr(bench_fleet, "prepared", prepared)
    assert bench_fleet.measure() == []
    assert "skipped: there is no npm" in capsys.readouterr().err


def test_movers_that_cannot_be_had_are_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Without rclone and s5cmd the figures beside them are one line that says why; half an install is none."""

    def install(argv: list[str], **_: object) -> None:
        raise subprocess.CalledProcessError(1, argv, stderr="no such host")

    @contextmanager
    def bench() -> Iterator[None]:
        sync_peers._get(tmp_path / "cache")
        yield

    monkeypatch.setattr(subprocess, "run", install)
    monkeypatch.setattr(bench_sync, "bench", bench)
    assert bench_sync.measure() == []
    told = capsys.readouterr().err
    assert "the figures of sync are skipped" in told
    assert "no such host" in told
    assert not (tmp_path / "cache/ready").exists()


def test_the_fake_claims_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control plane's bench claims as many tenants as it says, and its figures are rates and tails of them."""
    monkeypatch.setattr(bench_fake, "CLAIMS", 12)
    monkeypatch.setattr(bench_fake, "TENANTS", 24)
    monkeypatch.setattr(bench_fake, "EDGE", 4)
    seconds = bench_fake._round(tmp_path)
    assert len(seconds) == 12
    assert list(tmp_path.iterdir()) == []


@pytest.mark.spawns
def test_a_hostile_tenant_is_measured() -> None:
    """The bench of hostile clients times each request of the other tenant, quiet and beside them, and each probe."""
    one = bench_hostile._round(clients=4, requests=8, probed=4)
    assert (len(one.quiet), len(one.hostile), len(one.probes)) == (8, 8, 4)


GIVEN = [figure for name, bench in run.BENCHES.items() for figure in (name, *bench.also)]
RECORDED = newest(pages.FIGURES / "bench.jsonl")


def test_every_figure_is_explained_and_has_its_place() -> None:
    """docs/BENCHMARKS.md explains each figure that `make bench` can measure, and no other; so do the tables' groups."""
    text = (PROJECT / "docs/BENCHMARKS.md").read_text().partition(pages.BEGIN)[0]
    headings = re.findall(r"^### (.*)$", text, re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(headings))) == sorted(GIVEN)
    assert sorted(name for names in pages.GROUPS.values() for name in names) == sorted(GIVEN)


def test_the_documents_are_what_was_recorded() -> None:
    """Tables and picture say what docs/figures/bench.jsonl says: nobody wrote a figure by hand (`run.py --docs`)."""
    assert pages.PAGE.read_text() == pages.page(pages.PAGE.read_text(), RECORDED)
    assert (pages.FIGURES / "bench.svg").read_text() == draw(pages.grouped(RECORDED))


def test_the_documents_are_written_from_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--docs` takes each figure's newest line; what stands outside of the markers stays."""
    (tmp_path / "PAGE.md").write_text(f"before\n{pages.BEGIN}old\n{pages.END}after\n")
    monkeypatch.setattr(pages, "PAGE", tmp_path / "PAGE.md")
    monkeypatch.setattr(pages, "FIGURES", tmp_path / "figures")
    monkeypatch.setenv("EVIDENCE_DIR", str(tmp_path))
    parts = {"lease": 0.0061, "hand-over": 0.0003}
    append(tmp_path / "bench.jsonl", [figure(ours=[9.0]), figure(parts=parts, busy=0.5)])
    append(tmp_path / "bench.jsonl", [figure(name="soak_leaks", **ALONE, most=0, counts={"ports": (4, 5)})])
    assert run.main(["--docs"]) == 0
    text = (tmp_path / "PAGE.md").read_text()
    assert text.startswith(f"before\n{pages.BEGIN}")
    assert text.endswith(f"{pages.END}after\n")
    assert "old" not in text
    assert "| 20 ms " in text
    assert "lease 6.1 ms, hand-over 0.3 ms" in text
    assert "| ports | 4      | 5     |" in text
    assert "`claim_warm` (50%)" in text
    assert len((tmp_path / "figures/bench.jsonl").read_text().splitlines()) == 2


def test_the_picture_shows_each_ratio(tmp_path: Path) -> None:
    """The SVG is whole XML with a bar a figure that has a peer, colours for light and dark, and small enough."""
    some = [line(), line(name="answer_slot", ours=[9.0], goal=1.0), line(name="idle_50_mb", **ALONE)]
    text = draw({"Claims": some, "Nothing": some[2:]})
    root = ET.fromstring(text)
    names = ["".join(one.itertext()) for one in root.iter("{http://www.w3.org/2000/svg}text")]
    bars = [one.attrib for one in root.iter("{http://www.w3.org/2000/svg}rect")]
    assert {"claim_warm", "answer_slot", "Claims"} <= set(names)
    assert not {"idle_50_mb", "Nothing"} & set(names)
    page, *bars = bars
    assert [bar["class"] for bar in bars] == ["ours", "missed"]
    assert float(bars[0]["width"]) * 5 == pytest.approx(float(bars[1]["width"]) / 1.6, rel=0.01)
    assert page["class"] == "page"  # whatever it is shown on
    assert "prefers-color-scheme: dark" in text
    assert len(text) < 100_000


# --- what processes cost ---


@pytest.mark.spawns
def test_processes_are_found_and_weighed() -> None:
    """A process is found by a word of its command line, with its children, memory and descriptors."""
    word = f"claw-bench-{os.getpid()}"
    shell = ["sh", "-c", "sleep 60 & echo; wait", word]
    with subprocess.Popen(shell, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            assert process.pid in footprint.mentioning([word])
            assert len(footprint.below(process.pid)) == 2
            assert 0 < footprint.memory(footprint.below(process.pid)) < 50
            assert footprint.open_files(process.pid) >= 3
            assert footprint.seconds_of([process.pid]) < 5
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def test_a_port_that_is_listened_on_counts() -> None:
    """The kernel's own list of sockets tells how many ports this user listens on."""
    before = footprint.listening()
    with ExitStack() as servers:
        for _ in range(40):
            servers.enter_context(socket.create_server(("127.0.0.1", 0)))
        assert footprint.listening() >= before + 20  # this user's other programs open and close ports meanwhile
    assert footprint.memory([2**22]) == footprint.seconds_of([2**22]) == 0


def test_names_below_a_directory_count(tmp_path: Path) -> None:
    """Files and directories, however deep."""
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/c").touch()
    assert footprint.files(tmp_path) == 3
