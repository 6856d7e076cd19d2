from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ortsep.engine.buffers import OverlapAdd, Window
from ortsep.engine.chunks import Span, keep_from, make_plan, reading
from ortsep.models.spec import Chunks, Free, Stepped


def identity_run(x: np.ndarray, chunks: Chunks, blocks: list[np.ndarray], **options: float) -> np.ndarray:
    """The loop that the runtime makes, with a graph that returns its input."""
    plan = make_plan(x.shape[-1], chunks, **options)
    window, out, joined = Window(blocks, len(x)), [], OverlapAdd(1, len(x))
    spans = [reading(chunk, chunks, plan.segment) for chunk in plan.chunks()]
    keep = keep_from(span.start for span in spans)
    for i, chunk in enumerate(plan.chunks()):
        window.drop(keep[i])
        span = spans[i]
        assert span.start <= chunk.start and span.stop >= chunk.stop
        result = window.read(span.start, span.length)[None]
        out.append(joined.final(chunk.start))
        inside = slice(chunk.start - span.start, chunk.stop - span.start)
        joined.add(chunk.start, result[..., inside], plan.weights(chunk))
    out.append(joined.final(plan.samples))
    return np.concatenate(out, -1)[0]


@settings(max_examples=150, deadline=None)
@given(
    samples=st.integers(1, 3000),
    length=st.integers(1, 900),
    overlap=st.floats(0, 0.95),
    shifts=st.integers(0, 3),
    block=st.integers(1, 700),
    seed=st.integers(0, 99),
    least=st.integers(0, 1200),
    step=st.integers(1, 300),
)
def test_identity_returns_its_input(
    samples: int, length: int, overlap: float, shifts: int, block: int, seed: int, least: int, step: int
) -> None:
    x = np.random.default_rng(seed).standard_normal((2, samples)).astype(np.float32)
    blocks = [x[:, i : i + block] for i in range(0, samples, block)]
    chunks = Chunks(length=length, max_shift=length // 3, takes=Stepped(least, step) if least else Free())
    y = identity_run(x, chunks, blocks, overlap=overlap, shifts=shifts, seed=seed)
    assert y.shape == x.shape
    assert np.max(np.abs(y - x)) < 1e-6 * max(1.0, float(np.max(np.abs(x))))


@pytest.mark.parametrize("samples", [1, 99, 100, 101, 174, 175, 176, 1000])
def test_weights_are_those_of_the_original(samples: int) -> None:
    """Independent oracle: accumulate the triangles over the whole song as the original does, in float64."""
    segment, stride = 100, 75
    triangle = np.concatenate([np.arange(1, 51), np.arange(50, 0, -1)]) / 50.0
    total = np.zeros(samples)
    for offset in range(0, samples, stride):
        n = min(segment, samples - offset)
        total[offset : offset + n] += triangle[:n]
    plan = make_plan(samples, Chunks(length=segment))
    assert [c.origin for c in plan.chunks()] == list(range(0, samples, stride))
    for chunk in plan.chunks():
        expected = triangle[: chunk.stop - chunk.start] / total[chunk.start : chunk.stop]
        np.testing.assert_allclose(plan.weights(chunk), expected, rtol=1e-6)


def test_a_short_last_chunk_is_centred_in_context() -> None:
    plan = make_plan(190, Chunks(length=100))
    *_, last = plan.chunks()
    assert (last.start, last.stop) == (150, 190)
    assert reading(last, Chunks(length=100), plan.segment) == Span(150 - (100 - 40) // 2, 100)


@pytest.mark.parametrize(("samples", "own"), [(1, 1), (60, 60), (100, 100), (190, 40)])
def test_a_short_chunk_runs_at_its_own_length_where_the_graph_takes_it(samples: int, own: int) -> None:
    chunks = Chunks(length=100, takes=Stepped(1))
    plan = make_plan(samples, chunks)
    *_, last = plan.chunks()
    own = min(own, samples - last.origin)
    assert reading(last, chunks, plan.segment) == Span(last.origin, own)


@pytest.mark.parametrize("samples", [1, 4777, 4778, 4779, 6826, 6827, 50_000, 50_001, 123_456])
def test_a_chunk_is_read_at_the_next_valid_length(samples: int) -> None:
    """Oracle: ``demucs.demucs.Demucs.valid_length`` for kernels of 8, strides of 4, depth 6 and resampling, and
    ``demucs.apply.TensorChunk.padded``."""
    chunks = Chunks(length=50_000, takes=Stepped(4778, 2048))
    plan = make_plan(samples, chunks)
    assert [c.origin for c in plan.chunks()] == list(range(0, samples, 37_500))
    for chunk in plan.chunks():
        length = 2 * (chunk.stop - chunk.origin)
        for _ in range(6):
            length = max(1, -(-(length - 8) // 4) + 1)
        for _ in range(6):
            length = (length - 1) * 4 + 8
        length = -(-length // 2)
        expected = Span(chunk.origin - (length - (chunk.stop - chunk.origin)) // 2, length)
        assert reading(chunk, chunks, plan.segment) == expected


def test_shifts_draw_what_the_original_draws() -> None:
    import random

    random.seed(7)
    offsets = [random.randint(0, 22050) for _ in range(3)]
    plan = make_plan(200_000, Chunks(length=100_000, max_shift=22050), shifts=3, seed=7)
    assert sorted({c.grid.start for c in plan.chunks()}) == sorted(o - 22050 for o in offsets)


def test_a_song_that_fits_runs_whole() -> None:
    chunks = Chunks(length=100, takes=Free(whole=500))
    (only,) = make_plan(500, chunks).chunks()
    assert reading(only, chunks, 500) == Span(0, 500)
    assert len(list(make_plan(501, chunks).chunks())) > 1


@pytest.mark.parametrize("samples", [101, 150, 1000, 1003])
@pytest.mark.parametrize(("overlap", "stride"), [(0.0, 96), (0.25, 64), (0.6, 32), (0.95, 5)])
def test_aligned_chunks_are_read_from_multiples_only(samples: int, overlap: float, stride: int) -> None:
    chunks = Chunks(length=100, overlap=overlap, takes=Free(), align=16)
    plan = make_plan(samples, chunks)
    assert plan.stride == stride
    total = np.zeros(samples)
    for chunk in plan.chunks():
        span = reading(chunk, chunks, plan.segment)
        assert span.start % 16 == 0 or stride < 16
        assert span.start <= chunk.start and chunk.stop <= span.stop
        total[chunk.start : chunk.stop] += plan.weights(chunk)
    np.testing.assert_allclose(total, 1, atol=1e-6)
    (whole,) = make_plan(90, replace(chunks, takes=Free(whole=100))).chunks()
    assert (whole.start, whole.stop) == (0, 90)


def test_the_window_keeps_only_what_is_needed() -> None:
    pulled = []

    def blocks():  # type: ignore[no-untyped-def]
        for i in range(1000):
            pulled.append(i)
            yield np.zeros((1, 50), np.float32)

    window = Window(blocks(), 1)
    window.read(0, 100)
    assert len(pulled) == 2
    window.drop(100)
    window.read(120, 100)
    assert len(window._parts) <= 3
