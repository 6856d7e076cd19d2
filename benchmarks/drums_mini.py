"""``python benchmarks/drums_mini.py FOLDER [--model drums_mini]``: SDR of drums_mini on true stems, beside baselines.

FOLDER holds kick, snare, toms, hihat and cymbals as .flac or .wav; the mixture is their sum. Baselines: the mixture
taken for each stem, fixed bands of frequency set by hand, and the ideal ratio mask, which knows the stems.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import soundfile

from ortsep import Separator
from ortsep.base.decibels import snr
from ortsep.engine.stft import istft, stft
from ortsep.models.spec import STFT

STEMS = ("kick", "snare", "toms", "hihat", "cymbals")
BANDS = {"kick": (0, 95), "toms": (95, 180), "snare": (180, 2200), "cymbals": (2200, 9000), "hihat": (9000, 22050)}
TRANSFORM = STFT(2048, 512, 1025, pad_left=1024, pad_right=1024)

F32 = np.ndarray


def sdr(reference: F32, estimate: F32) -> float:
    return snr(reference, estimate)


def fixed_bands(mixture: F32) -> F32:
    """Stems [5, 2, N] as bands of the mixture's STFT."""
    spectrum = stft(TRANSFORM, mixture)
    hertz = np.arange(1025) * 44100 / 2048
    masks = [(hertz >= BANDS[s][0]) & (hertz < BANDS[s][1]) for s in STEMS]
    return np.stack([istft(TRANSFORM, spectrum * m[:, None].astype(np.float32), mixture.shape[1]) for m in masks])


def ideal_ratio(stems: F32) -> F32:
    """Stems by their true magnitudes' shares."""
    spectra = np.stack([np.abs(stft(TRANSFORM, s)) for s in stems])
    mixture = stft(TRANSFORM, stems.sum(axis=0))
    masks = spectra / (spectra.sum(axis=0) + 1e-12)
    return np.stack([istft(TRANSFORM, (mixture * m).astype(np.complex64), stems.shape[2]) for m in masks])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="drums_mini")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    files = [next(p for p in (args.folder / f"{s}.flac", args.folder / f"{s}.wav") if p.exists()) for s in STEMS]
    stems = np.stack([soundfile.read(p, dtype="float32", always_2d=True)[0].T for p in files])
    mixture = stems.sum(axis=0)
    made = Separator(args.model).separate(mixture, 44100)
    sides = {
        "mixture": np.stack([mixture] * 5),
        "fixed bands": fixed_bands(mixture),
        args.model: np.stack([made[s] for s in STEMS]),
        "ideal ratio mask": ideal_ratio(stems),
    }
    figures = {side: [sdr(a, b) for a, b in zip(stems, found, strict=True)] for side, found in sides.items()}
    if args.json:
        print(json.dumps({side: dict(zip(STEMS, row, strict=True)) for side, row in figures.items()}))
        return
    print(f"{'SDR in dB':<18}" + "".join(f"{s:>9}" for s in (*STEMS, "average")))
    for side, row in figures.items():
        print(f"{side:<18}" + "".join(f"{v:9.1f}" for v in (*row, np.mean(row))))


if __name__ == "__main__":
    main()
