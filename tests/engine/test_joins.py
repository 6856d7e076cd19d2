"""How chunks join, what lies round the song and what fills the last chunk: each scheme against its own definition.

The definitions are written here from ../shared's facts on MSST, UVR and audio-separator: whole songs, float64, loops as
their authors write them. The network hears where in its chunk a sample lies and what else is in the chunk, so that a
chunk that is read elsewhere, filled otherwise or weighted otherwise shows.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ortsep.engine.by_chunk import separate_chunks
from ortsep.engine.chunks import make_plan
from ortsep.engine.domains import Waveform
from ortsep.engine.level import Level
from ortsep.engine.network import Network, _Group
from ortsep.engine.plan import plan_run
from ortsep.graphs.session import Tensor
from ortsep.models.spec import Border, Chunks, Free, Join, ModelSpec
from ortsep.options import Options

C = 96
"""Samples of a chunk: divisible by 1, 2, 3, 4, 6 and 8; the schemes are also tried with 97."""


def network(x: np.ndarray) -> np.ndarray:
    """[C, N] in, [C, N] out, float64."""
    n = np.arange(x.shape[-1])
    return x * (1 + 0.5 * np.sin(0.3 * n)) + 0.2 * np.abs(x).mean() * np.cos(0.7 * n)


class FakeSession:
    inputs = (Tensor("mix", ("B", 2, "N")),)

    def run(self, feeds: dict[str, np.ndarray], outputs: Any, cancel: Any) -> list[np.ndarray]:
        return [network(feeds["mix"][0].astype(np.float64)).astype(np.float32)[None, None]]


def spec(chunks: Chunks) -> ModelSpec:
    return ModelSpec("x", "y", ("a",), 8000, 2, "waveform", "stems", chunks=chunks)


def separated(x: np.ndarray, chunks: Chunks, block: int = 37, **options: Any) -> np.ndarray:
    made = spec(chunks)
    engine = Network.__new__(Network)
    engine.spec, engine.wanted = made, (0,)
    engine._groups = [_Group(Waveform(made), (0,), ((FakeSession(), ((0, 0, 1.0),)),))]  # type: ignore[arg-type]
    run = plan_run(made, Options(**options), x.shape[-1], (0,))
    blocks = (x[:, at : at + block].astype(np.float32) for at in range(0, x.shape[-1], block))
    return np.concatenate(list(separate_chunks(engine, run, blocks, Level())), axis=-1)[0]  # type: ignore[arg-type]


def msst(x: np.ndarray, chunk: int, overlaps: int) -> np.ndarray:
    """``demix`` of Music-Source-Separation-Training, generic mode, batches of one."""
    fade, step, length = chunk // 10, chunk // overlaps, x.shape[-1]
    border = chunk - step
    padded = length > 2 * border and border > 0
    if padded:
        x = np.pad(x, ((0, 0), (border, border)), mode="reflect")
    result, counter = np.zeros_like(x), np.zeros_like(x)
    at = 0
    while at < x.shape[-1]:
        part = x[:, at : at + chunk]
        own = part.shape[-1]
        mode: Any = "reflect" if own > chunk // 2 else "constant"
        part = np.pad(part, ((0, 0), (0, chunk - own)), mode=mode)
        window = np.ones(chunk)
        window[:fade], window[-fade:] = np.linspace(0, 1, fade), np.linspace(1, 0, fade)
        if at == 0:
            window[:fade] = 1
        elif at + step >= x.shape[-1]:
            window[-fade:] = 1
        result[:, at : at + own] += network(part)[:, :own] * window[:own]
        counter[:, at : at + own] += window[:own]
        at += step
    result /= counter
    return result[:, border:-border] if padded else result


def msst_demucs(x: np.ndarray, chunk: int, overlaps: int) -> np.ndarray:
    """``demix`` for HTDemucs: no windows, zeros behind."""
    step, result, counter = chunk // overlaps, np.zeros_like(x), np.zeros_like(x)
    for at in range(0, x.shape[-1], step):
        part = x[:, at : at + chunk]
        own = part.shape[-1]
        result[:, at : at + own] += network(np.pad(part, ((0, 0), (0, chunk - own))))[:, :own]
        counter[:, at : at + own] += 1
    return result / counter


def uvr_mdx(x: np.ndarray, chunk: int, trim: int, overlap: float) -> np.ndarray:
    """MDX-Net in UVR and audio-separator."""
    generated = chunk - 2 * trim
    pad = generated + trim - x.shape[-1] % generated
    mix = np.concatenate([np.zeros((2, trim)), x, np.zeros((2, pad))], axis=1)
    step = int((1 - overlap) * chunk)
    result, divider = np.zeros_like(mix), np.zeros_like(mix)
    for start in range(0, mix.shape[-1], step):
        end = min(start + chunk, mix.shape[-1])
        part = np.pad(mix[:, start:end], ((0, 0), (0, chunk - (end - start))))
        window = np.hanning(end - start)
        result[:, start:end] += network(part)[:, : end - start] * window
        divider[:, start:end] += window
    with np.errstate(invalid="ignore"):
        return (result / divider)[:, trim:-trim][:, : x.shape[-1]]


def uvr_mdx23c(x: np.ndarray, chunk: int, overlaps: int) -> np.ndarray:
    """MDX23C in UVR and audio-separator: unfolded chunks whose sum is divided by their number."""
    hop, length = chunk // overlaps, x.shape[-1]
    pad = hop - (length - chunk) % hop
    mix = np.concatenate([np.zeros((2, chunk - hop)), x, np.zeros((2, pad + chunk - hop))], axis=1)
    total = np.zeros_like(mix)
    for start in range(0, mix.shape[-1] - chunk + 1, hop):
        total[:, start : start + chunk] += network(mix[:, start : start + chunk])
    return (total / overlaps)[:, chunk - hop : chunk - hop + length]


def separator_roformer(x: np.ndarray, chunk: int, step: int) -> np.ndarray:
    """RoFormers in audio-separator, for songs of at least a chunk."""
    window = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(chunk) / (chunk - 1))
    result, counter, length = np.zeros_like(x), np.zeros_like(x), x.shape[-1]
    for at in range(0, length, step):
        start = at if at + chunk <= length else length - chunk
        result[:, start : start + chunk] += network(x[:, start : start + chunk]) * window
        counter[:, start : start + chunk] += window
    return result / counter


def of_msst(chunk: int, overlaps: int) -> Chunks:
    border = Border(fill="reflect", overlapping=True)
    return Chunks(chunk, parts=overlaps, join=Join("fade", chunk // 10), border=border, tail="reflect")


SCHEMES: dict[str, tuple[Chunks, Callable[[np.ndarray], np.ndarray]]] = {
    "msst 4": (of_msst(C, 4), lambda x: msst(x, C, 4)),
    "msst 2": (of_msst(C, 2), lambda x: msst(x, C, 2)),
    "msst 8, odd": (of_msst(C + 1, 8), lambda x: msst(x, C + 1, 8)),
    "msst 16, whose second chunk begins before the first has faded in": (of_msst(C, 16), lambda x: msst(x, C, 16)),
    "msst's demucs": (
        Chunks(C, parts=4, join=Join("boxcar"), tail="zeros"),
        lambda x: msst_demucs(x, C, 4),
    ),
    "mdx-net": (
        Chunks(C, overlap=0.25, join=Join("hann"), border=Border(12, 12, multiple=C - 24), tail="zeros"),
        lambda x: uvr_mdx(x, C, 12, 0.25),
    ),
    "mdx-net, odd": (
        Chunks(C + 1, overlap=0.6, join=Join("hann"), border=Border(9, 9, multiple=C + 1 - 18), tail="zeros"),
        lambda x: uvr_mdx(x, C + 1, 9, 0.6),
    ),
    "mdx23c": (
        Chunks(C, parts=8, join=Join("boxcar"), border=Border(overlapping=True), tail="zeros"),
        lambda x: uvr_mdx23c(x, C, 8),
    ),
    "roformer": (
        Chunks(C, overlap=0.5, join=Join("hamming"), tail="back"),
        lambda x: separator_roformer(x, C, C // 2),
    ),
    "roformer, odd": (
        Chunks(C + 1, overlap=0.7, join=Join("hamming"), tail="back"),
        lambda x: separator_roformer(x, C + 1, int((1 - 0.7) * (C + 1))),
    ),
}
LENGTHS = [1, 2, 5, 24, 47, 48, 49, 71, 72, 95, 96, 97, 98, 143, 144, 145, 191, 192, 193, 487, 1000, 1023]


@pytest.mark.parametrize(
    ("name", "samples"),
    # audio-separator has a rule of its own for songs shorter than a chunk
    [
        (name, n)
        for name, (chunks, _) in SCHEMES.items()
        for n in LENGTHS
        if n >= chunks.length or chunks.tail != "back"
    ],
)
def test_a_scheme_is_its_definition(name: str, samples: int, snr: Callable[[Any, Any], float]) -> None:
    chunks, definition = SCHEMES[name]
    x = np.random.default_rng(samples).uniform(-1, 1, (2, samples)).astype(np.float32).astype(np.float64)
    expected = definition(x)
    known = np.isfinite(expected).all(axis=0)  # 0/0 where all windows are zero
    assert known.sum() >= samples - 2
    assert snr(expected[:, known], separated(x, chunks)[:, known]) > 120


@pytest.mark.parametrize("name", SCHEMES)
def test_the_size_of_blocks_changes_nothing(name: str) -> None:
    chunks, _ = SCHEMES[name]
    x = np.random.default_rng(1).uniform(-1, 1, (2, 777))
    first = separated(x, chunks, 777)
    for block in (1, 5, 96, 400):
        np.testing.assert_array_equal(separated(x, chunks, block), first)


@pytest.mark.parametrize("samples", [1, 5, 48, 95])
def test_a_song_shorter_than_a_chunk_that_moves_back_is_filled_with_zeros(samples: int) -> None:
    x = np.random.default_rng(samples).uniform(-1, 1, (2, samples)).astype(np.float32).astype(np.float64)
    expected = network(np.pad(x, ((0, 0), (0, C - samples))))[:, :samples]
    np.testing.assert_allclose(separated(x, SCHEMES["roformer"][0]), expected, atol=1e-6)


@pytest.mark.parametrize("join", [Join("fade", 9), Join("hann"), Join("hamming"), Join("boxcar"), Join()])
@pytest.mark.parametrize("tail", ["centred", "zeros", "reflect", "back"])
@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.95])
def test_shares_sum_to_one_and_are_nowhere_silent(join: Join, tail: Any, overlap: float) -> None:
    """Also where chunks that don't overlap have windows that begin and end at zero."""
    for samples in (1, 50, 96, 97, 500):
        plan = make_plan(samples, Chunks(C, overlap=overlap, join=join, tail=tail))
        total = np.zeros(samples)
        for chunk in plan.chunks():
            total[chunk.start : chunk.stop] += plan.weights(chunk)
        np.testing.assert_allclose(total, 1, atol=1e-6)


def test_a_chunk_that_was_moved_counts_as_often_as_there_were() -> None:
    plan = make_plan(200, Chunks(C, overlap=0.75, join=Join("hamming"), tail="back"))
    chunks = list(plan.chunks())
    assert [c.origin for c in chunks] == [0, 24, 48, 72, 96, 104]
    assert [c.count for c in chunks] == [1, 1, 1, 1, 1, 4], "those at 120, 144, 168 and 192"


def test_only_what_overlaps_the_song_is_run() -> None:
    """UVR also runs chunks that lie in the border, and throws them away."""
    chunks = SCHEMES["mdx-net"][0]
    plan = make_plan(300, chunks)
    assert (plan.before, plan.after) == (12, 12 + 72 - 300 % 72)
    assert all(c.origin < 300 and c.stop > c.start for c in plan.chunks())


def test_a_song_in_one_piece_has_no_border_and_no_fades() -> None:
    chunks = replace(of_msst(C, 4), takes=Free(whole=1000))
    x = np.random.default_rng(1).uniform(-1, 1, (2, 700)).astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(separated(x, chunks), network(x), atol=1e-5)


def test_another_overlap_takes_its_border_along(snr: Callable[[Any, Any], float]) -> None:
    x = np.random.default_rng(1).uniform(-1, 1, (2, 700)).astype(np.float32).astype(np.float64)
    assert snr(msst(x, C, 2), separated(x, of_msst(C, 8), overlap=0.5)) > 120


def test_a_border_holds_no_more_than_it_has_to() -> None:
    """A reflected end is known when the song has ended; until then its last samples are held, and no others."""
    chunks = of_msst(C, 4)
    plan, pulled, largest = make_plan(100_000, chunks), 0, 0
    from ortsep.engine.buffers import Window, reflected

    def song() -> Any:
        nonlocal pulled
        for at in range(0, 100_000, 50):
            pulled = at + 50
            yield np.zeros((1, 50), np.float32)

    window = Window(reflected(song(), plan.before, plan.after), 1, -plan.before)
    for chunk in plan.chunks():
        window.drop(chunk.origin)
        window.read(chunk.origin, C)
        largest = max(largest, pulled - chunk.origin)
    assert largest <= C + 2 * 50
