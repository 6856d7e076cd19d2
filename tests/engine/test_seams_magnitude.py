"""Where blocks of frames join (Open-Unmix and the bundled drums cross-faded; Spleeter and LarsNet end to end).

The network gives masks whose level jumps from block to block, on top of a change from frame to frame as masks have it
everywhere. Equal masks in all bins are, after the inverse transform, a gain at each sample: y(t) = G(t) x(t), G being
the mean of the masks of the frames over t, weighted by their squared windows. So the quotient of what comes out and
what goes in shows at which speed a join is passed, under any music.
"""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from ortsep.engine.by_frame import separate_frames
from ortsep.engine.domains import Magnitude
from ortsep.engine.plan import FrameRun
from ortsep.engine.stft import frame_count
from ortsep.models.spec import STFT, Blocks, Filter

JUMP = 0.3
"""Between the masks of neighbouring blocks."""
SWING, SPEED = 0.1, 0.3
"""Masks swing by SWING * sin(SPEED * frame): 0.03 a frame at most."""
FRAMES, OVERLAP = 64, 16
CALM = 2.0
"""How many times faster than elsewhere the gain may change at a join: (0.03 + JUMP / (OVERLAP + 1)) / 0.03 = 1.6."""


class Disagreeing:
    """Masks [B, 1, 1, F, T] that lie JUMP higher in every other block."""

    abreast = 1

    def __init__(self, transform: STFT, advance: int, swing: float = SWING) -> None:
        self.spec = SimpleNamespace(stft=transform, inverse=None, channels=1, output="masks")
        self.domain = Magnitude(self.spec)  # type: ignore[arg-type]
        self.wanted = (0,)
        self._advance, self._swing, self._block = advance, swing, 0

    def estimate(self, magnitude: np.ndarray, cancel: Any) -> np.ndarray:
        frame = self._block * self._advance + np.arange(magnitude.shape[-1])
        level = 0.5 + JUMP / 2 * (-1) ** self._block + self._swing * np.sin(SPEED * frame)
        self._block += 1
        return np.broadcast_to(level.astype(np.float32), (len(magnitude), 1, 1, *magnitude.shape[2:])).copy()


def transform(n_fft: int) -> STFT:
    return STFT(n_fft, n_fft // 4, n_fft // 2 + 1, n_fft // 2, n_fft // 2)


def separated(x: np.ndarray, n_fft: int, frames: int, overlap: int, swing: float = SWING) -> np.ndarray:
    network: Any = Disagreeing(transform(n_fft), frames - overlap, swing)
    blocks = (x[None, at : at + 7777] for at in range(0, len(x), 7777))
    grouping = Blocks(frames, overlap=overlap, padded=False)
    frame = frame_count(transform(n_fft), len(x))
    run = FrameRun(len(x), 44100, (0,), (0,), frame, grouping, Filter("mask"), rest=False)
    parts = list(separate_frames(network, run, blocks))
    return np.concatenate(parts, axis=-1)[0, 0]


def gain_steps(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """|G(t+1) - G(t)|; NaN where the song is too quiet to tell."""
    loud = np.abs(x) > 0.02
    gain = np.divide(y, x, out=np.full(len(x), np.nan), where=loud, dtype=np.float64)
    return np.abs(np.diff(gain))


def joins(samples: int, hop: int, first: int, length: int) -> Iterator[slice]:
    """The samples whose frames (centred at multiples of ``hop``) take part in a join of ``length`` frames."""
    for start in range(first, samples // hop, first):
        yield slice(max(0, (start - 2) * hop), (start + length + 2) * hop)


def hurry(x: np.ndarray, y: np.ndarray, hop: int, first: int, length: int) -> float:
    """How many times faster than anywhere else the gain changes at the joins."""
    steps = gain_steps(x, y)
    at_joins = np.zeros(len(steps), bool)
    for join in joins(len(x), hop, first, length):
        at_joins[join] = True
        assert np.isfinite(steps[join]).mean() > 0.1, "a join in silence says nothing"
    return float(np.nanmax(steps[at_joins]) / np.nanmax(steps[~at_joins]))


def check(x: np.ndarray, n_fft: int) -> None:
    """Joins are calm, and the same measure sees them where the cross-fade is taken out or the sound cut."""
    hop, advance = n_fft // 4, FRAMES - OVERLAP
    faded = separated(x, n_fft, FRAMES, OVERLAP)
    assert hurry(x, faded, hop, advance, OVERLAP) < CALM
    assert hurry(x, separated(x, n_fft, advance, 0), hop, advance, OVERLAP) > 2 * CALM
    cut = faded.copy()
    for join in joins(len(x), hop, advance, OVERLAP):
        middle = (join.start + join.stop) // 2
        cut[middle : join.stop] = x[middle : join.stop] * np.float32(0.9)
    assert hurry(x, cut, hop, advance, OVERLAP) > 50 * CALM


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, samples).astype(np.float32)


@pytest.mark.parametrize("n_fft", [512, 1024])
def test_cross_faded_blocks_do_not_click(n_fft: int) -> None:
    check(noise(n_fft // 4 * (FRAMES * 8 + 5)), n_fft)


def test_no_click_on_a_real_song(shared_audio: Path) -> None:
    songs = sorted(p for p in (shared_audio / "songs").rglob("*") if p.suffix in (".wav", ".flac", ".ogg", ".mp3"))
    if not songs:
        pytest.skip("no songs in ../shared/audio")
    data, _ = soundfile.read(songs[0], frames=44100 * 25, dtype="float32", always_2d=True)
    x = np.ascontiguousarray(data.mean(axis=1))
    check(x / np.abs(x).max(), 4096)


def test_blocks_end_to_end_are_faded_by_the_windows_of_the_transform() -> None:
    """As Spleeter and LarsNet do it: a join takes a third of a window, by the squared windows around it."""
    n_fft, frames = 1024, 32
    x = noise(n_fft // 4 * frames * 6)
    fastest = np.nanmax(gain_steps(x, separated(x, n_fft, frames, 0, swing=0.0)))
    at = np.arange(-n_fft, n_fft)[:, None] - n_fft // 4 * np.arange(-8, 9)  # samples against the frames' centres
    squares = np.where(np.abs(at) < n_fft // 2, np.cos(np.pi * at / n_fft) ** 4, 0.0)
    later = squares[:, 8:].sum(axis=1) / squares.sum(axis=1)
    assert fastest == pytest.approx(JUMP * np.abs(np.diff(later)).max(), rel=0.02)
    assert fastest < JUMP / (n_fft / 3)
