"""The benchmarks' arithmetic, lines, table and terms; nothing here measures, and no time is judged."""

import json
import re
import threading
from pathlib import Path

import pytest
from bench import bench_image, run
from bench.figures import Figure, append, duration, table, take_turns
from bench.first_sign import seconds_until
from bench.podman_run import PodmanRun, compare
from bench.stage import Stage
from claw_runtime import settings
from claw_runtime.errors import ImageMissing
from claw_runtime.ports import EngineInfo
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


def test_a_line_is_the_documented_json() -> None:
    """A line holds the documented members and no other: seconds of ours, the ratio to the peer, the load, the time."""
    assert json.loads(figure().line()) == {
        "name": "claim_warm",
        "value": 0.02,
        "unit": "s",
        "peer": "podman run -d",
        "ratio": 0.2,
        "goal": "<= 0.2",
        "runs": 3,
        "load": [0.5, 1.25],
        "at": "2026-11-20T07:00:00+00:00",
    }
    assert "\n" not in figure().line()


def test_a_figure_without_a_goal_only_informs() -> None:
    """Without a goal the line says null, the table nothing, and it is neither met nor missed."""
    informing = figure(goal=None)
    assert json.loads(informing.line())["goal"] is None
    assert informing.met is None
    assert informing.cells()[4:6] == ("", "")


def test_what_is_no_time_has_its_unit() -> None:
    """A size is written with its unit, in the line as in the table, and never as seconds."""
    size = figure(unit="MB", ours=[1079.4], theirs=[1164.1])
    assert json.loads(size.line())["unit"] == "MB"
    assert size.cells()[1:3] == ("1079 MB", "1164 MB")


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
    """The table has a row a figure with both costs, the ratio and whether the goal was met, in columns of one width."""
    text = table([figure(), figure(name="claim_to_answer", goal=1.0, ours=[2.5], theirs=[2.0])])
    lines = text.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["figure", "ours", "peer's", "ratio", "goal", "met", "runs", "load", "peer"]
    assert set(lines[1]) == {"|", "-"}
    assert cells[2] == ["claim_warm", "20 ms", "100 ms", "0.2", "<= 0.2", "yes", "3", "0.5–1.2", "podman run -d"]
    assert cells[3][:6] == ["claim_to_answer", "2.50 s", "2.00 s", "1.25", "<= 1", "NO"]
    assert len({len(line) for line in lines}) == 1


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


def test_the_first_sign_is_seen_during_and_after_the_act(tmp_path: Path) -> None:
    """The clock stops when the file appears, not when the act returns, and other files do not stop it."""
    late = threading.Timer(0.05, (tmp_path / "late").touch)
    with_others = [(tmp_path / "other").touch, late.start]
    assert seconds_until(tmp_path, "late", lambda: [act() for act in with_others]) >= 0.05
    pause = threading.Event()
    during = seconds_until(tmp_path, "early", lambda: ((tmp_path / "early").touch(), pause.wait(1.0)))
    assert during < 1.0


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
        workload=file,
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
        "--userns=keep-id",
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

    invented = {
        "good": (lambda runs: [figure(name="good", ours=[0.02] * runs, theirs=[0.1] * runs)], 4),
        "bad": (fail, 1),
    }
    monkeypatch.setattr(run, "BENCHES", invented)
    monkeypatch.setattr(run.logs, "configure", lambda **_: None)
    monkeypatch.setattr(run.signal, "signal", lambda *_: None)
    monkeypatch.setenv("EVIDENCE_DIR", str(tmp_path / "evidence"))
    return tmp_path / "evidence/bench.jsonl"


def test_the_command_measures_what_was_named(command: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Named figures are measured with the asked number of runs, or their own, written to the file and printed."""
    assert run.main(["good"]) == 0
    assert run.main(["good", "--runs", "2"]) == 0
    assert [json.loads(line)["runs"] for line in command.read_text().splitlines()] == [4, 2]
    assert "| good " in capsys.readouterr().out


def test_figures_before_a_failure_are_kept(command: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """When one figure cannot be measured, the earlier ones are written and shown, and the exit code is the error's."""
    assert run.main([]) == ImageMissing.exit_code
    assert len(command.read_text().splitlines()) == 1
    told = capsys.readouterr()
    assert "| good " in told.out
    assert "make image" in told.err


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
    measures = {"size": (bench_image.measure_size, 1), "ready": (bench_image.measure_ready, 3)}
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


def test_every_figure_is_explained() -> None:
    """docs/BENCHMARKS.md explains each figure that `make bench` can measure, and no other."""
    text = (PROJECT / "docs/BENCHMARKS.md").read_text()
    assert set(re.findall(r"^### `(\w+)`", text, re.MULTILINE)) == {*run.BENCHES, "claim_to_ready"}
