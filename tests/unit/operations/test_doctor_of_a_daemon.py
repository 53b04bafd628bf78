"""What the doctor makes of a running daemon's own answer, and of the router."""

from claw_runtime.operations.doctor import daemon, router


def test_a_running_daemon_answers_for_its_services() -> None:
    """What it reports of its engine or store is a failure, and so is no answer; each has something to do."""
    good = daemon(200, {"store": "s3://claw"})
    assert (good.verdict, good.hint) == ("ok", "")
    assert "s3://claw" in good.detail
    told = daemon(503, {"title": "the object store does not answer", "detail": "refused", "hint": "start it"})
    assert (told.verdict, told.detail, told.hint) == ("fail", "the object store does not answer: refused", "start it")
    silent = daemon(0, {"title": "it does not answer within 15 s", "detail": ""})
    assert silent.verdict == "fail"
    assert silent.hint


def test_the_router_is_shown_with_its_address() -> None:
    """None is a warning, one that does not answer a failure; so that others reach it without TLS is a warning too."""
    here = "127.0.0.1:8080, process 7, for 3 h"
    good = router("127.0.0.1:8080", here, answers=True, loopback=True)
    assert (good.verdict, good.detail, good.hint) == ("ok", here, "")
    none = router("127.0.0.1:8080", "", answers=False, loopback=True)
    assert (none.verdict, none.detail) == ("warn", "none runs for 127.0.0.1:8080")
    silent = router("127.0.0.1:8080", here, answers=False, loopback=True)
    assert (silent.verdict, here in silent.detail) == ("fail", True)
    open_to_all = router("0.0.0.0:80", here, answers=True, loopback=False)
    assert (open_to_all.verdict, "no TLS" in open_to_all.detail) == ("warn", True)
    assert all(one.hint for one in (none, silent, open_to_all))
