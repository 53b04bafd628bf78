"""What the doctor makes of a running daemon's own answer."""

from claw_runtime.operations.doctor import daemon


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
