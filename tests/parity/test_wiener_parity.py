"""The EM Wiener filter against ``openunmix.filtering.wiener``.

Exact zeros of the mixture are left out: there the original's atan2 writes ones into its own input.
"""

import sys
import types

import numpy as np
import pytest

from ortsep.stems.wiener import wiener

torch = pytest.importorskip("torch")
sys.modules.setdefault("torchaudio", types.ModuleType("torchaudio"))
filtering = pytest.importorskip("openunmix.filtering")


def original(mixture, magnitudes, iterations, **options):
    """``openunmix.filtering.wiener`` in our layout and in the mixture's precision."""
    x = torch.view_as_real(torch.from_numpy(mixture.transpose(2, 1, 0).copy()))
    v = torch.from_numpy(magnitudes.transpose(3, 2, 1, 0).copy())
    y = filtering.wiener(v, x, iterations, **options).numpy()
    return (y[..., 0, :] + 1j * y[..., 1, :]).transpose(3, 2, 1, 0)


def song(channels, double):
    rng = np.random.default_rng(3)
    shape = (channels, 17, 120)
    mixture = 30 * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape))
    magnitudes = rng.random((4, *shape)) * np.abs(mixture)
    return (mixture, magnitudes) if double else (mixture.astype(np.complex64), magnitudes.astype(np.float32))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("iterations", [0, 1, 2, 3])
@pytest.mark.parametrize("softmask", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_equals_openunmix(snr, channels, iterations, softmask, residual):
    options = {"softmask": softmask, "residual": residual}
    for double in (True, False):
        mixture, magnitudes = song(channels, double)
        expected = original(mixture, magnitudes, iterations, **options)
        result = wiener(mixture, magnitudes, iterations, **options)
        # the original's pi is a float32 even in float64; without iterations that is all the difference
        rounded_pi = double and iterations == 0 and not softmask
        gate = 140 if rounded_pi else 150 if double else 120
        value = snr(expected, result)
        print(f"{channels=} {iterations=} {softmask=} {residual=} {double=}: {value:.1f} dB")
        assert value >= gate
