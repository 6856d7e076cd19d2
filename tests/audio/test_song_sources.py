"""Arrays as mixtures: integers mean what a WAV of them means."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from ortsep.audio.sources import as_mixture

U8 = np.array([0, 1, 64, 127, 128, 129, 200, 255], np.uint8)


def written(path: Path, samples: Any, subtype: str) -> Any:
    """What soundfile reads of a WAV whose data chunk holds exactly these samples."""
    sf.write(path, np.zeros(len(samples)), 8000, subtype=subtype)
    data = path.read_bytes()
    at = data.index(b"data") + 8
    path.write_bytes(data[:at] + samples.tobytes() + data[at + samples.nbytes :])
    return sf.read(path, dtype="float32")[0]


def test_unsigned_bytes_as_a_wav_has_them(tmp_path: Path) -> None:
    data, back = as_mixture(U8)
    assert np.array_equal(data[0], written(tmp_path / "u8.wav", U8, "PCM_U8"))
    assert back(data).shape == U8.shape


@pytest.mark.parametrize(("dtype", "subtype"), [(np.int16, "PCM_16"), (np.int32, "PCM_32")])
def test_signed_integers_as_a_wav_has_them(tmp_path: Path, dtype: Any, subtype: str) -> None:
    info = np.iinfo(dtype)
    x = np.array([info.min, info.min + 1, -3, 0, 1, info.max // 2, info.max], dtype)
    assert np.array_equal(as_mixture(x)[0][0], written(tmp_path / "x.wav", x, subtype))


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_wider_unsigned_integers_are_silent_in_their_middle(dtype: Any) -> None:
    info = np.iinfo(dtype)
    middle = info.max // 2 + 1
    x = np.array([0, middle // 2, middle, middle + middle // 2, info.max], dtype)
    expected = (x.astype(np.float64) - middle) / middle
    assert np.array_equal(as_mixture(x)[0][0], expected.astype(np.float32)) and expected[2] == 0
