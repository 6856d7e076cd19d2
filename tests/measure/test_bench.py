"""``ortsep bench``: what it tells of a model, and of a side that fails."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from places import GRAPHS

from ortsep.base.errors import OrtsepError
from ortsep.measure.bench import compare, run_worker

ORTSEP = [sys.executable, "-m", "ortsep.cli"]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*ORTSEP, "bench", *arguments], capture_output=True, text=True, check=False)


def test_one_document_with_all_figures() -> None:
    done = bench("drums_mini", "--seconds", "4", "--runs", "1", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    ours = document["medians"]["ortsep"]
    assert 0 < ours["graphs"] <= ours["seconds"]
    assert ours["cold_start"] > 0.05
    assert ours["real_time_factor"] == pytest.approx(ours["seconds"] / 4)
    assert ours["graphs_real_time_factor"] == pytest.approx(ours["graphs"] / 4)
    assert ours["peak_mb"] > 50
    assert document["gflop"] > 1
    assert 0 < document["shares"]["end_to_end"] <= document["shares"]["graphs"] < 2


def test_the_table_for_people() -> None:
    done = bench(str(GRAPHS / "ratio"), "--seconds", "2", "--runs", "1")
    assert done.returncode == 0, done.stderr
    assert "graphs alone s" in done.stdout
    assert "GFLOP" in done.stdout


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf"])
def test_no_song_is_no_benchmark(seconds: str) -> None:
    done = bench("drums_mini", "--seconds", seconds)
    assert done.returncode == 2
    assert "can't be measured; give --seconds" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_side_that_fails_says_why() -> None:
    with pytest.raises(OrtsepError, match="the benchmark of theirs failed: out of luck"):
        run_worker("theirs", [sys.executable, "-c", "raise SystemExit('out of luck')"])


def test_ratios_are_medians_of_neighbouring_runs(tmp_path: Path) -> None:
    def side(name: str, seconds: list[float]) -> list[str]:
        left = tmp_path / name
        left.write_text(json.dumps(seconds))
        code = (
            "import json, pathlib, time, sys; left = pathlib.Path(sys.argv[1]);"
            "first, *rest = json.loads(left.read_text());"
            "left.write_text(json.dumps(rest));"
            "now = time.time(); said = {'ready': now, 'first': now, 'seconds': first, 'backend': 'none', 'peak_mb': 1};"
            "print(json.dumps(said))"
        )
        return [sys.executable, "-c", code, str(left)]

    commands = {"ours": side("ours", [1.0, 8.0, 3.0]), "theirs": side("theirs", [2.0, 8.0, 12.0])}
    result = compare(commands, 3, 2.0, lambda _: None)
    assert result["ratios"]["theirs"]["time"] == 0.5
    assert result["medians"]["ours"]["seconds"] == 3.0
    assert result["medians"]["ours"]["graphs"] is None
    assert result["medians"]["ours"]["real_time_factor"] == 1.5
