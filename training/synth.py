"""Drum hits by synthesis: numpy in, mono float32 at 44.1 kHz out.

Every instrument is a sum of decaying modes (membranes: Fletcher and Rossing, The Physics of Musical Instruments,
ch. 18; cymbals: ch. 20, modes too dense to tell apart) and of noise whose bands decay at rates of their own. All
sizes are drawn anew for each instrument, widely enough that a real kit lies inside, electronic ones too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.fft

from ortsep.base.arrays import F32

RATE = 44100
Float = npt.NDArray[np.floating]
Rng = np.random.Generator

MEMBRANE = np.array([1.0, 1.593, 2.136, 2.296, 2.653, 2.918, 3.156, 3.501, 3.6, 4.06])
"""Frequencies of an ideal circular membrane's modes over the lowest's: zeros of Bessel functions."""


@dataclass(frozen=True)
class Hit:
    """One sound: samples [N] and how hard it was struck (0 to 1)."""

    samples: F32
    force: float


def log_uniform(rng: Rng, low: float, high: float, size: int | None = None) -> Float:
    return np.exp(rng.uniform(np.log(low), np.log(high), size))


def modal_bank(frequencies: Float, decays: Float, amplitudes: Float, phases: Float, samples: int) -> F32:
    """Sum of a_k exp(-n / (d_k RATE)) sin(2 pi f_k n / RATE + p_k): decays d in seconds (to 1/e); [samples].

    A power of the mode's pole splits in a coarse and a fine factor, which makes the sum one product of two matrices.
    """
    block = 256
    pole = (-1.0 / np.maximum(decays, 1e-4) + 2j * np.pi * frequencies) / RATE
    coarse = np.exp(np.outer(np.arange(-(-samples // block)) * block, pole)) * (amplitudes * np.exp(1j * phases))
    fine = np.exp(np.outer(pole, np.arange(block)))
    real, imag = coarse.real.astype(np.float32), coarse.imag.astype(np.float32)
    out: F32 = (real @ fine.imag.astype(np.float32) + imag @ fine.real.astype(np.float32)).ravel()[:samples]
    return out


def swept_sine(rng: Rng, low: float, bend: float, bend_time: float, decay: float, samples: int) -> F32:
    """A sine that falls from low*(1+bend) Hz to low Hz, dying with ``decay`` seconds to 1/e."""
    n = np.arange(samples) / RATE
    phase = 2 * np.pi * low * (n + bend * bend_time * (1 - np.exp(-n / bend_time)))
    return (np.sin(phase + rng.uniform(0, 1.0)) * np.exp(-n / decay)).astype(np.float32)


def banded_noise(rng: Rng, edges: Sequence[float], gains: Float, decays: Float, samples: int, attack: float) -> F32:
    """White noise in bands that meet at ``edges`` Hz, each with its gain and its decay in seconds."""
    length = scipy.fft.next_fast_len(samples, real=True)
    spectrum = scipy.fft.rfft(rng.standard_normal(length, dtype=np.float32))
    hertz = np.fft.rfftfreq(length, 1 / RATE)
    octave = np.log2(np.maximum(hertz, 1.0))
    n = np.arange(samples) / RATE
    rise = (1 - np.exp(-n / attack)).astype(np.float32) if attack > 0 else np.float32(1)
    out = np.zeros(samples, np.float32)
    for low, high, gain, decay in zip(edges[:-1], edges[1:], gains, decays, strict=True):
        soft = 1 / (1 + np.exp(-(octave - np.log2(low)) * 8)) / (1 + np.exp((octave - np.log2(high)) * 8))
        band = scipy.fft.irfft(spectrum * soft.astype(np.float32), length)[:samples]
        out += band * (np.float32(gain) * np.exp(-n / decay).astype(np.float32))
    return out * rise


def click(rng: Rng, low: float, high: float, decay: float, samples: int) -> F32:
    """A short burst of noise between ``low`` and ``high`` Hz: the stick or the beater."""
    short = min(samples, int(8 * decay * RATE) + 64)
    out = np.zeros(samples, np.float32)
    out[:short] = banded_noise(rng, (low, high), np.ones(1), np.array([decay]), short, 0.0)
    return out


def _level(x: F32) -> F32:
    return x / (float(np.sqrt(np.mean(np.square(x[: RATE // 5]))) + 1e-9) * 10)


def _fade(x: F32) -> F32:
    tail = min(len(x) // 4, 2205)
    x[-tail:] *= np.linspace(1, 0, tail, dtype=np.float32)
    return x


def kick(rng: Rng) -> Callable[[float], F32]:
    """A bass drum: a swept fundamental, a few quick higher modes, the shell and the beater."""
    low = float(log_uniform(rng, 38, 82))
    bend, bend_time = float(log_uniform(rng, 0.1, 3.0)), float(log_uniform(rng, 0.008, 0.06))
    decay = float(log_uniform(rng, 0.06, 0.45))
    modes = low * MEMBRANE[1:8] * rng.uniform(0.9, 1.1, 7)
    mode_gain = float(log_uniform(rng, 0.05, 0.6))
    mode_decay = decay * float(log_uniform(rng, 0.15, 0.6))
    click_low = float(log_uniform(rng, 600, 3000))
    click_gain, click_decay = float(log_uniform(rng, 0.02, 0.8)), float(log_uniform(rng, 0.001, 0.01))
    body_gain, body_decay = float(log_uniform(rng, 0.01, 0.3)), float(log_uniform(rng, 0.01, 0.08))
    drive = float(log_uniform(rng, 0.3, 4.0))

    def strike(force: float) -> F32:
        n = int(min(1.4, 7 * decay + 0.1) * RATE)
        x = swept_sine(rng, low * rng.uniform(0.99, 1.01), bend * force, bend_time, decay, n)
        amplitudes = mode_gain * force * rng.uniform(0.3, 1, 7) / np.arange(1, 8)
        x += modal_bank(modes, np.full(7, mode_decay), amplitudes, rng.uniform(0, 6, 7), n)
        x += click_gain * force * click(rng, click_low, click_low * rng.uniform(2, 5), click_decay, n)
        x += body_gain * banded_noise(rng, (80, 250, 900), np.array([1, 0.5]), np.full(2, body_decay), n, 0.001)
        return _level(np.tanh(drive * x)) * np.float32(2.0)

    return strike


def snare(rng: Rng) -> Callable[[float], F32]:
    """A snare drum: two strong modes, weak ringing ones, and the wires' noise."""
    low = float(log_uniform(rng, 120, 300))
    modes = np.concatenate([[low, low * rng.uniform(1.45, 1.9)], log_uniform(rng, 350, 2500, 8)])
    decays = np.concatenate([log_uniform(rng, 0.03, 0.25, 2), log_uniform(rng, 0.02, 0.3, 8)])
    gains = np.concatenate([[1.0, rng.uniform(0.2, 1)], log_uniform(rng, 0.005, 0.25, 8)]) * log_uniform(rng, 0.4, 4.0)
    edges = (float(log_uniform(rng, 300, 1500)), 2500.0, 5000.0, 9000.0, 16000.0)
    wire_gains = log_uniform(rng, 0.3, 1.6, 4) * np.array([1.0, 1.0, 0.9, 0.6])
    wire_decays = log_uniform(rng, 0.04, 0.22) * log_uniform(rng, 0.6, 1.5, 4)
    bend = float(log_uniform(rng, 0.01, 0.3))
    clap = rng.uniform() < 0.08
    stick = float(log_uniform(rng, 0.1, 1.0))

    def strike(force: float) -> F32:
        n = int(min(0.9, 6 * max(wire_decays.max(), decays.max()) + 0.05) * RATE)
        shift = rng.uniform(0.99, 1.01, len(modes))
        x = modal_bank(modes[1:] * shift[1:], decays[1:], gains[1:], rng.uniform(0, 6, len(modes) - 1), n)
        x += gains[0] * swept_sine(rng, low * shift[0], bend * force, 0.02, decays[0], n)
        wires = banded_noise(rng, edges, wire_gains * (0.4 + 0.6 * force), wire_decays, n, 0.0008)
        if clap:
            for delay in (0.011, 0.021):
                k = int(delay * RATE * rng.uniform(0.8, 1.2))
                wires[k:] += 0.7 * wires[:-k]
        x += wires + stick * force * click(rng, 1500, 8000, 0.002, n)
        return _level(x) * np.float32(1.6)

    return strike


def side_stick(rng: Rng) -> Callable[[float], F32]:
    """The stick laid across the snare drum's rim: a few short modes."""
    modes = log_uniform(rng, 350, 3500, 7)
    decays, gains = log_uniform(rng, 0.008, 0.05, 7), log_uniform(rng, 0.1, 1, 7)

    def strike(force: float) -> F32:
        n = int(0.35 * RATE)
        x = modal_bank(modes * rng.uniform(0.99, 1.01, 7), decays, gains, rng.uniform(0, 6, 7), n)
        x += 0.5 * force * click(rng, 2000, 9000, 0.002, n)
        return _level(x)

    return strike


def tom(rng: Rng, low: float) -> Callable[[float], F32]:
    """A tom-tom of fundamental ``low`` Hz: membrane modes that bend down, the lower the longer, and the stick."""
    count = len(MEMBRANE)
    modes = low * MEMBRANE * rng.uniform(0.93, 1.07, count)
    modes[0] = low
    decay = float(log_uniform(rng, 0.08, 0.6))
    decays = decay * MEMBRANE ** -rng.uniform(0.4, 1.6)
    gains = rng.uniform(0.2, 1, count) * MEMBRANE ** -rng.uniform(0.3, 2.0)
    bend, bend_time = float(log_uniform(rng, 0.01, 0.6)), float(log_uniform(rng, 0.02, 0.12))
    stick, stick_low = float(log_uniform(rng, 0.05, 2.0)), float(log_uniform(rng, 700, 3500))
    stick_decay = float(log_uniform(rng, 0.002, 0.012))
    buzz = float(log_uniform(rng, 0.01, 0.3))

    def strike(force: float) -> F32:
        n = int(min(2.2, 6 * decay + 0.1) * RATE)
        tune = rng.uniform(0.995, 1.005)
        x = swept_sine(rng, low * tune, bend * force, bend_time, decays[0], n)
        x += modal_bank(modes[1:] * tune, decays[1:], gains[1:] * (0.4 + 0.6 * force), rng.uniform(0, 6, count - 1), n)
        x += stick * force * click(rng, stick_low, stick_low * 3, stick_decay, n)
        noise = banded_noise(rng, (150, 600, 2500, 7000), np.array([1, 0.7, 0.3]), np.full(3, decay * 0.4), n, 0.001)
        x += buzz * noise
        return _level(x) * np.float32(1.6)

    return strike


def _plate(rng: Rng, low: float, high: float, count: int, tilt: float) -> tuple[Float, Float]:
    """Frequencies and amplitudes of a metal plate's modes, ``tilt`` dB an octave."""
    frequencies = np.sort(log_uniform(rng, low, high, count))
    amplitudes = rng.exponential(1.0, count) * 10 ** (tilt * np.log2(frequencies / 4000) / 20)
    return frequencies, amplitudes


def hihat(rng: Rng) -> dict[str, Callable[[float], F32]]:
    """A pair of hi-hats: the same plates ``closed``, ``open`` and by the ``pedal``."""
    low = float(log_uniform(rng, 250, 5000))
    frequencies, amplitudes = _plate(rng, low, 17000, int(rng.integers(60, 350)), float(rng.uniform(0, 7)))
    edges = (float(log_uniform(rng, 1500, 6000)), 7000.0, 10000.0, 14000.0, 19000.0)
    noise_gains = log_uniform(rng, 0.3, 1.6, 4) * log_uniform(rng, 0.4, 2.5)
    closed = float(log_uniform(rng, 0.015, 0.09))
    opened = float(log_uniform(rng, 0.18, 0.9))
    slope = float(rng.uniform(-0.4, 0.4))
    stick = float(log_uniform(rng, 0.05, 1.0))
    thump, thumps = float(log_uniform(rng, 0.01, 0.6)), log_uniform(rng, 120, 1200, 6)
    thump_decays = log_uniform(rng, 0.008, 0.06, 6)
    electronic = rng.uniform() < 0.15
    mean = float(np.sqrt(np.sum(amplitudes**2)) + 1e-9)

    def sound(decay: float, force: float, attack: float, loss: float) -> F32:
        n = int(min(2.5, 6 * decay + 0.05) * RATE)
        decays = decay * (frequencies / 5000) ** slope
        gains = amplitudes / mean * (frequencies / 5000) ** (loss * (force - 0.7))
        x = modal_bank(frequencies, decays, gains, rng.uniform(0, 6, len(frequencies)), n)
        if not electronic:
            bands = decay * log_uniform(rng, 0.7, 1.3, 4)
            x += 0.5 * banded_noise(rng, edges, noise_gains * (0.4 + 0.6 * force), bands, n, attack)
            x += modal_bank(thumps, thump_decays, rng.uniform(0.2, 1, 6) * thump * force, rng.uniform(0, 6, 6), n)
        x += stick * force * click(rng, 3000, 12000, 0.0015, n)
        if attack:
            x *= 1 - np.exp(-np.arange(n) / (attack * RATE)).astype(np.float32)
        return _level(x) * np.float32(0.7)

    return {
        "closed": lambda f: sound(closed * rng.uniform(0.8, 1.25), f, 0.0, 0.8),
        "half": lambda f: sound(float(np.sqrt(closed * opened)) * rng.uniform(0.7, 1.4), f, 0.0, 0.6),
        "open": lambda f: sound(opened * rng.uniform(0.8, 1.2), f, 0.0, 0.5),
        "pedal": lambda f: sound(closed * rng.uniform(0.6, 1.5), f * 0.7, 0.004, 0.8) * np.float32(0.7),
    }


def crash(rng: Rng) -> Callable[[float], F32]:
    """A crash, splash or china cymbal: dense modes and noise, the highs swelling for some milliseconds."""
    low = float(log_uniform(rng, 180, 900))
    frequencies, amplitudes = _plate(rng, low, 18000, int(rng.integers(150, 500)), float(rng.uniform(-3, 4)))
    length = float(log_uniform(rng, 0.25, 2.0))
    slope = float(rng.uniform(-0.7, 0.1))
    edges = (float(log_uniform(rng, 400, 2000)), 3500.0, 7000.0, 11000.0, 18000.0)
    noise_gains = log_uniform(rng, 0.3, 1.6, 4) * log_uniform(rng, 0.4, 2.5)
    swell = float(log_uniform(rng, 0.001, 0.02))
    stick = float(log_uniform(rng, 0.02, 0.6))
    mean = float(np.sqrt(np.sum(amplitudes**2)) + 1e-9)

    def strike(force: float) -> F32:
        n = int(min(5.0, 4 * length + 0.3) * RATE)
        decays = length * (frequencies / 2000) ** slope * rng.uniform(0.6, 1.4, len(frequencies))
        gains = amplitudes / mean * (frequencies / 3000) ** (0.5 * (force - 0.7))
        x = modal_bank(frequencies, decays, gains, rng.uniform(0, 6, len(frequencies)), n)
        bands = length * log_uniform(rng, 0.25, 0.9, 4)
        noise = banded_noise(rng, edges, noise_gains * (0.4 + 0.6 * force), bands, n, swell)
        x = x * (1 - 0.7 * np.exp(-np.arange(n) / (swell * RATE))).astype(np.float32) + 0.6 * noise
        x += stick * click(rng, 2500, 9000, 0.002, n)
        return _fade(_level(x)) * np.float32(1.0)

    return strike


def ride(rng: Rng) -> dict[str, Callable[[float], F32]]:
    """A ride cymbal: the stick's ``ping`` over a long quiet wash, and the ``bell``."""
    frequencies, amplitudes = _plate(rng, float(log_uniform(rng, 250, 700)), 16000, int(rng.integers(120, 350)), -1.0)
    length = float(log_uniform(rng, 0.4, 2.2))
    ping = log_uniform(rng, 1800, 7000, 14)
    ping_gains, ping_decays = rng.uniform(0.2, 1, 14) / 4, log_uniform(rng, 0.03, 0.5, 14)
    bell = log_uniform(rng, 500, 5000, 9)
    bell_gains, bell_decays = rng.uniform(0.2, 1, 9) / 3, log_uniform(rng, 0.2, 1.2, 9)
    wash = float(log_uniform(rng, 0.15, 1.2))
    stick = float(log_uniform(rng, 0.1, 1.2))
    slope = float(rng.uniform(-0.6, 0.0))
    mean = float(np.sqrt(np.sum(amplitudes**2)) + 1e-9)

    def sound(force: float, on_bell: bool) -> F32:
        n = int(min(5.0, 3.5 * length + 0.2) * RATE)
        decays = length * (frequencies / 2000) ** slope
        amount = wash * force * (0.5 if on_bell else 1.0)
        phases = rng.uniform(0, 6, len(frequencies))
        x = modal_bank(frequencies, decays, amplitudes / mean * amount * rng.uniform(0.5, 1.5), phases, n)
        x *= 1 - 0.6 * np.exp(-np.arange(n) / (0.01 * RATE)).astype(np.float32)
        tune = rng.uniform(0.997, 1.003)
        x += modal_bank(ping * tune, ping_decays, ping_gains, rng.uniform(0, 6, 14), n)
        if on_bell:
            x += modal_bank(bell * tune, bell_decays, bell_gains * 2, rng.uniform(0, 6, 9), n)
        x += stick * force * click(rng, 3000, 11000, 0.002, n)
        x += 0.15 * wash * banded_noise(rng, (2000, 6000, 14000), np.ones(2), np.full(2, length * 0.4), n, 0.01)
        return _fade(_level(x)) * np.float32(0.6)

    return {"ping": lambda f: sound(f, False), "bell": lambda f: sound(f, True)}
