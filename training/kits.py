"""Instruments to play: rendered from ``synth``, or recorded one-shots, each as hits of several forces.

An ``Instrument`` has named strokes (a hi-hat: closed, half, open, pedal), a stroke some ``Hit`` that take turns.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy.fft
import soundfile
import soxr

from ortsep.base.arrays import F32
from training.synth import RATE, Float, Hit, Rng, crash, hihat, kick, log_uniform, ride, side_stick, snare, tom

STEMS = ("kick", "snare", "toms", "hihat", "cymbals")
ROLES = ("kick", "snare", "tom", "hihat", "crash", "ride")
"""What a pattern plays; toms come in several sizes, crashes and rides are both cymbals."""
STEM_OF = {"kick": "kick", "snare": "snare", "tom": "toms", "hihat": "hihat", "crash": "cymbals", "ride": "cymbals"}

PREFIXES = {
    "kick": ("bd_", "drum_bass", "drum_heavy_kick", "kick"),
    "snare": ("sn_", "drum_snare", "snare"),
    "tom": ("drum_tom", "tom"),
    "hihat:closed": ("drum_cymbal_closed", "hat_", "hihat_closed"),
    "hihat:pedal": ("drum_cymbal_pedal", "hihat_pedal"),
    "hihat:open": ("drum_cymbal_open", "hihat_open"),
    "crash": ("drum_cymbal_hard", "drum_cymbal_soft", "drum_splash", "crash"),
    "ride": ("ride",),
}
"""What a recorded one-shot is, by the beginning of its file name (sonic-pi's names among them)."""


RECORDED = {"kick": 0.3, "snare": 0.35, "tom": 0.35, "hihat": 0.4, "crash": 0.35, "ride": 0.35}
"""Share of instruments that are recorded one-shots where there are any; most for the hi-hat, whose synthesis convinces
least."""
LAYERED = {"kick": 0.0, "snare": 0.15, "tom": 0.0, "hihat": 0.2, "crash": 0.15, "ride": 0.15}
"""Share of instruments that are a recorded and a synthesised one struck together."""


@dataclass
class Instrument:
    """Strokes by name, each a list of hits; ``recorded`` ones come from files."""

    role: str
    strokes: dict[str, list[Hit]] = field(default_factory=dict)
    recorded: bool = False

    def hit(self, rng: Rng, stroke: str, force: float) -> Hit:
        """A hit of the stroke (or the nearest to it that there is) near the force."""
        hits = self.strokes.get(stroke) or self.strokes.get("closed") or next(iter(self.strokes.values()))
        distance = [abs(h.force - force) + rng.uniform(0, 0.25) for h in hits]
        return hits[int(np.argmin(distance))]


def synthetic(rng: Rng, role: str) -> Instrument:
    """A new instrument of the role, all its strokes rendered."""
    forces = (0.35, 0.65, 1.0)

    def render(strike: Callable[[float], F32], takes: int = 3) -> list[Hit]:
        return [Hit(strike(f), f) for f in forces[3 - takes :]]

    if role == "kick":
        strokes = {"hit": render(kick(rng))}
    elif role == "snare":
        strokes = {"hit": render(snare(rng)) + [Hit(snare(rng)(0.8), 0.8)] * int(rng.uniform() < 0.1)}
        strokes["stick"] = render(side_stick(rng), 1)
    elif role == "tom":
        sizes = np.sort(log_uniform(rng, 62, 240, int(rng.integers(2, 5))))[::-1]
        strokes = {f"tom{i}": render(tom(rng, float(f)), 2) for i, f in enumerate(sizes)}
    elif role == "hihat":
        strokes = {name: render(s, 3 if name == "closed" else 2) for name, s in hihat(rng).items()}
    elif role == "crash":
        strokes = {"hit": render(crash(rng), 2)}
    else:
        strokes = {name: render(s, 2) for name, s in ride(rng).items()}
    return Instrument(role, strokes)


def load_samples(folder: Path) -> dict[str, list[tuple[str, F32]]]:
    """Recorded one-shots below a folder by ``PREFIXES`` key: [(file stem, mono samples at RATE, peak 1)]."""
    found: dict[str, list[tuple[str, F32]]] = {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".flac", ".wav", ".aif", ".aiff", ".ogg")):
        kind = next((k for k, begins in PREFIXES.items() if path.stem.lower().startswith(begins)), None)
        if kind is None:
            continue
        data, rate = soundfile.read(path, dtype="float32", always_2d=True)
        mono = soxr.resample(data.mean(axis=1), rate, RATE) if rate != RATE else data.mean(axis=1)
        loud = np.flatnonzero(np.abs(mono) > 0.003 * np.abs(mono).max())
        if len(loud):
            mono = mono[max(0, loud[0] - 8) : loud[-1] + 1]
            found.setdefault(kind, []).append((path.stem, (mono / np.abs(mono).max()).astype(np.float32)))
    return found


def recorded(rng: Rng, role: str, samples: dict[str, list[tuple[str, F32]]]) -> Instrument:
    """An instrument from one-shots, each pitched, damped and filtered anew."""
    level = {"kick": 0.6, "snare": 0.45, "tom": 0.5, "hihat": 0.2, "crash": 0.3, "ride": 0.2}[role]

    def takes(key: str, count: int, low: float = 0.8, high: float = 1.25) -> list[Hit]:
        shots = samples[key]
        _, shot = shots[int(rng.integers(len(shots)))]
        pitch = float(log_uniform(rng, low, high))
        eq = random_curve(rng, 5.0)
        damp = float(log_uniform(rng, 0.05, 3.0)) if rng.uniform() < 0.4 else None
        hits = []
        for force in np.linspace(1.0, 0.5, count):
            x = repitch(shot, pitch * rng.uniform(0.99, 1.01))[: 4 * RATE]
            x = filtered(x, eq - (1 - force) * np.linspace(0, 12, len(eq)))
            if damp:
                x = x * np.exp(-np.arange(len(x)) / (damp * RATE)).astype(np.float32)
            hits.append(Hit((level * x / (np.abs(x).max() + 1e-9)).astype(np.float32), float(force)))
        return hits

    if role == "tom":
        strokes = {f"tom{i}": takes("tom", 2, 0.65, 1.4) for i in range(int(rng.integers(2, 4)))}
    elif role == "hihat":
        strokes = {"closed": takes("hihat:closed", 3), "open": takes("hihat:open", 2), "pedal": takes("hihat:pedal", 1)}
    else:
        strokes = {"ping" if role == "ride" else "hit": takes(role, 3)}
    return Instrument(role, strokes, recorded=True)


def layered(rng: Rng, first: Instrument, second: Instrument) -> Instrument:
    """The strokes of ``first``, each with the nearest of ``second`` under it, both filtered anew."""
    curves = random_curve(rng, 6.0), random_curve(rng, 6.0) + np.float32(rng.uniform(-9, 6))
    strokes: dict[str, list[Hit]] = {}
    for name, hits in first.strokes.items():
        strokes[name] = []
        for hit in hits:
            over, under = filtered(hit.samples, curves[0]), second.hit(rng, name, hit.force).samples
            both = np.zeros(max(len(over), len(under)), np.float32)
            both[: len(over)] = over
            both[: len(under)] += filtered(under, curves[1])
            peak = np.abs(hit.samples).max() / (np.abs(both).max() + 1e-9)
            strokes[name].append(Hit((both * peak).astype(np.float32), hit.force))
    return Instrument(first.role, strokes, recorded=True)


def repitch(x: F32, factor: float) -> F32:
    """Played ``factor`` times as fast, by linear interpolation of the band-limited one-shot."""
    at = np.arange(0, len(x) - 1, factor)
    played: F32 = np.interp(at, np.arange(len(x)), x).astype(np.float32)
    return played


def random_curve(rng: Rng, spread: float, points: int = 9) -> F32:
    """A smooth equaliser: gains in dB at ``points`` octave-like points from 40 Hz to 18 kHz."""
    steps = rng.normal(0, spread, points)
    curve: F32 = np.convolve(np.pad(steps, 1, mode="edge"), [0.25, 0.5, 0.25], "valid").astype(np.float32)
    return curve


def gain_at(curve: Float, hertz: Float) -> F32:
    """The equaliser's gain (linear) at some frequencies."""
    at = np.linspace(np.log2(40), np.log2(18000), len(curve))
    return (10 ** (np.interp(np.log2(np.maximum(hertz, 1)), at, curve) / 20)).astype(np.float32)


def filtered(x: F32, curve: F32) -> F32:
    """x [N] through the equaliser (linear phase, circular over a padded length)."""
    length = scipy.fft.next_fast_len(len(x) + 2048, real=True)
    gain = gain_at(curve, np.fft.rfftfreq(length, 1 / RATE).astype(np.float32))
    out: F32 = scipy.fft.irfft(scipy.fft.rfft(x, length) * gain, length)[: len(x)].astype(np.float32)
    return out


class Pool:
    """Instruments of every role, renewed a few at a time, so that a clip mixes old and new ones at little cost."""

    def __init__(self, rng: Rng, samples: dict[str, list[tuple[str, F32]]] | None, size: int) -> None:
        self.rng, self.samples = rng, samples
        self.roles = {role: [self._new(role) for _ in range(size)] for role in ROLES}

    def _new(self, role: str) -> Instrument:
        kind = self.rng.uniform()
        if not self.samples or kind > RECORDED[role] + LAYERED[role]:
            return synthetic(self.rng, role)
        shots = recorded(self.rng, role, self.samples)
        return shots if kind < RECORDED[role] else layered(self.rng, synthetic(self.rng, role), shots)

    def renew(self, chance: float) -> None:
        """Replace one instrument of each role with this probability."""
        for instruments in self.roles.values():
            if self.rng.uniform() < chance:
                role = instruments[0].role
                instruments[int(self.rng.integers(len(instruments)))] = self._new(role)

    def draw(self) -> dict[str, Instrument]:
        return {role: instruments[int(self.rng.integers(len(instruments)))] for role, instruments in self.roles.items()}
