"""Synthesised drums and the training of drums_mini: each piece against a plain computation, then a short run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from ortsep.export.families.drums_mini.graph import DrumsMini, band_of_bin, band_starts
from ortsep.export.families.drums_mini.original import load
from ortsep.export.family import Choice
from ortsep.models.catalogue import find_card
from training.clips import Stroke, make_clip, pattern, render
from training.kits import ROLES, Instrument, Pool, load_samples, recorded, synthetic
from training.synth import RATE, Hit, modal_bank
from training.train_drums_mini import ARCH, SECONDS, band_products, error, main, separate, spectra
from training.train_drums_mini import batch as make_batch

Snr = Callable[[Any, Any], float]


def test_a_modal_bank_is_the_sum_of_its_modes(snr: Snr) -> None:
    rng = np.random.default_rng(0)
    frequencies, decays = rng.uniform(40, 15000, 30), rng.uniform(0.01, 1, 30)
    gains, phases = rng.uniform(0, 1, 30), rng.uniform(0, 6, 30)
    n = np.arange(5000)[:, None] / RATE
    plain = (gains * np.exp(-n / decays) * np.sin(2 * np.pi * frequencies * n + phases)).sum(axis=1)
    assert snr(plain, modal_bank(frequencies, decays, gains, phases, 5000)) > 100


def test_bands_cover_every_bin_once() -> None:
    starts = band_starts(ARCH.bins, ARCH.bands, ARCH.single)
    assert starts[0] == 0 and len(starts) == ARCH.bands and all(np.diff(starts) > 0) and starts[-1] < ARCH.bins
    assert np.array_equal(np.unique(band_of_bin(ARCH).numpy(), return_index=True)[1], starts)


@pytest.mark.parametrize("role", ROLES)
def test_synthetic_instruments_sound(role: str) -> None:
    for seed in range(3):
        instrument = synthetic(np.random.default_rng(seed), role)
        for hits in instrument.strokes.values():
            for hit in hits:
                assert hit.samples.dtype == np.float32 and np.isfinite(hit.samples).all()
                assert 0.01 < np.abs(hit.samples).max() < 50
                assert np.abs(hit.samples[-200:]).max() < 0.05 * np.abs(hit.samples).max()


def test_a_take_is_what_its_seed_says() -> None:
    takes = []
    for _ in range(2):
        rng = np.random.default_rng(7)
        takes.append(make_clip(rng, Pool(rng, None, 1), 3.0))
    assert takes[0].shape == (5, 2, 3 * RATE) and np.isfinite(takes[0]).all()
    assert np.array_equal(*takes)
    assert np.abs(takes[0].sum(axis=0)).max() <= 1.0


def test_patterns_stay_inside_the_take() -> None:
    rng = np.random.default_rng(3)
    kit = {role: synthetic(rng, role) for role in ROLES}
    heard = set()
    for _ in range(30):
        strokes = pattern(rng, 4.0, kit)
        heard |= {s.role for s in strokes}
        assert all(0 <= s.time < 4.0 and 0 < s.force <= 1 and s.name in kit[s.role].strokes for s in strokes)
    assert heard == set(ROLES)


def test_the_next_hihat_chokes_an_open_one() -> None:
    tone = np.ones(2 * RATE, np.float32)
    short = np.zeros(10, np.float32)
    hats = Instrument("hihat", {"open": [Hit(tone, 1.0)], "closed": [Hit(short, 1.0)]})
    kit = dict.fromkeys(ROLES, Instrument("kick", {"hit": [Hit(short, 1.0)]})) | {"hihat": hats}
    alone = [Stroke(0.0, "hihat", "open", 1.0)]
    for strokes, silent in ((alone, False), ([*alone, Stroke(0.5, "hihat", "closed", 1.0)], True)):
        late = render(np.random.default_rng(0), strokes, kit, 2.5)[3, :, int(1.4 * RATE) : int(1.6 * RATE)]
        assert (float(np.abs(late).max()) < 1e-3) is silent


def test_recorded_samples_are_known_by_their_names(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = [
        "bd_a",
        "sn_a",
        "drum_tom_hi",
        "hat_a",
        "drum_cymbal_open",
        "drum_cymbal_pedal",
        "drum_splash_hard",
        "ride_a",
    ]
    for name in [*names, "bass_thick_c", "loop_amen"]:
        sound = np.concatenate(
            [np.zeros(1000), rng.standard_normal(8000) * np.exp(-np.arange(8000) / 1000), np.zeros(500)]
        )
        soundfile.write(tmp_path / f"{name}.wav", np.stack([sound, sound]).T * 0.1, 22050)
    samples = load_samples(tmp_path)
    assert sorted(name for shots in samples.values() for name, _ in shots) == sorted(names)
    for shots in samples.values():
        for _, sound in shots:
            assert np.abs(sound).max() == pytest.approx(1.0) and np.abs(sound[:100]).max() > 0.01
    for role in ROLES:
        instrument = recorded(rng, role, samples)
        assert instrument.recorded and all(np.isfinite(h.samples).all() for h in instrument.strokes.popitem()[1])


def test_the_loss_is_the_sdr_of_masked_stems() -> None:
    """From band products alone, against stems masked bin by bin."""
    rng = np.random.default_rng(5)
    stems = make_clip(rng, Pool(rng, None, 1), SECONDS)
    root = torch.from_numpy(band_products(stems)).float()
    product = root * root.abs()
    pairs = [(i, j) for i in range(5) for j in range(i, 5)]
    cross = torch.stack([sum(product[k] for k, p in enumerate(pairs) if s in p) for s in range(5)])  # type: ignore[misc]
    own = torch.stack([product[k] for k, (i, j) in enumerate(pairs) if i == j])
    mask = torch.softmax(torch.randn(5, 2, ARCH.bands, product.shape[-1], generator=torch.manual_seed(0)), 0)
    found = error(mask[None], cross.sum(0)[None], cross[None], own[None])[0]

    x = spectra(stems).transpose(0, 1, 3, 2)
    wide = mask[:, :, band_of_bin(ARCH)].numpy()
    wrong = (np.abs(wide * x.sum(axis=0) - x) ** 2).sum(axis=(1, 2, 3), dtype=np.float64)
    energy = (np.abs(x) ** 2).sum(axis=(1, 2, 3), dtype=np.float64)
    floor = 1e-3 * (np.abs(x.sum(axis=0)) ** 2).sum() + 1e-3
    assert np.allclose(found, 10 * np.log10((wrong + floor) / (energy + floor)), atol=0.05)


def test_a_batch_is_of_one_mixture() -> None:
    """The mixture's power is the sum of its products with the stems, whatever their gains."""
    rng = np.random.default_rng(6)
    ring = np.stack([band_products(make_clip(rng, Pool(rng, None, 1), SECONDS))])
    power, cross, own = make_batch(ring, 1, 3, torch.Generator().manual_seed(0))
    assert power.shape == (3, 2, ARCH.bands, 258) and cross.shape == own.shape == (3, 5, 2, ARCH.bands, 258)
    assert torch.allclose(power, cross.sum(1).clamp_min(0)) and (own >= 0).all()
    assert not torch.allclose(power[0] / power[0].sum(), power[1] / power[1].sum())


@pytest.mark.long
def test_a_short_run_leaves_a_checkpoint_that_exports(tmp_path: Path) -> None:
    main([str(tmp_path), "--steps", "3", "--batch", "2", "--slots", "2", "--pool", "1", "--seed", "4"])
    assert '"step": 3' in (tmp_path / "log.jsonl").read_text()
    card = find_card("drums_mini")
    loaded = load(card, Choice(path=tmp_path / "drums_mini.safetensors"))
    fresh = DrumsMini().state_dict()
    assert any(not torch.allclose(v.float(), fresh[k].float()) for k, v in loaded.model.state_dict().items())
    mix = np.random.default_rng(0).standard_normal((2, RATE)).astype(np.float32)
    assert np.allclose(separate(loaded.model, mix).sum(axis=0), mix, atol=1e-4)
