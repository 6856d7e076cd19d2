"""Drum tracks with known stems: patterns, microphones, a room, the mixing desk.

``make_clip`` gives the five stems of one take, stereo; their sum is the mixture. Nothing is kept from call to call but
the pool of instruments.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.fft

from ortsep.base.arrays import F32
from training.kits import STEM_OF, STEMS, Instrument, Pool, gain_at, random_curve
from training.synth import RATE, Float, Rng, log_uniform


@dataclass(frozen=True)
class Stroke:
    """One note: when (seconds), on what, which stroke, how hard (0 to 1)."""

    time: float
    role: str
    name: str
    force: float


def _row(rng: Rng, chances: Float) -> npt.NDArray[np.intp]:
    return np.flatnonzero(rng.uniform(size=len(chances)) < chances)


@dataclass(frozen=True)
class Groove:
    """What all bars of a pattern share: times in seconds, chances [16] a step, chances a bar, what keeps time."""

    step: float
    swing: float
    kicks: Float
    backbeat: Float
    ghosts: Float
    every: int
    keeper: str
    opens: float
    hat_name: str
    accents: Float
    pedal: bool
    crashes: float
    quarter_crash: bool
    sticks: bool
    fills: float
    both: bool

    @classmethod
    def drawn(cls, rng: Rng, instruments: dict[str, Instrument]) -> "Groove":
        step = 60 / float(log_uniform(rng, 65, 190)) / 4
        swing = rng.uniform(0, 0.33) * step if rng.uniform() < 0.25 else 0.0
        kicks = np.clip(rng.uniform(0, 0.35, 16) + np.tile([0.35, 0, 0.1, 0], 4), 0, 1) * (rng.uniform(size=16) < 0.6)
        kicks[0] = 0.95
        backbeat = np.zeros(16)
        beats = {0: [4, 12], 1: [8], 2: [4, 12, 14], 3: [2, 6, 10, 14]}
        backbeat[beats[int(rng.choice(4, p=[0.6, 0.2, 0.1, 0.1]))]] = 0.96
        hats = instruments["hihat"].strokes
        return cls(
            step=step,
            swing=swing,
            kicks=kicks,
            backbeat=backbeat,
            ghosts=rng.uniform(0, 0.3) * (rng.uniform(size=16) < rng.uniform(0, 0.6)),
            every=int(rng.choice([1, 2, 2, 2, 4])),
            keeper=str(rng.choice(["hihat", "ride", "toms", "none"], p=[0.55, 0.28, 0.14, 0.03])),
            opens=rng.uniform(0, 0.3) if rng.uniform() < 0.5 else 0.0,
            hat_name="half" if rng.uniform() < 0.12 and "half" in hats else "closed",
            accents=rng.uniform(0.4, 1.0, 16),
            pedal=rng.uniform() < 0.35 and "pedal" in hats,
            crashes=rng.uniform(0.2, 1.0),
            quarter_crash=rng.uniform() < 0.15,
            sticks=rng.uniform() < 0.12 and "stick" in instruments["snare"].strokes,
            fills=rng.uniform(0.2, 0.9),
            both=rng.uniform() < 0.15,
        )


Add = Callable[[float, str, str, float], None]
"""Takes a note: when (seconds), on what, which stroke, how hard."""


def pattern(rng: Rng, seconds: float, instruments: dict[str, Instrument]) -> list[Stroke]:
    """A groove of bars of sixteen steps with fills; a tenth of the takes are random notes with no metre."""
    strokes: list[Stroke] = []

    def add(time: float, role: str, name: str, force: float) -> None:
        at = time + rng.normal(0, 0.004)
        if 0 <= at < seconds - 0.02:
            strokes.append(Stroke(at, role, name, float(np.clip(force * rng.uniform(0.75, 1.15), 0.1, 1.0))))

    if rng.uniform() < 0.1:
        roles = ("kick", "snare", "tom", "hihat", "crash", "ride")
        for role, rate in zip(roles, log_uniform(rng, 0.3, 5, 6), strict=True):
            for time in rng.uniform(0, seconds, rng.poisson(rate * seconds)):
                add(time, role, str(rng.choice(list(instruments[role].strokes))), rng.uniform(0.3, 1))
        return strokes
    groove = Groove.drawn(rng, instruments)
    length = 16 * groove.step
    start = -rng.uniform(0, 16) * groove.step
    for bar in range(int((seconds - start) / length) + 1):
        _bar(rng, groove, start + bar * length, instruments, add)
    return strokes


def _bar(rng: Rng, groove: Groove, at: float, instruments: dict[str, Instrument], add: Add) -> None:
    """One bar from ``at`` seconds on: crash, kick, snare, what keeps time, the foot, and perhaps a fill."""
    fill_from = int(rng.choice([0, 4, 8, 8, 12, 12])) if rng.uniform() < groove.fills else 16
    if rng.uniform() < groove.crashes:
        add(at, "crash", "hit", rng.uniform(0.6, 1))
    times = at + np.arange(16) * groove.step + groove.swing * (np.arange(16) % 2)
    for k in _row(rng, groove.kicks):
        add(times[k], "kick", "hit", 0.6 + 0.4 * groove.accents[k])
    for k in _row(rng, groove.backbeat):
        if k < fill_from:
            add(times[k], "snare", "stick" if groove.sticks else "hit", rng.uniform(0.75, 1))
    for k in _row(rng, groove.ghosts):
        if k < fill_from:
            add(times[k], "snare", "hit", rng.uniform(0.15, 0.45))
    for k in range(0, min(16, fill_from if rng.uniform() < 0.8 else 16), groove.every):
        _keep_time(rng, groove, k, times[k], instruments, add)
    if groove.pedal and groove.keeper != "hihat":
        for k in (4, 12):
            add(times[k], "hihat", "pedal", 0.7)
    toms = list(instruments["tom"].strokes)
    order = np.sort(rng.integers(0, len(toms), 16)) if rng.uniform() < 0.7 else rng.integers(0, len(toms), 16)
    density = rng.uniform(0.5, 1.0)
    for k in range(fill_from, 16):
        if rng.uniform() < density:
            if rng.uniform() < 0.72:
                add(times[k], "tom", toms[order[k]], rng.uniform(0.5, 1))
            else:
                add(times[k], "snare", "hit", rng.uniform(0.4, 1))


def _keep_time(rng: Rng, groove: Groove, k: int, time: float, instruments: dict[str, Instrument], add: Add) -> None:
    """Step ``k`` of what keeps time in a groove."""
    force = groove.accents[k] * rng.uniform(0.8, 1.0)
    toms, rides = (list(instruments[role].strokes) for role in ("tom", "ride"))
    if groove.keeper == "hihat" or (groove.both and groove.keeper == "ride"):
        is_open = rng.uniform() < groove.opens and "open" in instruments["hihat"].strokes
        add(time, "hihat", "open" if is_open else groove.hat_name, force)
    if groove.keeper == "ride":
        add(time, "ride", rides[-1] if rng.uniform() < 0.12 else rides[0], force)
    elif groove.keeper == "toms" and rng.uniform() < 0.7:
        add(time, "tom", toms[-1] if rng.uniform() < 0.7 else str(rng.choice(toms)), force)
    if groove.quarter_crash and k % 4 == 0:
        add(time, "crash", "hit", force)


@dataclass(frozen=True)
class Place:
    """Where an instrument stands: gains and delays (samples) at two close channels and two overheads."""

    close: F32
    over: F32
    delays: tuple[int, int]


def _place(rng: Rng, wide: float) -> Place:
    angle = np.pi / 4 * (1 + wide * rng.uniform(-1, 1))
    over = np.pi / 4 * (1 + 0.7 * rng.uniform(-1, 1))
    delays = (int(rng.uniform(60, 300)), int(rng.uniform(60, 300)))
    pan = np.array([np.cos(angle), np.sin(angle)], np.float32)
    return Place(pan, np.array([np.cos(over), np.sin(over)], np.float32), delays)


def _room(rng: Rng) -> F32:
    """A stereo room as an impulse response [2, 0.5 s]: early reflections and a decaying tail, no direct sound."""
    n = int(0.5 * RATE)
    t = np.arange(n) / RATE
    tail = rng.standard_normal((2, n), dtype=np.float32) * np.exp(-t / log_uniform(rng, 0.02, 0.16)).astype(np.float32)
    tail[:, : int(0.004 * RATE)] = 0
    tail *= float(log_uniform(rng, 0.003, 0.03))
    for channel in range(2):
        at = (rng.uniform(0.001, 0.03, 8) * RATE).astype(int)
        tail[channel, at] += (rng.normal(0, 0.25, 8) * np.exp(-at / RATE / 0.015)).astype(np.float32)
    return tail


def render(rng: Rng, strokes: list[Stroke], instruments: dict[str, Instrument], seconds: float) -> F32:
    """The stems [5, 2, N] as microphones and room give them, before the desk."""
    samples = int(seconds * RATE)
    room = _room(rng)
    length = scipy.fft.next_fast_len(samples + room.shape[1], real=True)
    hertz = np.fft.rfftfreq(length, 1 / RATE).astype(np.float32)
    room_spectrum = scipy.fft.rfft(room, length) * gain_at(random_curve(rng, 3.0) - np.linspace(0, 8, 9), hertz)
    distance = float(log_uniform(rng, 0.15, 2.5))
    wetness = float(log_uniform(rng, 0.05, 1.5))
    ambience = gain_at(random_curve(rng, 2.0), hertz)
    close = np.zeros((5, 2, samples), np.float32)
    far = np.zeros((5, 2, samples), np.float32)
    mono = np.zeros((5, samples), np.float32)
    places: dict[str, Place] = {}
    closeness = {role: float(log_uniform(rng, 0.3, 2.0)) for role in instruments}
    closeness["crash"] *= float(rng.uniform() < 0.3)
    closeness["ride"] *= float(rng.uniform() < 0.6)
    hats = sorted(s.time for s in strokes if s.role == "hihat")
    choked = dict(zip(hats, [*hats[1:], seconds], strict=False))
    for stroke in strokes:
        key = stroke.role + (stroke.name if stroke.role == "tom" else "")
        if key not in places:
            places[key] = _place(rng, {"kick": 0.05, "snare": 0.25}.get(stroke.role, 0.8))
        place = places[key]
        stem = STEMS.index(STEM_OF[stroke.role])
        hit = instruments[stroke.role].hit(rng, stroke.name, stroke.force)
        begin = int(stroke.time * RATE)
        x = hit.samples[: samples - begin] * np.float32(stroke.force * 10 ** (rng.normal(0, 1.0) / 20))
        if stroke.role == "hihat":
            cut = int((choked[stroke.time] - stroke.time) * RATE)
            if 0 < cut < len(x):
                x = x.copy()
                x[cut:] *= np.exp(-np.arange(len(x) - cut) / (0.012 * RATE)).astype(np.float32)
        end = begin + len(x)
        mono[stem, begin:end] += x
        for channel in range(2):
            close[stem, channel, begin:end] += x * (place.close[channel] * closeness[stroke.role])
            shifted = begin + place.delays[channel]
            part = x[: max(0, samples - shifted)]
            far[stem, channel, shifted : shifted + len(part)] += part * (place.over[channel] * distance)
    out = close
    for stem in range(5):
        if not mono[stem].any():
            continue
        equaliser = gain_at(random_curve(rng, 2.5), hertz)
        dry = scipy.fft.rfft(close[stem], length) * equaliser
        wet = scipy.fft.rfft(far[stem], length) * ambience
        wet += scipy.fft.rfft(mono[stem], length)[None] * room_spectrum * (wetness * distance)
        out[stem] = scipy.fft.irfft(dry + wet, length)[:, :samples]
    return out


def desk(rng: Rng, stems: F32) -> F32:
    """Levels, saturation and bus compression. The compressor's gain is the mixture's and goes to all stems alike."""
    energy = np.sqrt(np.mean(np.square(stems), axis=(1, 2))) + 1e-9
    weight = np.where(energy > 1e-6, energy, 1.0)
    lift = (0.35 * np.log(np.median(weight) / weight)).astype(np.float32)
    stems = stems * np.exp(lift)[:, None, None] * (10 ** (rng.normal(0, 2.5, 5) / 20)).astype(np.float32)[:, None, None]
    for stem in range(5):
        if rng.uniform() < 0.2:
            drive = log_uniform(rng, 0.5, 3.0) / (np.abs(stems[stem]).max() + 1e-6)
            stems[stem] = np.tanh(stems[stem] * drive) / drive
    if rng.uniform() < 0.5:
        mixture = np.abs(stems.sum(axis=0)).max(axis=0)
        hop = 64
        level = mixture[: len(mixture) // hop * hop].reshape(-1, hop).max(axis=1)
        attack, release = (np.exp(-hop / RATE / log_uniform(rng, *r)) for r in ((0.001, 0.03), (0.03, 0.3)))
        smooth, held = np.empty_like(level), 0.0
        for i, value in enumerate(level):
            factor = attack if value > held else release
            held = factor * held + (1 - factor) * float(value)
            smooth[i] = held
        threshold = np.quantile(smooth, rng.uniform(0.2, 0.8)) + 1e-6
        ratio = rng.uniform(0.2, 0.8)
        gain = np.minimum(1.0, (smooth / threshold + 1e-6) ** -ratio).astype(np.float32)
        stems = stems * np.interp(np.arange(len(mixture)), np.arange(len(gain)) * hop, gain).astype(np.float32)
    peak = float(np.abs(stems.sum(axis=0)).max()) + 1e-6
    out: F32 = (stems * np.float32(10 ** (rng.uniform(-12, 0) / 20) / peak)).astype(np.float32)
    return out


def make_clip(rng: Rng, pool: Pool, seconds: float) -> F32:
    """Stems [5, 2, N] of a new take on instruments drawn from the pool."""
    instruments = pool.draw()
    return desk(rng, render(rng, pattern(rng, seconds, instruments), instruments, seconds))
