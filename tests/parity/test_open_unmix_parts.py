"""A song through Open-Unmix's parts, block by block, against the graph on the whole song and against ``openunmix``."""

import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from ortsep.base.cancel import Cancel
from ortsep.base.errors import Cancelled, ModelError, OutputError
from ortsep.engine import by_part, plan, store
from ortsep.export.exporter import write_export
from ortsep.export.families.open_unmix.graph import Shape, parts_of, random_network
from ortsep.export.families.open_unmix.original import OpenUnmix
from ortsep.export.family import Choice, load_original
from ortsep.graphs.cut import cut
from ortsep.models.catalogue import find_card
from ortsep.models.parts import Part, State
from ortsep.models.spec import STFT, ModelSpec, from_json
from ortsep.separator import Separator

pytestmark = pytest.mark.usefixtures("one_thread")
Snr = Callable[[Any, Any], float]
SHAPE = Shape(bins=129, heard=93, channels=2, hidden=32)
RATE = 8000


@cache
def described(stems: int) -> ModelSpec:
    card = find_card("umxse")
    return load_original(card, Choice(seed=0, stems=card.stems[:stems])).spec


def small(shape: Shape = SHAPE, stems: int = 2) -> OpenUnmix:
    """A model of a small network for each stem, its forget gates half open: it remembers some tens of frames."""
    spec = described(stems)
    n_fft = 2 * (shape.bins - 1)
    spec = replace(
        spec,
        sample_rate=RATE,
        channels=shape.channels,
        stft=STFT(n_fft, n_fft // 4, shape.bins, n_fft // 2, n_fft // 2),
        parts=parts_of(shape),
        filter=replace(spec.filter, window=20) if spec.filter else None,
    )
    return OpenUnmix(spec, tuple(random_network(shape, k) for k in range(stems)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_export(small(), tmp_path_factory.mktemp("parts") / "small").folder


@pytest.fixture(autouse=True)
def many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 40 and 33 frames, stored in files."""
    monkeypatch.setattr(plan, "BLOCK", 47)
    monkeypatch.setattr(by_part, "SPAN", 33)
    monkeypatch.setattr(store, "SMALL", 0)


def song(samples: int, channels: int = 2) -> np.ndarray:
    rng = np.random.default_rng(4)
    beat = 0.1 + np.abs(np.sin(np.arange(samples) / RATE * 5))
    return (0.2 * beat * rng.standard_normal((channels, samples))).astype(np.float32)


@pytest.mark.parametrize(
    ("samples", "options"),
    [
        (1, {}),
        (64, {"niter": 0}),
        (2111, {}),  # as many frames as a block has
        (2112, {}),
        (40_000, {}),
        (40_000, {"niter": 0}),
        (40_000, {"stems": ("speech",)}),
        (40_000, {"niter": 2, "wiener_window": 7}),
    ],
)
def test_equals_the_graph_on_the_whole_song(folder: Path, samples: int, options: dict[str, Any], snr: Snr) -> None:
    separator, mix = Separator(folder, provider="cpu"), song(samples)
    whole = separator.separate(mix, RATE, chunk=samples / RATE + 1, **options)
    found = separator.separate(mix, RATE, **options)
    assert found.keys() == whole.keys()
    for name, stem in found.items():
        assert stem.shape == mix.shape
        assert snr(whole[name], stem) >= 110


@pytest.mark.parametrize(
    "shape",
    [Shape(65, 65, 1, 16, layers=1), Shape(65, 40, 2, 16, bidirectional=False)],
    ids=["one layer, mono", "one way"],
)
def test_networks_of_other_shapes(shape: Shape, tmp_path: Path, snr: Snr) -> None:
    original, mix = small(shape), song(20_000, shape.channels)
    separator = Separator(write_export(original, tmp_path / "model").folder, provider="cpu")
    found = np.stack(list(separator.separate(mix, RATE, niter=0).values()))
    whole = np.stack(list(separator.separate(mix, RATE, niter=0, chunk=100).values()))
    assert snr(whole, found) >= 110


@pytest.mark.parametrize(("precision", "gate"), [("fp16-weights", 110.0), ("int8", 35.0)])
def test_other_precisions_run_in_parts_too(precision: str, gate: float, tmp_path: Path, snr: Snr) -> None:
    """int8 takes its scales from each block, so that parts differ from the whole song by what rounding does."""
    separator = Separator(write_export(small(), tmp_path / "model", precision=precision).folder, provider="cpu")
    mix = song(20_000)
    found = np.stack(list(separator.separate(mix, RATE, niter=0).values()))
    whole = np.stack(list(separator.separate(mix, RATE, niter=0, chunk=100).values()))
    assert snr(whole, found) >= gate
    assert separator.plan(20_000, RATE).parts  # type: ignore[union-attr]


def test_targets_of_other_sizes_run_whole(tmp_path: Path, snr: Snr) -> None:
    """The parts' states are the model's, not each target's: such a bag runs as one block, or in overlapping ones."""
    shapes = (SHAPE, replace(SHAPE, hidden=16))
    for k, (stem, shape) in enumerate(zip(("speech", "noise"), shapes, strict=True)):
        torch.save(random_network(shape, k).state_dict(), tmp_path / f"{stem}.pth")
    original = load_original(find_card("umxse"), Choice(path=tmp_path))
    assert original.spec.parts == ()
    separator = Separator(write_export(original, tmp_path / "model").folder, provider="cpu")
    mix = song(20_000)
    found = separator.separate(mix, separator.spec.sample_rate)
    assert snr(original.separate(mix), np.stack(list(found.values()))) >= 90


def test_equals_openunmix(folder: Path, snr: Snr) -> None:
    """Its own Separator on 20 s, of which the parts see 47 frames of 8 ms at a time."""
    sys.modules.setdefault("torchaudio", types.ModuleType("torchaudio"))
    package = pytest.importorskip("openunmix.model")
    original, mix = small(), song(20 * RATE)
    targets = {}
    for stem, network in zip(original.spec.stems, original.networks, strict=True):
        theirs = package.OpenUnmix(SHAPE.bins, SHAPE.channels, SHAPE.hidden, SHAPE.layers, max_bin=SHAPE.heard)
        theirs.load_state_dict(network.state_dict())
        targets[stem] = theirs.eval()
    stft = original.spec.stft
    assert stft is not None
    theirs = package.Separator(targets, niter=1, sample_rate=RATE, n_fft=stft.n_fft, n_hop=stft.hop)
    with torch.inference_mode():
        expected = theirs(torch.from_numpy(mix)[None])[0].numpy()
    found = Separator(folder, provider="cpu").separate(mix, RATE, wiener_window=300)
    assert snr(expected, np.stack(list(found.values()))) >= 95


def test_the_plan_tells_of_it_and_a_chunk_asks_for_blocks(folder: Path) -> None:
    separator = Separator(folder)
    text = str(separator.plan(40_000, RATE))
    assert "blocks of 40 frames, the networks' states from block to block through the song" in text
    assert "runs of each graph: 16" in text  # 626 frames
    text = str(separator.plan(40_000, RATE, replace(separator_options(), chunk=1.0)))
    assert "blocks of 125 frames" in text
    assert "cross-faded" in text


def separator_options() -> Any:
    from ortsep.options import Options

    return Options()


def test_progress_grows_to_the_end_and_graphs_are_kept(folder: Path) -> None:
    told: list[tuple[int, int]] = []
    separator = Separator(folder, provider="cpu")
    separator.separate(song(40_000), RATE, progress=lambda done, of: told.append((done, of)))
    assert told == sorted(told)
    assert told[-1] == (40_000, 40_000)
    assert {of for _, of in told} == {40_000}
    assert len(told) > 40
    assert separator.provider == "cpu"
    assert len(separator._graphs.loaded) == 2 * len(separator.spec.parts), "and none on the whole song"


@pytest.mark.parametrize("share", [0.1, 0.4, 0.8], ids=["heard", "remembered", "filtered"])
def test_a_cancel_ends_it_at_once_in_every_pass(folder: Path, share: float) -> None:
    cancel, separator = Cancel(), Separator(folder, provider="cpu")
    told: list[float] = []

    def progress(done: int, of: int) -> None:
        told.append(done / of)
        if done >= share * of:
            cancel.cancel()

    with pytest.raises(Cancelled):
        separator.separate(song(60_000), RATE, progress=progress, cancel=cancel)
    assert told[-1] < share + 0.2


def test_a_disk_without_room_is_named(folder: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(small_disk))
    with pytest.raises(OutputError, match=r"can't be kept in .*small disk.* make room there or set TMPDIR"):
        Separator(folder, provider="cpu").separate(song(600_000), RATE)


def test_a_failure_in_a_part_is_raised_and_nothing_runs_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: Any, member: Any, part: Part, feeds: Any, cancel: Any) -> Any:
        if part.gives == "lstm1.backward":
            raise ModelError("no")
        return run(self, member, part, feeds, cancel)

    run = by_part.Parts.run
    monkeypatch.setattr(by_part.Parts, "run", failing)
    with pytest.raises(ModelError, match="no"):
        Separator(folder, provider="cpu").separate(song(40_000), RATE)


def test_a_tensor_that_the_graph_lacks_is_named(folder: Path) -> None:
    file = folder / "speech.onnx"
    with pytest.raises(ModelError, match="has no tensor middle, at which its spec cuts it"):
        cut(file, Part(("encoded",), "middle"))
    with pytest.raises(ModelError, match="has no tensor other, at which its spec cuts it"):
        cut(file, Part(("magnitude", "other"), "encoded"))


@pytest.mark.parametrize("copied", [False, True])
def test_parts_leave_their_weights_in_the_file_or_take_them_along(folder: Path, copied: bool) -> None:
    first = Separator(folder).spec.parts[0]
    made = onnx.load_from_string(cut(folder / "speech.onnx", first, copied=copied))
    (weight,) = [tensor for tensor in made.graph.initializer if list(tensor.dims) == [SHAPE.hidden, 2 * SHAPE.heard]]
    assert bool(weight.raw_data) == copied
    if not copied:
        place = {entry.key: entry.value for entry in weight.external_data}
        onnx.external_data_helper.load_external_data_for_tensor(weight, str(folder))
        assert place["location"] == "speech.onnx"
    whole = onnx.load(folder / "speech.onnx")
    assert weight.raw_data == next(t.raw_data for t in whole.graph.initializer if t.name == weight.name)


def test_a_new_file_at_the_place_of_another_is_read(folder: Path, tmp_path: Path) -> None:
    file, part = tmp_path / "speech.onnx", Separator(folder).spec.parts[0]
    file.write_bytes((folder / "speech.onnx").read_bytes())
    before = cut(file, part, copied=True)
    (tmp_path / "new").write_bytes((folder / "noise.onnx").read_bytes())
    (tmp_path / "new").rename(file)
    assert cut(file, part, copied=True) != before


def test_a_part_of_another_shape_than_frames_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def turned(self: Any, *rest: Any) -> list[np.ndarray]:
        return [each.swapaxes(0, 2) for each in run(self, *rest)]

    run = by_part.Parts.run
    monkeypatch.setattr(by_part.Parts, "run", turned)
    with pytest.raises(ModelError, match=r"gives encoded of \[32, 1, 40\] for 40 frames"):
        Separator(folder, provider="cpu").separate(song(40_000), RATE)


def test_two_songs_at_a_time_keep_apart(folder: Path) -> None:
    separator, mix = Separator(folder, provider="cpu"), song(30_000)
    expected = [separator.separate(m, RATE)["speech"] for m in (mix, mix[:, ::-1])]
    both: list[Iterator[np.ndarray]] = [separator.stream(m, sample_rate=RATE) for m in (mix, mix[:, ::-1])]
    row = separator.stems.index("speech")
    found: list[list[np.ndarray]] = [[], []]
    while both[0] is not None:
        parts = [next(each, None) for each in both]
        if parts[0] is None:
            break
        for each, part in zip(found, parts, strict=True):
            assert part is not None
            each.append(part[row])
    for want, have in zip(expected, found, strict=True):
        np.testing.assert_allclose(np.concatenate(have, -1), want, atol=1e-6)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((Part(("magnitude",), "stem_magnitudes"),), "its last part reads"),
        ((Part(("magnitude",), "a"), Part(("a", "magnitude"), "stem_magnitudes")), "its last part reads"),
        ((Part(("magnitude",), "a"), Part(("magnitude", "a"), "b")), "its last part gives b"),
        ((Part(("a",), "b"), Part(("magnitude", "b"), "stem_magnitudes")), "its part b in this place"),
        (
            (Part(("magnitude",), "a", (State("h", "i", (1,)),)), Part(("magnitude", "a"), "stem_magnitudes")),
            "reads magnitude with a state",
        ),
        (
            (
                Part(("magnitude",), "a"),
                Part(("magnitude", "a"), "b"),
                Part(("magnitude", "b"), "stem_magnitudes"),
            ),
            "a part between reads magnitude",
        ),
    ],
)
def test_parts_that_lead_nowhere(folder: Path, parts: tuple[Part, ...], message: str) -> None:
    spec = Separator(folder).spec
    with pytest.raises(ModelError, match=message):
        replace(spec, parts=parts)


def test_states_have_bounds_and_the_spec_is_read_back(folder: Path) -> None:
    spec = Separator(folder).spec
    assert from_json(spec.to_json()) == spec
    assert spec.parts == parts_of(SHAPE)
    with pytest.raises(ModelError, match="a state of"):
        State("h", "i", (1 << 12, 1 << 12))
    older: ModelSpec = replace(spec, parts=())
    assert "whole" in str(older.blocks), "which a runtime that knows no parts goes by"
