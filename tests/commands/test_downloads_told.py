"""What ``ortsep export`` tells of downloads."""

import json

import pytest

from ortsep.commands.progress import Downloads


def test_programs_get_events_and_not_too_many(capsys: pytest.CaptureFixture[str]) -> None:
    told = Downloads("json", quiet=True)
    for done in range(0, 1001):
        told("a.th", done, 1000)
    told("b.th", 5, 0)
    told.close()
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [e["event"] for e in events] == ["downloading"] * len(events)
    assert events[0] == {"event": "downloading", "file": "a.th", "done": 0, "total": 1000}
    assert events[-2:] == [
        {"event": "downloading", "file": "a.th", "done": 1000, "total": 1000},
        {"event": "downloading", "file": "b.th", "done": 5, "total": 0},
    ]
    assert len(events) < 20


@pytest.mark.parametrize("quiet", [False, True])
def test_people_without_a_terminal_get_a_line_a_file(quiet: bool, capsys: pytest.CaptureFixture[str]) -> None:
    told = Downloads("bar", quiet)
    for done in (1, 2, 1_500_000):
        told("a.th", done, 1_500_000)
    told("b.th", 5, 0)
    told.close()
    lines = capsys.readouterr().err.splitlines()
    assert lines == ([] if quiet else ["downloading a.th (1.5 MB)", "downloading b.th"])
