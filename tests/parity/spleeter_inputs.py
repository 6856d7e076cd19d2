"""Weights and music that ``make_spleeter_reference.py`` and the test make alike, each in its own environment.

Numpy only. Every value depends on a seed and a name, never on the order in which things are made.
"""

import zlib

import numpy as np

MODELS = {"2stems": 2, "4stems": 4, "5stems": 5, "2stems-16kHz": 2}
SAMPLES = 14 * 44100 + 321
"""More than one block of 512 frames, and no whole number of hops."""
STARTS = (0, 3000, 260_000, 517_000, 522_000, SAMPLES - 640)
LENGTH = 640
"""What is kept of each stem: the beginning and the end, and the join of the blocks at sample 520,192."""


def seeded(name: str, shape: tuple[int, ...], seed: int = 5) -> np.ndarray:
    """A variable of Spleeter's, float32: sizeable, and masks that neither vanish nor saturate."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    if name.endswith(("gamma", "moving_variance")):
        return rng.uniform(0.4, 1.4, shape).astype(np.float32)
    if not name.endswith("kernel"):
        return rng.uniform(-0.3, 0.3, shape).astype(np.float32)
    inputs = shape[3] / 4 if "transpose" in name else shape[2]
    gain = 0.1 if inputs == 2 else 2.0 if inputs == 1 else 1.0
    return (rng.standard_normal(shape) * gain / np.sqrt(shape[0] * shape[1] * inputs)).astype(np.float32)


def music(seed: int = 7) -> np.ndarray:
    """Decaying chords, a sweep up to 20 kHz and noise, in stereo, with a silence: [2, SAMPLES] float32."""
    rng = np.random.default_rng(seed)
    t = np.arange(SAMPLES) / 44100
    out = 0.02 * rng.standard_normal((2, SAMPLES))
    for pitch in (55.0, 130.81, 196.0, 329.63, 1046.5, 4186.0):
        beat = np.mod(t + rng.uniform(), rng.uniform(0.3, 0.9))
        gains = rng.uniform(0.05, 0.25, (2, 1))
        out += gains * np.sin(2 * np.pi * pitch * t + rng.uniform(0, 6)) * np.exp(-5 * beat)
    out += 0.05 * np.sin(2 * np.pi * (50 * t + 20_000 / 28 * t**2))
    out[:, 200_000:230_000] = 0
    return out.astype(np.float32)


def excerpts(stems: np.ndarray) -> np.ndarray:
    """[..., SAMPLES] to [..., len(STARTS), LENGTH]."""
    return np.stack([stems[..., start : start + LENGTH] for start in STARTS], -2)
