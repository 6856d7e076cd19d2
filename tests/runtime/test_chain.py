"""Two models one behind the other, the deadline, and the drum service."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from places import GRAPHS

from ortsep.audio.sources import ArraySource
from ortsep.base.errors import ModelError, UsageError
from ortsep.chain import Chain
from ortsep.engine.network import Network
from ortsep.options import Options
from ortsep.separator import Separator
from ortsep.songs import Files, TimedOut, separate_file
from ortsep.songs.drums import separate_drum_stems

Snr = Callable[[Any, Any], float]


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """The `masks` graph made a model of drums: its stems (0.25 and 0.5 of what it is fed) are kick and snare."""
    folder = tmp_path / "parts"
    shutil.copytree(GRAPHS / "masks", folder)
    (folder / "stems.txt").write_text("kick\nsnare\n")
    graph = folder / "masks.onnx"
    old, new = b'"content":"music"', b'"content":"drums"'
    assert graph.read_bytes().count(old) == 1, "the file is patched in place"
    graph.write_bytes(graph.read_bytes().replace(old, new))
    return folder


def noise(samples: int, channels: int = 2) -> np.ndarray:
    return (0.1 * np.random.default_rng(1).standard_normal((channels, samples))).astype(np.float32)


def joined(chain: Chain, x: np.ndarray, rate: int = 8000, **options: Any) -> dict[str, np.ndarray]:
    chosen = Options(**options)
    blocks = list(chain.stream(ArraySource(x, rate), chosen))
    return dict(zip(chain.names(chosen), np.concatenate(blocks, axis=-1), strict=True))


@pytest.mark.parametrize("samples", [1, 5000, 70_001])
def test_the_fed_stem_becomes_the_second_models_mixture(parts: Path, samples: int, snr: Snr) -> None:
    x = noise(samples)
    stems = joined(Chain(Separator(GRAPHS / "waves"), Separator(parts)), x)
    assert list(stems) == ["vocals", "kick", "snare"]
    for name, factor in {"vocals": 0.5, "kick": 0.25 * 0.25, "snare": 0.25 * 0.5}.items():
        assert stems[name].shape == x.shape
        assert snr(factor * x.astype(np.float64), stems[name]) > 110, name


def test_stems_residual_and_order_of_a_chain(parts: Path) -> None:
    x = noise(30_000)
    chain = Chain(Separator(GRAPHS / "waves"), Separator(parts))
    stems = joined(chain, x, residual=True)
    assert np.abs(sum(s.astype(np.float64) for s in stems.values()) - x).max() < 1e-6
    some = joined(chain, x, stems=("snare", "vocals"))
    assert list(some) == ["snare", "vocals"]
    for name, stem in some.items():
        np.testing.assert_array_equal(stem, stems[name])
    assert list(joined(chain, x, stems=("vocals",))) == ["vocals"]


def test_mono_and_another_rate_pass_through_a_chain(parts: Path, snr: Snr) -> None:
    chain = Chain(Separator(GRAPHS / "waves"), Separator(parts))
    assert joined(chain, noise(9000, 1))["kick"].shape == (1, 9000)
    t = np.arange(44_100) / 44_100
    x = np.stack([np.sin(2 * np.pi * 300 * t)] * 2).astype(np.float32) * 0.3
    kick = joined(chain, x, 44_100)["kick"]
    assert kick.shape == x.shape
    assert snr(x[:, 4000:-4000] / 16, kick[:, 4000:-4000]) > 70


def test_a_chain_that_cannot_be(parts: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no stem 'drums' to feed"):
        Chain(Separator(parts), Separator(parts))
    with pytest.raises(UsageError, match="say which stem of waves it gets, as in masks@vocals"):
        Chain(Separator(GRAPHS / "waves"), Separator(GRAPHS / "masks"))
    with pytest.raises(ModelError, match="both give vocals"):
        Chain(Separator(GRAPHS / "waves"), Separator(GRAPHS / "masks"), "drums")
    chain = Chain(Separator(GRAPHS / "waves"), Separator(parts))
    with pytest.raises(UsageError, match="no stem 'drums'; it has vocals, kick, snare"):
        chain.names(Options(stems=("drums",)))
    with pytest.raises(UsageError, match="two-stems"):
        chain.names(Options(two_stems="kick"))


def test_a_second_model_that_needs_two_passes(snr: Snr) -> None:
    """`hybrid` standardises its song first, so its source is decoded twice."""
    x = 0.5 * np.sin(2 * np.pi * 440 / 8000 * np.arange(20_000)).astype(np.float32)[None].repeat(2, 0)
    first = Separator(GRAPHS / "complex")
    second = Separator(GRAPHS / "hybrid")
    second.model = replace(second.model, spec=replace(second.spec, stems=("a", "b", "c")))
    stems = joined(Chain(first, second, "vocals"), x)
    assert list(stems) == ["drums", "a", "b", "c"]
    assert snr(0.25 * x.astype(np.float64), stems["drums"]) > 100
    assert snr(0.75 * 0.3 * x.astype(np.float64), stems["a"]) > 30


def test_a_chain_from_the_command_line(parts: Path, tmp_path: Path) -> None:
    from ortsep.commands.run import RunSettings, run_songs

    x = noise(16_000)
    soundfile.write(tmp_path / "song.wav", x.T, 8000, subtype="FLOAT")
    arguments = [str(GRAPHS / "waves"), str(parts), str(tmp_path / "song.wav")]
    loading = {"provider": "cpu", "threads": None}
    status = run_songs(arguments, Options(), Files(tmp_path / "out"), loading, RunSettings(quiet=True))
    assert status == 0
    found = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.wav"))
    assert found == [f"waves+masks/song/{s}.wav" for s in ("kick", "snare", "vocals")]


def test_a_deadline_ends_the_work_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "long.wav", noise(8000 * 60).T, 8000, subtype="FLOAT")
    real = Network.infer

    def slow(self: Network, work: Any, cancel: Any) -> Any:
        time.sleep(0.05)
        return real(self, work, cancel)

    monkeypatch.setattr(Network, "infer", slow)
    separator = Separator(GRAPHS / "waves")
    began = time.monotonic()
    with pytest.raises(TimedOut, match=r"longer than 0\.3 s"):
        separate_file(separator, tmp_path / "long.wav", Files(tmp_path / "out"), timeout=0.3)
    assert time.monotonic() - began < 5
    assert not list(tmp_path.rglob("*partial*"))
    assert not list(tmp_path.rglob("drums.wav"))
    monkeypatch.undo()
    report = separate_file(separator, tmp_path / "long.wav", Files(tmp_path / "out"), timeout=100)
    assert all(path and Path(path).exists() for path in report.stems.values())


def test_the_drum_service(parts: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "drums.wav", noise(16_000).T, 8000, subtype="FLOAT")
    report = separate_drum_stems(
        tmp_path / "drums.wav", tmp_path / "out", ["kick"], "cpu", True, 60, model=parts, format="flac", rate=16_000
    )
    assert report.stems == {"kick": str(tmp_path / "out" / "kick.flac")}
    info = soundfile.info(tmp_path / "out" / "kick.flac")
    assert (info.samplerate, info.frames) == (16_000, 32_000)
    document = json.loads(json.dumps(report.document()))
    expected = {"version", "model", "backend", "stems", "wiener_filter", "processing_time", "warnings", "seconds"}
    assert expected | {"real_time_factor"} <= set(document)
    assert document["backend"] == "cpu"
    assert document["wiener_filter"] is True
