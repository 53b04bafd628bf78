"""Snapshots as programs and people see them: the API's answers, and the tables, questions and codes of the verbs."""

import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from claw_runtime.cli import snapshot_verb
from claw_runtime.daemon.assembly import Runtime
from claw_runtime.tenancy import tenant_id
from fakes.faces import Api, runtime_of, serving
from fakes.terminal import Call
from fakes.world import World

pytest_plugins = ["fakes.terminal_fixtures"]

ALICE = tenant_id("alice")
SNAPSHOTS = "/api/v1/tenants/alice/snapshots"
HOSTILE = "evil\x1b[2J\nname\u202e"


@pytest.fixture
def world(world: World) -> World:
    """Alice has three generations, an hour apart."""
    for files in ({"a.txt": "blue", "work/plan.md": "one"}, {"a.txt": "red"}, {"work/late.md": "three"}):
        world.tenants.claim(ALICE, "small")
        world.write(ALICE, files)
        world.tenants.release(ALICE)
        world.clock.advance(3600)
    return world


class TestApi:
    @pytest.fixture
    def runtime(self, world: World) -> Runtime:
        return runtime_of(world, listen="127.0.0.1:7070")

    @pytest.fixture
    def api(self, runtime: Runtime) -> Api:
        return Api(runtime)

    def test_snapshots_are_listed_and_shown(self, api: Api) -> None:
        """A number, a tag and a time lead to the same one."""
        listed = api.get(SNAPSHOTS).json()
        assert [one["generation"] for one in listed["snapshots"]] == [1, 2, 3]
        api.post(f"{SNAPSHOTS}/2/pin", json={"tag": "good"})
        created = listed["snapshots"][1]["created"].replace("+00:00", "Z")
        shown = [api.get(f"{SNAPSHOTS}/{wanted}").json() for wanted in ("2", "good", f"@{created}", "@61m")]
        assert all(one == shown[0] for one in shown)
        assert (shown[0]["generation"], shown[0]["tag"], shown[0]["parent"]) == (2, "good", 1)
        assert shown[0]["biggest"][0] == {"path": "a.txt", "bytes": 3}

    def test_a_difference_says_what_and_how_big(self, api: Api) -> None:
        """From the one to the other; to the newest unless it is told."""
        told = api.get(f"{SNAPSHOTS}/1/diff").json()
        first, second = told["changes"]
        assert (told["before"], told["after"]) == (1, 3)
        fields = ("change", "path", "quoted", "type", "bytesBefore", "bytesAfter", "what")
        assert list(first) == list(fields)
        assert list(first.values()) == ["changed", "a.txt", "a.txt", "file", 4, 3, ["content", "time"]]
        assert list(second.values()) == ["added", "work/late.md", "work/late.md", "file", None, 5, []]
        assert api.get(f"{SNAPSHOTS}/3/diff", params={"to": "1"}).json()["changes"][1]["change"] == "removed"

    def test_going_back(self, api: Api, world: World) -> None:
        """A dry run tells the same and does nothing; then it is done once, and there is nothing more to do."""
        plan = api.post(f"{SNAPSHOTS}/1/restore", json={"dryRun": True}).json()
        done = api.post(f"{SNAPSHOTS}/1/restore").json()
        assert (plan["generation"], done["generation"]) == (None, 4)
        assert {**plan, "generation": 4} == done
        assert api.post(f"{SNAPSHOTS}/1/restore").json()["generation"] is None
        assert world.saved(ALICE) == {"a.txt": "blue", "work/plan.md": "one"}
        some = api.post(f"{SNAPSHOTS}/3/restore", json={"paths": ["work/late.md"]}).json()
        assert [one["path"] for one in some["changes"]] == ["work/late.md"]

    def test_pins_come_and_go(self, api: Api) -> None:
        """A pin without a tag keeps the one that is there."""
        assert api.post(f"{SNAPSHOTS}/1/pin").json()["pinned"] is True
        assert api.post(f"{SNAPSHOTS}/1/pin", json={"tag": "good"}).json()["tag"] == "good"
        assert api.post(f"{SNAPSHOTS}/good/pin", json={}).json()["tag"] == "good"
        assert api.request("DELETE", f"{SNAPSHOTS}/good/pin").json()["pinned"] is False

    @pytest.mark.parametrize(
        ("method", "path", "body", "status", "slug"),
        [
            ("GET", "/api/v1/tenants/bob/snapshots", None, 404, "state-missing"),
            ("GET", "/api/v1/tenants/Bob/snapshots", None, 422, "invalid-tenant-id"),
            ("GET", "/api/v1/tenants/../../etc/snapshots", None, 404, "error"),
            ("GET", f"{SNAPSHOTS}/9", None, 404, "state-missing"),
            ("GET", f"{SNAPSHOTS}/@never", None, 422, "invalid-spec"),
            ("GET", f"{SNAPSHOTS}/1/diff?to=9", None, 404, "state-missing"),
            ("POST", f"{SNAPSHOTS}/1/pin", {"tag": "5"}, 422, "invalid-spec"),
            ("POST", f"{SNAPSHOTS}/1/pin", {"tags": "x"}, 422, "invalid-spec"),
            ("POST", f"{SNAPSHOTS}/1/restore", {"paths": [""]}, 422, "invalid-spec"),
            ("POST", f"{SNAPSHOTS}/1/restore", {"paths": ["nowhere"]}, 404, "state-missing"),
            ("POST", f"{SNAPSHOTS}/1/restore", {"into": "../bob"}, 422, "invalid-tenant-id"),
            ("POST", f"{SNAPSHOTS}/1/restore", {"into": "bob", "paths": ["a.txt"]}, 422, "invalid-spec"),
            ("POST", f"{SNAPSHOTS}/1/restore", {"replace": True}, 422, "invalid-spec"),
        ],
    )
    def test_what_is_wrong_is_a_problem(
        self, api: Api, method: str, path: str, body: Any, status: int, slug: str
    ) -> None:
        """Each with its own type and a hint."""
        answer = api.request(method, path, json=body)
        assert (answer.status_code, answer.json()["type"]) == (status, f"urn:claw:{slug}")
        assert answer.json()["hint"]

    def test_a_running_tenant_is_a_conflict(self, api: Api, world: World) -> None:
        """It may be looked at and pinned all the same."""
        world.tenants.claim(ALICE, "small")
        assert api.post(f"{SNAPSHOTS}/1/restore").status_code == 409
        assert api.post(f"{SNAPSHOTS}/1/restore", json={"dryRun": True}).status_code == 200
        assert api.post(f"{SNAPSHOTS}/1/pin").status_code == 200

    def test_a_tenants_token_reaches_its_own_snapshots_only(self, runtime: Runtime) -> None:
        """Its own may be listed and gone back to; those of others are forbidden."""
        _, token = runtime.tokens.create("mine", "tenant", tenant="alice", lifetime=None)
        api, shown = Api(runtime, local=False), {"Authorization": f"Bearer {token.reveal()}"}
        assert api.get(SNAPSHOTS, headers=shown).status_code == 200
        assert api.post(f"{SNAPSHOTS}/1/restore", headers=shown).status_code == 200
        other = SNAPSHOTS.replace("alice", "bob")
        assert api.get(other, headers=shown).status_code == 403
        assert api.post(f"{other}/1/restore", headers=shown).status_code == 403
        assert api.get(SNAPSHOTS).status_code == 401
        assert api.post(f"{SNAPSHOTS}/1/restore", json={"into": "bob"}, headers=shown).status_code == 403

    def test_an_operator_may_copy_into_another_tenant(self, api: Api, world: World) -> None:
        """The answer says whose it was; the other has no state unless it is to be replaced."""
        done = api.post(f"{SNAPSHOTS}/1/restore", json={"into": "bob"}).json()
        assert (done["tenantId"], done["sourceTenantId"], done["source"], done["generation"]) == ("bob", "alice", 1, 1)
        assert api.post(f"{SNAPSHOTS}/2/restore", json={"into": "bob"}).status_code == 409
        assert api.post(f"{SNAPSHOTS}/2/restore", json={"into": "bob", "replace": True}).json()["onto"] == 1
        assert world.saved(tenant_id("bob"))["a.txt"] == "red"


class TestVerbs:
    @pytest.fixture(autouse=True)
    def served(self, world: World, claw: Call) -> Iterator[None]:
        with serving(world):
            yield

    @pytest.fixture
    def answering(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
        """From the call on somebody sits at the terminal and answers so; the questions."""
        asked: list[str] = []

        def answer(text: str) -> list[str]:
            for stream in (sys.stdin, sys.stderr):  # those of the test itself, not of its fixtures
                monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
            monkeypatch.setattr("click.termui.visible_prompt_func", lambda told="": asked.append(told) or text)
            return asked

        return answer

    def test_the_list_is_a_table(self, claw: Call) -> None:
        """One a line, oldest first, with what is special about it."""
        claw("snapshot", "tag", "alice", "1", "good")
        claw("snapshot", "pin", "alice", "2")
        lines = claw("snapshot", "list", "alice").out.splitlines()
        assert lines[0].split() == ["GENERATION", "SEALED", "AGE", "FILES", "SIZE", "NOTE"]
        assert [line.split()[0] for line in lines[1:]] == ["1", "2", "3"]
        assert [line.rsplit("  ", 1)[-1] for line in lines[1:]] == ["tag good", "pinned", "current"]

    @pytest.mark.parametrize(
        ("words", "names"),
        [
            (("list", "alice"), ["1", "2", "3"]),
            (("show", "alice"), ["3"]),
            (("show", "alice", "@61m"), ["2"]),
            (("diff", "alice", "1"), ["a.txt", "work/late.md"]),
            (("diff", "alice", "1", "2"), ["a.txt"]),
            (("pin", "alice"), ["3"]),
            (("tag", "alice", "2", "good"), ["2"]),
            (("unpin", "alice", "2"), ["2"]),
            (("restore", "alice", "1", "--dry-run"), ["a.txt", "work/late.md"]),
            (("restore", "alice", "--at", "2"), ["4"]),
            (("restore", "alice", "3"), ["3"]),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
    )
    def test_every_answer_has_a_form_for_programs(self, claw: Call, words: tuple[str, ...], names: list[str]) -> None:
        """JSON is the API's answer, and `-o name` what each item goes by."""
        assert claw("snapshot", *words, "-o", "name").out.splitlines() == names
        assert isinstance(claw("snapshot", *words, "-o", "json").json, dict)

    def test_one_is_shown_in_full(self, claw: Call) -> None:
        """Counts and the largest files."""
        told = claw("snapshot", "show", "alice", "2").out
        assert "generation   2\n" in told
        assert "files        2, 6 B\n" in told
        assert "3 B   a.txt\n" in told

    def test_a_difference_is_a_table_and_a_sum(self, claw: Call) -> None:
        """What is equal says so."""
        told = claw("snapshot", "diff", "alice", "1", "3")
        assert told.out.splitlines()[1:] == [
            "changed  4 B     3 B    a.txt",
            "added    -       5 B    work/late.md",
        ]
        assert told.err == "alice: generation 1 to 3: 1 added, 1 changed\n"
        assert claw("snapshot", "diff", "alice", "3").err == "alice: generation 3 to 3: no difference\n"

    def test_going_back_says_the_way_back(self, claw: Call, world: World) -> None:
        """Without a terminal nothing is asked."""
        done = claw("snapshot", "restore", "alice", "1")
        assert done.out == "alice: generation 4 holds what generation 1 held\n"
        assert done.err == "  1 removed, 1 changed; the way back: claw-runtime snapshot restore alice 3\n"
        assert claw("snapshot", "restore", "alice", "--at", "2").code == 0
        again = claw("snapshot", "restore", "alice", "latest")
        assert again.out == "alice: nothing to change, it is as generation 5 was\n"
        assert world.repository.generations.manifest(ALICE).generation == 5

    def test_a_copy_says_whose_it_was(self, claw: Call) -> None:
        """There is no way back to nothing."""
        done = claw("snapshot", "restore", "alice", "1", "--into", "bob")
        assert done.out == "bob: generation 1 holds what generation 1 of alice held\n"
        assert done.err == "  3 added\n"
        assert claw("snapshot", "restore", "alice", "2", "--into", "bob").code == 37
        plan = claw("snapshot", "restore", "alice", "2", "--into", "bob", "--replace", "--dry-run")
        assert plan.err == "bob: generation 2 of alice onto 1: 1 changed\n"

    @pytest.mark.parametrize(("answer", "code", "generation"), [("y", 0, 4), ("n", 130, 3), ("", 130, 3)])
    def test_a_person_is_shown_and_asked(
        self, claw: Call, world: World, answering: Callable[[str], list[str]], answer: str, code: int, generation: int
    ) -> None:
        """Only yes is yes; the question comes after what would change."""
        asked = answering(answer)
        done = claw("snapshot", "restore", "alice", "1", "--path", "a.txt")
        assert (done.code, world.repository.generations.manifest(ALICE).generation) == (code, generation)
        assert "changed  3 B     4 B    a.txt" in done.err
        assert len(asked) == 1

    def test_a_person_who_said_yes_is_not_asked(self, claw: Call, answering: Callable[[str], list[str]]) -> None:
        """Nor one who asks for nothing, nor a program that reads JSON."""
        asked = answering("n")
        assert claw("snapshot", "restore", "alice", "1", "--yes").code == 0
        assert claw("snapshot", "restore", "alice", "latest").code == 0
        assert claw("snapshot", "restore", "alice", "3", "-o", "json").json["generation"] == 5
        assert asked == []

    def test_a_long_list_of_changes_is_cut_before_a_question(
        self, claw: Call, world: World, answering: Callable[[str], list[str]]
    ) -> None:
        """The dry run has all of them."""
        world.tenants.claim(ALICE, "small")
        world.write(ALICE, {f"many/{n:03d}": "" for n in range(50)})
        world.tenants.release(ALICE)
        answering("n")
        told = claw("snapshot", "restore", "alice", "1").err
        assert f"… and {53 - snapshot_verb.FIRST} more: --dry-run shows all" in told
        assert len(claw("snapshot", "restore", "alice", "1", "-n", "-o", "name").out.splitlines()) == 53

    def test_names_that_a_terminal_would_obey_are_shown_not_obeyed(
        self, claw: Call, world: World, answering: Callable[[str], list[str]]
    ) -> None:
        """In tables, lists of names, questions and JSON; one name stays one line."""
        world.tenants.claim(ALICE, "small")
        world.write(ALICE, {HOSTILE: "x" * 99})
        world.tenants.release(ALICE)
        answering("n")
        told = [
            claw("snapshot", "show", "alice"),
            claw("snapshot", "diff", "alice", "3"),
            claw("snapshot", "diff", "alice", "3", "-o", "name"),
            claw("snapshot", "diff", "alice", "3", "-o", "json"),
            claw("snapshot", "restore", "alice", "3"),
            claw("snapshot", "restore", "alice", "3", "--dry-run"),
        ]
        for result in told:
            text = result.out + result.err
            assert "evil" in text
            assert "\x1b" not in text
            assert "\u202e" not in text
            assert not any(line.startswith("name") for line in text.splitlines())

    def test_times_are_this_hosts(self, claw: Call, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """A time without a zone is sent with the zone of whoever typed it."""
        sealed = world.snapshots.list(ALICE)[1].past.created
        here = datetime.fromisoformat(sealed).astimezone().replace(tzinfo=None).isoformat()
        assert claw("snapshot", "show", "alice", f"@{here}", "-o", "name").out == "2\n"
        assert claw("snapshot", "show", "alice", f"@{datetime.fromisoformat(sealed).astimezone(UTC)}").code == 0

    @pytest.mark.parametrize(
        "words",
        [
            ("restore", "alice"),
            ("restore", "alice", "1", "--at", "2h"),
            ("restore", "alice", "--at", "yesterday"),
            ("restore", "alice", "--at", "-5"),
            ("restore", "alice", "1", "--replace"),
            ("restore", "alice", "1", "--into", "bob", "--path", "a.txt"),
            ("show", "alice", "@"),
            ("show", "alice", "../bob"),
            ("show", "alice", "a%2fb"),
            ("show", "alice", ""),
        ],
    )
    def test_a_wrong_command_line_is_refused_before_anything_is_sent(self, claw: Call, words: tuple[str, ...]) -> None:
        """Exit code 2."""
        assert claw("snapshot", *words).code == 2

    def test_errors_keep_their_codes(self, claw: Call, world: World) -> None:
        """No such snapshot is 34, a tenant that runs 37, and the hint says how to go on."""
        assert claw("snapshot", "show", "alice", "9").code == 34
        world.tenants.claim(ALICE, "small")
        refused = claw("snapshot", "restore", "alice", "1")
        assert refused.code == 37
        assert " hint: release it first: claw-runtime release alice\n" in refused.err
