"""The numpy STFT against torch, librosa and the transforms of the original packages."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ortsep.engine.stft import as_channels, frame_count, from_channels, istft, stft  # noqa: E402
from ortsep.models.spec import STFT  # noqa: E402

Snr = Callable[[Any, Any], float]

PRECISIONS = pytest.mark.parametrize(("dtype", "gate"), [(np.float32, 120.0), (np.float64, 250.0)])

DEMUCS = STFT(4096, 1024, 2048, 1536, 1536, pad_mode="reflect", partial=True, normalized=True, envelope="constant")
MOISES = STFT(6144, 1024, 2048, 3072, 3072, normalized=True, extend="next-hop", frame_multiple=8)
LARSNET = STFT(4096, 1024, 2048, 2048, 2048, extend="hop")
SPLEETER = STFT(4096, 1024, 1024, 4096, 3072, pad_mode="zero", partial=True, envelope="constant")


def music(*shape: int, dtype: Any = np.float64, seed: int = 0) -> Any:
    """Noise that is louder at low frequencies, about full scale."""
    x = np.cumsum(np.random.default_rng(seed).standard_normal(shape), -1)
    x -= np.linspace(0, 1, shape[-1]) * x[..., -1:]
    return (0.9 * x / np.abs(x).max()).astype(dtype)


def spectrum(*shape: int, dtype: Any, seed: int = 1) -> Any:
    rng = np.random.default_rng(seed)
    z = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    return z.astype(np.result_type(dtype, np.complex64))


def hann(n: int, dtype: Any) -> Any:
    return torch.hann_window(n, dtype=torch.from_numpy(np.zeros(1, dtype)).dtype)


@PRECISIONS
@pytest.mark.parametrize("n_fft", [1024, 4096, 6144])
@pytest.mark.parametrize("hop", [512, 1024])
@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("mode", ["reflect", "zero"])
def test_torch(
    n_fft: int, hop: int, centre: bool, normalized: bool, mode: Any, dtype: Any, gate: float, snr: Snr
) -> None:
    pad = n_fft // 2 if centre else 0
    spec = STFT(n_fft, hop, n_fft // 2 + 1, pad, pad, pad_mode=mode, normalized=normalized)
    x = music(2, 50_001, dtype=dtype)
    options = {"hop_length": hop, "window": hann(n_fft, dtype), "center": centre, "normalized": normalized}
    torch_mode = "reflect" if mode == "reflect" else "constant"
    expected = torch.stft(torch.from_numpy(x), n_fft, pad_mode=torch_mode, return_complex=True, **options)
    got = stft(spec, x)
    assert got.dtype == np.result_type(dtype, np.complex64)
    assert snr(expected.numpy(), got) >= gate
    if not centre or hop == n_fft:
        return  # torch.istft refuses where the window's first sample, which is 0, is all that covers a sample
    z = spectrum(*got.shape, dtype=dtype)
    whole = hop * (got.shape[-1] - 1)
    for samples in (whole, whole - 700):
        back = torch.istft(torch.from_numpy(z), n_fft, length=samples, **options)
        assert snr(back.numpy(), istft(spec, z, samples)) >= gate


@pytest.fixture(scope="module")
def htdemucs() -> Any:
    pytest.importorskip("demucs")
    from demucs.htdemucs import HTDemucs

    return HTDemucs(["drums", "bass"], channels=4, t_layers=1, t_heads=1)


@PRECISIONS
@pytest.mark.parametrize("samples", [1, 2, 700, 1023, 1024, 1025, 1536, 1537, 2560, 2561, 5000, 343_980])
def test_htdemucs(
    htdemucs: Any, samples: int, dtype: Any, gate: float, snr: Snr, monkeypatch: pytest.MonkeyPatch
) -> None:
    if dtype == np.float64:
        monkeypatch.setattr(torch, "hann_window", partial(torch.hann_window, dtype=torch.float64))
    x = np.random.default_rng(0).standard_normal((1, 2, samples)).astype(dtype)
    expected = htdemucs._spec(torch.from_numpy(x)).numpy()
    got = stft(DEMUCS, x)[..., : DEMUCS.bins, :]
    assert snr(expected, got) >= gate
    assert snr(htdemucs._magnitude(torch.from_numpy(expected)).numpy(), as_channels(got)) >= gate

    z = spectrum(1, 2, 2, 2048, frame_count(DEMUCS, samples), dtype=dtype)
    expected = htdemucs._ispec(torch.from_numpy(z), samples).numpy()
    assert snr(expected, istft(DEMUCS, z, samples)) >= gate
    assert snr(expected, istft(DEMUCS, as_channels(z), samples)) >= gate
    planes = torch.from_numpy(as_channels(z))
    np.testing.assert_array_equal(htdemucs._mask(None, planes).numpy(), from_channels(as_channels(z)))


@pytest.mark.parametrize("samples", [1, 5000, 44_100])
def test_hdemucs(samples: int, snr: Snr) -> None:
    pytest.importorskip("demucs")
    from demucs.hdemucs import HDemucs

    model = HDemucs(["drums"], channels=4)
    x = np.random.default_rng(0).standard_normal((1, 2, samples)).astype(np.float32)
    assert snr(model._spec(torch.from_numpy(x)).numpy(), stft(DEMUCS, x)[..., :2048, :]) >= 120
    z = spectrum(1, 1, 2, 2048, frame_count(DEMUCS, samples), dtype=np.float32)
    assert snr(model._ispec(torch.from_numpy(z), samples).numpy(), istft(DEMUCS, z, samples)) >= 120


@pytest.mark.parametrize("samples", [1, 5000, 44_100])
def test_hdemucs_with_the_old_padding(samples: int, snr: Snr) -> None:
    """Zeros around the signal, and an inverse of its own: two zero frames on each side, centred."""
    pytest.importorskip("demucs")
    from demucs.hdemucs import HDemucs

    model = HDemucs(["drums"], channels=4, hybrid_old=True)
    forward = replace(DEMUCS, pad_mode="zero")
    backward = replace(DEMUCS, pad_left=2048, pad_right=2048, partial=False, envelope="frames")
    x = np.random.default_rng(0).standard_normal((1, 2, samples)).astype(np.float32)
    assert snr(model._spec(torch.from_numpy(x)).numpy(), stft(forward, x)[..., :2048, :]) >= 120
    z = spectrum(1, 1, 2, 2048, frame_count(forward, samples), dtype=np.float32)
    expected = model._ispec(torch.from_numpy(z), samples).numpy()
    assert snr(expected, istft(backward, np.pad(z, ((0, 0),) * 4 + ((2, 2),)), samples)) >= 120


@PRECISIONS
@pytest.mark.parametrize("samples", [4096, 30_000, 30_720, 264_600])
def test_moises_light(samples: int, dtype: Any, gate: float, snr: Snr) -> None:
    """moises_light.MoisesLight.forward: the next hop even if exact, then hops until the frames are a multiple of 8."""
    x = music(2, samples, dtype=dtype)
    padding = 1024 - samples % 1024
    while ((samples + padding) // 1024 + 1) % 8:
        padding += 1024
    options = {"hop_length": 1024, "window": hann(6144, dtype), "center": True, "normalized": True}
    padded = torch.nn.functional.pad(torch.from_numpy(x), (0, padding))
    expected = torch.stft(padded, 6144, return_complex=True, **options).numpy()
    got = stft(MOISES, x)
    assert snr(expected, got) >= gate
    assert got.shape[-1] == frame_count(MOISES, samples)
    assert got.shape[-1] % 8 == 0
    z = spectrum(2, 2048, got.shape[-1], dtype=dtype)
    full = torch.from_numpy(np.pad(z, ((0, 0), (0, 3073 - 2048), (0, 0))))
    back = torch.istft(full, 6144, length=samples + padding, **options).numpy()[:, :samples]
    assert snr(back, istft(MOISES, z, samples)) >= gate


def test_moises_light_itself(snr: Snr) -> None:
    """The tensors that the package's own forward gives to its first layer, and gets from its last."""
    moises_light = pytest.importorskip("moises_light")
    torch.manual_seed(0)
    model = moises_light.MoisesLight(sources=["vocals"], G=8, n_enc=1, n_split_enc=1, n_rope=1, use_mask=False).eval()
    for module in model.modules():
        if hasattr(module, "flash"):
            module.flash = False  # it would run in bfloat16 wherever CUDA is to be had
    seen: dict[str, Any] = {}
    stft_of_torch, istft_of_torch = torch.stft, torch.istft

    def record_stft(*args: Any, **kwargs: Any) -> Any:
        seen["z"] = stft_of_torch(*args, **kwargs)
        return seen["z"]

    def record_istft(z: Any, *args: Any, **kwargs: Any) -> Any:
        seen["stem"] = z
        return istft_of_torch(z, *args, **kwargs)

    x = music(1, 2, 30_000, dtype=np.float32)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(torch, "stft", record_stft)
        patch.setattr(torch, "istft", record_istft)
        y = model(torch.from_numpy(x)).numpy()
    z = seen["z"]
    z = torch.view_as_complex(z) if z.shape[-1] == 2 and not z.is_complex() else z
    assert snr(z.numpy(), stft(MOISES, x[0])) >= 120
    stem = seen["stem"].numpy()[:, : MOISES.bins]
    assert not seen["stem"].numpy()[:, MOISES.bins :].any()
    # Random parameters put most of each frame under the foot of its window, where float32 keeps less of it: torch's own
    # inverse is 117 dB from float64 here.
    y, got = y.reshape(2, -1), istft(MOISES, stem, 30_000)
    exact = istft(MOISES, stem.astype(np.complex128), 30_000)
    assert snr(exact, got) >= snr(exact, y) - 1
    assert snr(y, got) >= 110


@PRECISIONS
@pytest.mark.parametrize("samples", [4096, 30_000, 30_720, 100_001])
def test_larsnet(samples: int, dtype: Any, gate: float, snr: Snr) -> None:
    """LarsNet pads by (-(L - 4096) % 1024) % 4096 on the right, then takes a centred STFT."""
    x = music(2, samples, dtype=dtype)
    padding = (-(samples - 4096) % 1024) % 4096
    padded = torch.nn.functional.pad(torch.from_numpy(x), (0, padding))
    options = {"hop_length": 1024, "window": hann(4096, dtype), "center": True}
    expected = torch.stft(padded, 4096, pad_mode="reflect", return_complex=True, **options).numpy()
    assert snr(expected, stft(LARSNET, x)) >= gate
    z = spectrum(*expected.shape, dtype=dtype)
    z[:, 2048] = 0
    back = torch.istft(torch.from_numpy(z), 4096, length=samples, **options).numpy()
    assert snr(back, istft(LARSNET, z[:, :2048], samples)) >= gate


@PRECISIONS
@pytest.mark.parametrize("samples", [1, 1023, 1024, 30_000, 100_001])
def test_spleeter(samples: int, dtype: Any, gate: float, snr: Snr) -> None:
    """spleeter.model: 4096 zeros in front, tf.signal.stft(pad_end=True); its inverse times 2/3, cropped."""
    x = music(2, samples + 2, dtype=dtype)[:, 1:-1]
    frames = math.ceil((samples + 4096) / 1024)
    padded = np.zeros((2, (frames - 1) * 1024 + 4096))
    padded[:, 4096 : 4096 + samples] = x
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(4096) / 4096)
    expected = np.stack([np.fft.rfft(padded[:, 1024 * t : 1024 * t + 4096] * window) for t in range(frames)], -1)
    assert snr(expected, stft(SPLEETER, x)) >= gate
    z = spectrum(*expected.shape, dtype=dtype)
    out = np.zeros_like(padded)
    for t in range(frames):
        out[:, 1024 * t : 1024 * t + 4096] += np.fft.irfft(z[..., t].astype(np.complex128)) * window
    assert snr(out[:, 4096 : 4096 + samples] * 2 / 3, istft(SPLEETER, z, samples)) >= gate


@pytest.mark.parametrize(("n_fft", "hop"), [(1024, 512), (4096, 1024), (6144, 1024)])
def test_librosa(n_fft: int, hop: int, snr: Snr) -> None:
    librosa = pytest.importorskip("librosa")
    spec = STFT(n_fft, hop, n_fft // 2 + 1, n_fft // 2, n_fft // 2)
    x = music(2, 50_001)
    assert snr(librosa.stft(x, n_fft=n_fft, hop_length=hop, pad_mode="reflect"), stft(spec, x)) >= 250
    z = spectrum(*stft(spec, x).shape, dtype=np.float64)
    back = librosa.istft(z, n_fft=n_fft, hop_length=hop, length=49_000)
    assert snr(back, istft(spec, z, 49_000)) >= 250


def test_real_music(shared_audio: Any, htdemucs: Any, snr: Snr) -> None:
    soundfile = pytest.importorskip("soundfile")
    song = shared_audio / "songs" / "lets_go_fishin.ogg"
    if not song.is_file():
        pytest.skip("no lets_go_fishin.ogg among the shared audio")
    x = soundfile.read(song, frames=343_980, dtype="float32", always_2d=True)[0].T[None]
    z = htdemucs._spec(torch.from_numpy(np.ascontiguousarray(x)))
    assert snr(z.numpy(), stft(DEMUCS, x)[..., :2048, :]) >= 120
    assert snr(htdemucs._ispec(z, x.shape[-1]).numpy(), istft(DEMUCS, z.numpy(), x.shape[-1])) >= 120
