"""``python -m training.train_drums_mini OUT [--samples DIR] [--test DIR]``: drums_mini from scratch.

Worker processes play new takes without end (``clips``), and keep of each what the loss needs: the products of the
stems' spectra, summed over bands. From these any gain and equaliser for each stem gives the mixture's band powers and
the error of a mask without another transform, so that a take serves several times, never twice alike.

The loss is the mean over stems of 10 log10 of |mask * mixture - stem|^2 over the stem's energy, which is minus the SDR
up to a floor 30 dB below the mixture. AdamW, one cosine; the result is the mean of the weights over all but the first
tenth of the steps (Izmailov et al., "Averaging Weights Leads to Wider Optima and Better
Generalization"), with the normalisations' statistics measured for it. ``--test`` only adds figures to the log.
"""

import argparse
import copy
import json
import math
import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
import soundfile
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ortsep.base.arrays import C64, F32
from ortsep.base.decibels import snr
from ortsep.export.families.drums_mini.graph import FAINT, LEVEL, STEMS, Architecture, DrumsMini, band_starts
from training.clips import make_clip
from training.kits import Pool, load_samples
from training.synth import RATE

ARCH = Architecture()
FRAMES = 512
SECONDS = (FRAMES * ARCH.hop + ARCH.n_fft) / RATE
CROP = 258
PAIRS = [(i, j) for i in range(len(STEMS)) for j in range(i, len(STEMS))]
COUNTS = np.diff([*band_starts(ARCH.bins, ARCH.bands, ARCH.single), ARCH.bins]).astype(np.float32)


def spectra(stems: F32) -> C64:
    """[S, 2, N] to complex64 [S, 2, FRAMES, bins], Hann windows, no padding."""
    frames = np.lib.stride_tricks.sliding_window_view(stems, ARCH.n_fft, axis=-1)[:, :, :: ARCH.hop][:, :, :FRAMES]
    window = np.hanning(ARCH.n_fft + 1)[:-1].astype(np.float32)
    transformed: C64 = scipy.fft.rfft(frames * window, axis=-1)
    return transformed


def band_products(stems: F32) -> np.ndarray:
    """Means over a band's bins of Re(S_i conj S_j) for ``PAIRS``, as signed roots: float16 [15, 2, bands, FRAMES]."""
    x = spectra(stems)
    real, imag = np.ascontiguousarray(x.real), np.ascontiguousarray(x.imag)
    starts = band_starts(ARCH.bins, ARCH.bands, ARCH.single)
    out = np.empty((len(PAIRS), 2, ARCH.bands, FRAMES), np.float16)
    for k, (i, j) in enumerate(PAIRS):
        mean = np.add.reduceat(real[i] * real[j] + imag[i] * imag[j], starts, axis=-1) / COUNTS
        out[k] = (np.sign(mean) * np.sqrt(np.abs(mean))).transpose(0, 2, 1)
    return out


def produce(
    path: str,
    slots: int,
    made: Any,
    seed: int,
    samples: Path | None,
    niceness: int,
    size: int,
) -> None:
    """A worker: fills the ring of takes again and again."""
    os.nice(niceness)
    rng = np.random.default_rng(seed)
    ring = np.memmap(path, np.float16, "r+", shape=(slots, len(PAIRS), 2, ARCH.bands, FRAMES))
    pool = Pool(rng, load_samples(samples) if samples else None, size)
    while True:
        pool.renew(0.35)
        products = band_products(make_clip(rng, pool, SECONDS))
        if not np.isfinite(products).all():
            continue
        with made.get_lock():
            slot = made.value % slots
            made.value += 1
        ring[slot] = products


def curves(rng: torch.Generator, rows: int, spread: float) -> Tensor:
    """Smooth random equalisers, natural log of gains: [rows, bands]."""
    points = torch.randn(rows, 1, 10, generator=rng) * spread * math.log(10) / 20
    return torch.nn.functional.interpolate(points, size=ARCH.bands, mode="linear", align_corners=True)[:, 0]


def batch(ring: np.ndarray, filled: int, size: int, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Power of the mixture [B, 2, bands, T], its products with the stems, and the stems' powers [B, 5, 2, bands, T]."""
    power, cross, own = [], [], []
    for _ in range(size):
        slot = int(torch.randint(filled, (1,), generator=rng))
        begin = int(torch.randint(FRAMES - CROP + 1, (1,), generator=rng))
        root = torch.from_numpy(np.ascontiguousarray(ring[slot, :, :, :, begin : begin + CROP])).float()
        product = root * root.abs()
        if torch.rand(1, generator=rng) < 0.5:
            product = product.flip(1)
        gain = torch.randn(5, 1, generator=rng) * 4.0 * math.log(10) / 20
        gain = gain + (torch.rand(1, generator=rng) * 26 - 20) * math.log(10) / 20
        gain = (gain + curves(rng, 5, 2.0) + curves(rng, 1, 2.5)).exp()
        gain = (gain * (torch.rand(5, 1, generator=rng) > 0.04))[:, None, :, None]
        stems = [torch.zeros_like(product[0]) for _ in range(5)]
        powers = [torch.zeros(0)] * 5
        for k, (i, j) in enumerate(PAIRS):
            term = product[k] * (gain[i] * gain[j])
            stems[i] += term
            if i == j:
                powers[i] = term
            else:
                stems[j] += term
        cross.append(torch.stack(stems))
        own.append(torch.stack(powers))
        power.append(cross[-1].sum(0).clamp_min(0))
    return torch.stack(power), torch.stack(cross), torch.stack(own)


def error(mask: Tensor, power: Tensor, cross: Tensor, own: Tensor) -> Tensor:
    """10 log10 of the relative error energy for each item and stem: [B, 5]."""
    weight = torch.from_numpy(COUNTS)
    total = (power.sum((1, 3)) @ weight)[:, None]
    energy = own.sum((2, 4)) @ weight
    change = (mask * (mask * power[:, None] - 2 * cross)).sum((2, 4)) @ weight
    wrong = (energy + change).clamp_min(0)
    floor = 1e-3 * total + 1e-3
    return 10 * torch.log10((wrong + floor) / (energy + floor))


def settle(network: DrumsMini, ring: np.ndarray, filled: int, rng: torch.Generator, batches: int) -> None:
    """The normalisations' statistics measured for these very weights, at the level to which a block is brought."""
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    network.train()
    with torch.no_grad():
        for _ in range(batches):
            power = batch(ring, filled, 8, rng)[0]
            mean = (power.sum((1, 3)) @ torch.from_numpy(COUNTS)) / (2 * ARCH.bins * power.shape[-1])
            network.logits(power * (LEVEL / (mean + FAINT))[:, None, None, None])


def separate(network: DrumsMini, mixture: F32) -> F32:
    """[2, N] to [5, 2, N] with torch's own transform."""
    x = torch.from_numpy(mixture)
    window = torch.hann_window(ARCH.n_fft)
    spectrum = torch.stft(x, ARCH.n_fft, ARCH.hop, window=window, return_complex=True)
    with torch.no_grad():
        masks = network(spectrum.abs()[None])[0]
    stems = masks * spectrum
    flat = torch.istft(stems.flatten(0, 1), ARCH.n_fft, ARCH.hop, window=window, length=x.shape[1])
    waves: F32 = flat.view(len(STEMS), 2, -1).numpy()
    return waves


def sdr(reference: F32, estimate: F32) -> float:
    return snr(reference, estimate)


def test(network: DrumsMini, folder: Path) -> dict[str, float]:
    """SDR in dB over whole clips of the stems in a folder (kick.flac, ...); the mixture is their sum."""
    stems = np.stack([soundfile.read(folder / f"{s}.flac", dtype="float32", always_2d=True)[0].T for s in STEMS])
    network.eval()
    found = separate(network, stems.sum(axis=0))
    figures = {name: round(sdr(stems[i], found[i]), 2) for i, name in enumerate(STEMS)}
    return {**figures, "average": round(float(np.mean(list(figures.values()))), 2)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--samples", type=Path)
    parser.add_argument("--test", type=Path)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--start", type=Path, help="a checkpoint to go on from")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--nice", type=int, default=5, help="of the workers, above this process")
    parser.add_argument("--slots", type=int, default=700, help="takes kept, 5 MB each")
    parser.add_argument("--pool", type=int, default=24, help="instruments of each role that a worker keeps")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    rng = torch.Generator().manual_seed(args.seed)

    shared = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    file = tempfile.NamedTemporaryFile(dir=shared, prefix="drums_mini-")  # noqa: SIM115 (lives as long as the process)
    shape = (args.slots, len(PAIRS), 2, ARCH.bands, FRAMES)
    ring = np.memmap(file.name, np.float16, "w+", shape=shape)
    made = multiprocessing.Value("q", 0)
    workers = []
    for worker in range(args.workers):
        given = (file.name, args.slots, made, args.seed * 1000 + worker, args.samples, args.nice, args.pool)
        workers.append(multiprocessing.Process(target=produce, args=given, daemon=True))
        workers[-1].start()
    try:
        while made.value < min(args.slots, 100):
            if not all(worker.is_alive() for worker in workers):
                raise SystemExit("a worker died before it had made enough takes; its own message is above")
            time.sleep(0.2)
        train(args, ring, made, rng)
    finally:
        for process in workers:
            process.terminate()
            process.join()


def train(args: argparse.Namespace, ring: np.ndarray, made: Any, rng: torch.Generator) -> None:
    """The schedule, on what the workers have put into the ring so far."""
    network = DrumsMini(ARCH).to(memory_format=torch.channels_last)
    if args.start:
        network.load_state_dict({k: v.float() for k, v in load_file(args.start).items()}, strict=False)
    average = copy.deepcopy(network)
    optimiser = torch.optim.AdamW(network.parameters(), args.rate, weight_decay=0.01)
    log = (args.out / "log.jsonl").open("a")
    begun, recent = time.time(), []
    for step in range(args.steps):
        network.train()
        share = min(1.0, (step + 1) / 300) * (0.1 + 0.45 * (1 + math.cos(math.pi * step / args.steps)))
        for group in optimiser.param_groups:
            group["lr"] = args.rate * share
        power, cross, own = batch(ring, max(1, min(made.value - args.workers, args.slots)), args.batch, rng)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network.logits(power)
        errors = error(torch.softmax(logits.float().contiguous(), 1), power, cross, own)
        loss = errors.mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        if not torch.isfinite(norm):
            continue
        optimiser.step()
        averaged = step - int(0.1 * args.steps)
        decay = averaged / (averaged + 1) if averaged >= 0 else min(0.998, step / (step + 50))
        with torch.no_grad():
            for mean, now in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
                if mean.is_floating_point():
                    mean.lerp_(now, 1 - decay)
                else:
                    mean.copy_(now)
        recent.append(errors.detach().mean(0))
        if (step + 1) % 250 == 0 or step + 1 == args.steps:
            line = {"step": step + 1, "minutes": round((time.time() - begun) / 60, 1), "takes": made.value}
            line["loss"] = dict(zip(STEMS, torch.stack(recent).mean(0).round(decimals=2).tolist(), strict=True))
            recent = []
            if step + 1 == args.steps:
                settle(average, ring, min(made.value - args.workers, args.slots), rng, min(150, args.steps))
            if args.test and ((step + 1) % 1000 == 0 or step + 1 == args.steps):
                line["test"] = test(average, args.test)
            print(json.dumps(line), flush=True)
            log.write(json.dumps(line) + "\n")
            log.flush()
            state = {k: v.half().contiguous() for k, v in average.state_dict().items() if v.is_floating_point()}
            save_file(state, args.out / "drums_mini.safetensors", {"steps": str(step + 1), "seed": str(args.seed)})


if __name__ == "__main__":
    main()
