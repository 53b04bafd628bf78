"""Requests over TCP begin tenant by tenant: many of one take nothing from another. Counted, on a clock of the test."""

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from claw_runtime.api.admission import BURST, RATE, TOGETHER, YOUNG, Admission, StartedRequest
from claw_runtime.api.lanes import LOOKS, READERS, Lane

WIDE = Lane(name="wide", slots=900, tenant=800, token=800, reserve=1)


class Timer:
    def __init__(self, call: Callable[[], None]) -> None:
        self.call, self.cancelled = call, False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """An event loop whose time passes when the test says so."""

    def __init__(self) -> None:
        self.now, self._timers, self._order = 0.0, list[tuple[float, int, Timer]](), count()

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Timer:
        timer = Timer(lambda: callback(*args))
        heapq.heappush(self._timers, (self.now + delay, next(self._order), timer))
        return timer

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            at, _, timer = heapq.heappop(self._timers)
            self.now = max(self.now, at)
            if not timer.cancelled:
                timer.call()
        self.now = end


class Request:
    """One request; `there` is whether its client has not hung up."""

    def __init__(self, begun: list["Request"], *, there: bool = True) -> None:
        self._begun, self.there = begun, there
        self.started: StartedRequest | None = None
        self.refused = ""

    def begin(self, started: StartedRequest) -> bool:
        if self.there:
            self.started = started
            self._begun.append(self)
        return self.there

    def refuse(self, why: str) -> None:
        self.refused = why


class Asked:
    """An admission, its time, and the requests that have begun."""

    def __init__(self) -> None:
        self.loop, self.begun = Loop(), list[Request]()
        self.admission = Admission(loop=lambda: self.loop)

    def ask(self, holder: str = "tenant alice", lane: Lane = WIDE, *, there: bool = True) -> Request:
        one = Request(self.begun, there=there)
        self.admission.ask(one, holder, lane)
        return one

    def end(self, one: Request) -> None:
        assert one.started
        self.admission.end(one.started)


@pytest.fixture
def asked() -> Asked:
    return Asked()


def test_one_thing_after_the_other_never_waits(asked: Asked) -> None:
    """A tenant whose requests follow each other has no rate."""
    for number in range(1, 1000):
        one = asked.ask()
        assert len(asked.begun) == number
        asked.end(one)


def test_five_hundred_of_one_keep_no_other_waiting(asked: Asked) -> None:
    """With 500 requests of a tenant in line, each request of another begins at once."""
    for _ in range(500):
        asked.ask()
    assert len(asked.begun) == TOGETHER

    for _ in range(100):
        one = asked.ask("tenant bob")
        assert asked.begun[-1] is one
        asked.end(one)
        asked.loop.run(0.002)


def test_a_flood_gets_its_rate(asked: Asked) -> None:
    """Requests that take no time begin `RATE` times a second after the burst, not as often as their clients ask."""
    seconds, seen = 10, 0
    for _ in range(seconds * 1000):
        while len(asked.begun) > seen:
            asked.end(asked.begun[seen])
            seen += 1
        asked.ask()
        asked.ask()
        asked.loop.run(0.001)

    assert seconds * RATE * 0.9 <= len(asked.begun) <= seconds * RATE + 2 * BURST + TOGETHER


def test_requests_that_hang_give_way_to_the_next(asked: Asked) -> None:
    """What waits for the store is soon not young any more: more than `TOGETHER` may hang beside each other."""
    for _ in range(10):
        asked.ask()
    asked.loop.run(5 * YOUNG)

    assert len(asked.begun) == 10


def test_a_full_lane_keeps_no_other_lane_waiting(asked: Asked) -> None:
    """The tenant's listings hang and fill their share; its status begins at once."""
    listings = [asked.ask(lane=READERS) for _ in range(100)]
    asked.loop.run(1)
    assert len(asked.begun) == READERS.tenant

    status = asked.ask(lane=LOOKS)
    assert status.started

    asked.end(listings[0])
    asked.loop.run(YOUNG)
    assert len(asked.begun) == READERS.tenant + 2


def test_lanes_of_a_tenant_take_turns(asked: Asked) -> None:
    """With 300 requests of one lane in line, one of another lane is among the next two."""
    for _ in range(300):
        asked.ask()
    late = asked.ask(lane=LOOKS)
    for one in asked.begun[:2]:
        asked.end(one)

    assert late in asked.begun[TOGETHER : TOGETHER + 2]


def test_a_request_whose_client_hung_up_never_begins(asked: Asked) -> None:
    """Neither a request that was withdrawn nor one whose client turns out to have gone takes a turn of the others."""
    first, second = asked.ask(), asked.ask()
    gone = [asked.ask(there=number % 2 == 0) for number in range(300)]
    for one in gone[::2]:
        asked.admission.withdraw(one, "tenant alice")
    last = asked.ask()
    asked.end(first)
    asked.end(second)

    assert asked.begun == [first, second, last]
    assert asked.admission.waiting("tenant alice") == 0


def test_a_request_without_a_turn_is_refused(asked: Asked) -> None:
    """After 2 s, with the reason: its lane is full, or the tenant has had its turns."""
    for _ in range(READERS.tenant):
        asked.ask(lane=READERS)
    late = asked.ask(lane=READERS)
    many = [asked.ask() for _ in range(500)]
    asked.loop.run(2.5)

    assert late.refused == "4 such requests of tenant 'alice' are in progress"
    refused = [one for one in many if one.refused]
    assert len(refused) > 300
    assert refused[0].refused == "the requests of tenant 'alice' that wait get 50 turns a second"
    assert not any(one.started for one in refused)
    assert asked.admission.waiting("tenant alice") == 0


def test_nobodys_requests_share_one_line(asked: Asked) -> None:
    """Requests without a valid token wait for each other, and not for those with one."""
    for _ in range(100):
        asked.ask("", LOOKS)

    assert len(asked.begun) == TOGETHER
    assert asked.ask("tenant alice", LOOKS).started
