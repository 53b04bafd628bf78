"""`config check`, `config show` and `config schema`: what an author learns about a file before anything runs."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from claw_runtime.cli import main as cli
from claw_runtime.daemon import tools
from claw_runtime.logs import MASK
from claw_runtime.seccomp import profiles
from claw_runtime.spec import contract, loader, plan
from claw_runtime.spec.check import check
from claw_runtime.spec.schema import schema
from claw_runtime.spec.shown import shown
from claw_runtime.tenancy import LABEL_CONTRACT

REPOSITORY = Path(__file__).resolve().parents[3]
CONTRACT = REPOSITORY / "images/openclaw-nix/contract.json"
EXAMPLES = sorted((REPOSITORY / "docs/examples").glob("*/workload*.yaml"))
FILE = "id: a\nimage: b\nvolumes: {state: {target: /s}}\nhealthcheck: {test: [CMD, x]}\n"

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def config(capsys: pytest.CaptureFixture[str]) -> Call:
    """`config("check", file)` is `claw-runtime config check file`: exit code, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main(["config", *map(str, arguments)])
        out = capsys.readouterr()
        return int(ended.value.code or 0), out.out, out.err

    return call


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a workload file, `w.yaml` unless told otherwise."""

    def write(text: str, name: str = "w.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


# --- check --------------------------------------------------------------------------------------------------------


def test_each_mistake_is_a_line_with_its_position(config: Call, write: Callable[..., Path]) -> None:
    """All of them on stdout, in one call, and the exit code of an invalid file."""
    path = write("id: A\nimag: b\npool: 3\n")
    code, out, err = config("check", path)
    assert code == 16
    unknown, wrong, missing, kind = out.splitlines()
    assert unknown == f"{path}:2:1: unknown key 'imag' (did you mean 'image'?)"
    assert wrong.startswith(f"{path}:1:5: id: 'A' is not an id: a tenant id is 1-40 lower-case letters")
    assert missing == f"{path}:1:1: 'image' is missing"
    assert kind == f"{path}:3:7: pool: 3 is not a mapping"
    assert err == ""


def test_hints_are_beside_the_data(config: Call, write: Callable[..., Path]) -> None:
    """A valid file is a line on stdout; what is odd about it is on stderr, with its kind."""
    path = write(FILE + "resources: {limits: {cpus: 1}}\nuser: 1000\n")
    code, out, err = config("check", path)
    assert (code, out) == (0, f"{path}: a is valid\n")
    assert err.splitlines() == [
        f"{path}:5:1: resources is written deploy.resources [deprecated]",
        f"{path}:6:1: user 1000 is the host's own user, mapped into the container (keep-id): leave it out [advice]",
    ]


def test_a_file_is_checked_as_far_as_it_is_known(config: Call, write: Callable[..., Path]) -> None:
    """Without the image's contract the answer says that there is more; with it both are checked together."""
    path = write("id: a\nimage: b\nvolumes: {x: {source: /x, target: /state/x}}\n")
    code, out, err = config("check", path)
    assert (code, out) == (0, f"{path}: a is valid\n")
    assert "the image's contract" in err
    code, out, _err = config("check", "--contract", CONTRACT, path)
    assert code == 16
    assert out.startswith(f"{path}:3:35: volumes.x overlaps with state at /state: every container")


def test_files_are_held_against_one_another(config: Call, write: Callable[..., Path]) -> None:
    """A second file of the same id or with another store is refused; a broken one does not spoil the rest."""
    sink = "sync: {{sink: {{type: s3, bucket: {}}}}}\n"
    files = [
        write("id: [\n", "0.yaml"),
        write(FILE + sink.format("one"), "1.yaml"),
        write(FILE, "2.yaml"),
        write(FILE.replace("id: a", "id: b") + sink.format("two"), "3.yaml"),
        write(FILE.replace("id: a", "id: c") + sink.format("one"), "4.yaml"),
    ]
    reports = check(files)
    assert [[remark.what for remark in report.errors][:1] for report in reports[1:]] == [
        [],
        [f"id 'a' is taken: {files[1]} has the same id"],
        [
            (
                "sync.sink is another store than that of workload 'a': "
                f"{files[1]} names s3://one, this one s3://two; one daemon has one store"
            )
        ],
        [],
    ]
    assert config("check", *files)[0] == 16


def test_a_check_is_data_too(config: Call, write: Callable[..., Path], tmp_path: Path) -> None:
    """One document with every file and every remark; the exit code says the same as for people."""
    path = write(FILE + "user: 1000\n")
    code, out, _err = config("check", path, tmp_path / "nothing", "-o", "json")
    assert code == 16
    good, missing = json.loads(out)
    assert (good["file"], good["id"], good["valid"], good["whole"]) == (str(path), "a", True, True)
    assert [(remark["kind"], remark["line"], remark["column"]) for remark in good["remarks"]] == [("advice", 5, 1)]
    assert (missing["id"], missing["valid"]) == (None, False)
    assert missing["remarks"] == [
        {
            "kind": "error",
            "line": None,
            "column": None,
            "message": "cannot be read: No such file or directory",
            "hint": "give the path of a workload file",
        }
    ]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_valid(config: Call, example: Path) -> None:
    """In either dialect."""
    assert config("check", example)[0] == 0


# --- show ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_contract", [True, False])
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_what_is_shown_means_the_same(example: Path, *, with_contract: bool) -> None:
    """It loads again, oddly written nowhere, shows itself when shown again, and makes the same plan."""
    promise = contract.load(CONTRACT) if with_contract else None
    document = loader.load(example)
    workload = plan.plan(document, promise) if with_contract or "boilerhouse" in example.stem else None
    told = shown(document, workload)
    again = loader.parse(yaml.safe_dump(told), example)
    assert [hint for hint in again.hints if hint.kind == "deprecated"] == []
    same = plan.plan(again, promise) if workload else None
    assert shown(again, same) == told
    if workload is not None and same is not None:
        assert dataclasses.replace(same, ready_timeout=0) == dataclasses.replace(workload, ready_timeout=0)
        assert same.ready_timeout == pytest.approx(workload.ready_timeout)


def test_secrets_are_masked(write: Callable[..., Path]) -> None:
    """A store's keys, and the values that the contract calls secret."""
    path = write(
        "id: a\nimage: b\nenvironment: {CLAW_MODEL_API_KEY: canary-a, CLAW_MODEL_ID: m}\n"
        "sync: {sink: {type: s3, bucket: abc, access_key_id: canary-b, secret_access_key: canary-c}}\n"
    )
    document = loader.load(path)
    told = shown(document, plan.plan(document, contract.load(CONTRACT)))
    assert "canary" not in json.dumps(told)
    assert told["environment"] == {"CLAW_MODEL_API_KEY": MASK, "CLAW_MODEL_ID": "m"}


def test_show_writes_yaml_that_loads(config: Call, write: Callable[..., Path]) -> None:
    """With the image's contract filled in, durations and sizes in their units, and hints on stderr."""
    path = write("id: a\nimage: b\npool: {idle_timeout: 90, affinity_timeout: 0}\n")
    code, out, err = config("show", "--contract", CONTRACT, path)
    told: dict[str, Any] = yaml.safe_load(out)
    assert code == 0
    assert told["pool"]["idle_timeout"] == "1m30s"
    assert told["pool"]["affinity_timeout"] == "0s"
    assert told["pool"]["warmth"]["tree"] == 0
    assert (told["ports"], told["volumes"]["state"]) == (
        [{"container": 18789, "protocol": "tcp"}],
        {"target": "/state"},
    )
    assert told["deploy"]["resources"]["limits"]["memory"] == "2g"
    assert f"{path}:3:22: pool.idle_timeout 90 is taken as seconds: write 1m30s [deprecated]" in err
    assert json.loads(config("show", "--contract", CONTRACT, path, "-o", "json")[1]) == told


def test_show_takes_the_contract_that_the_file_names(config: Call, write: Callable[..., Path]) -> None:
    """Relative to the file, as `up` does."""
    write(CONTRACT.read_text(), "c.json")
    code, out, _err = config("show", write("id: a\nimage: b\ncontract: c.json\n"), "-o", "json")
    assert code == 0
    assert json.loads(out)["healthcheck"]["path"] == "/readyz"


def test_show_asks_the_image_on_request(
    config: Call, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The label of the image in Podman's store, of the file's own reference."""
    asked = []

    @contextmanager
    def images(_settings: object) -> Iterator[SimpleNamespace]:
        def inspect(reference: str) -> SimpleNamespace:
            asked.append(reference)
            return SimpleNamespace(image=SimpleNamespace(labels={LABEL_CONTRACT: CONTRACT.read_text()}))

        yield SimpleNamespace(inspect=inspect)

    monkeypatch.setattr(tools, "images", images)
    code, out, _err = config("show", "--image", write("id: a\nimage: localhost/b:1\n"), "-o", "json")
    assert (code, asked) == (0, ["localhost/b:1"])
    assert json.loads(out)["ports"] == [{"container": 18789, "protocol": "tcp"}]


def test_show_refuses_what_is_not_valid(config: Call, write: Callable[..., Path]) -> None:
    """As every command does: what, where, and what to do; as one object for programs."""
    path = write("id: a\nimage: b\npol: {}\n")
    code, out, err = config("show", path, "-o", "json")
    assert (code, out) == (16, "")
    assert json.loads(err)["message"] == f"{path}:3:1: unknown key 'pol'"


# --- schema -------------------------------------------------------------------------------------------------------


def test_the_schema_is_printed(config: Call) -> None:
    """As one JSON document, which is the committed one."""
    code, out, _err = config("schema")
    assert code == 0
    assert json.loads(out) == schema()
    assert out == (REPOSITORY / "docs/workload.schema.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(("words", "name"), [((), "strict"), (("strict",), "strict"), (("browser",), "browser")])
def test_profiles_of_system_calls_are_printed(config: Call, words: tuple[str, ...], name: str) -> None:
    """`config seccomp` prints what a workload file can name once it is in a file of its own."""
    code, out, _err = config("seccomp", *words)
    assert (code, out) == (0, profiles.text(name))
