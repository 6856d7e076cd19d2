"""How deep written stems null against their song: by the definition, with the gain that all of them were given."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from ortsep.audio.sources import ArraySource
from ortsep.songs.null import null_depth

RATE = 8000


@pytest.mark.parametrize("gain", [1.0, 0.5, 0.03125])
@pytest.mark.parametrize("wrong", [1.0, 0.9])
def test_the_depth_is_that_of_what_is_left(tmp_path: Path, gain: float, wrong: float) -> None:
    """Stems that were scaled by ``gain`` to fit their format null against the song times it."""
    rng = np.random.default_rng(0)
    song = rng.uniform(-0.5, 0.5, (2, 30_000)).astype(np.float32)
    share = rng.uniform(0, 1, song.shape)
    parts = (gain * song * share, wrong * gain * song * (1 - share))
    paths = [tmp_path / f"{k}.wav" for k in range(2)]
    for path, part in zip(paths, parts, strict=True):
        soundfile.write(path, part.T, RATE, subtype="FLOAT")
    written = sum(soundfile.read(path)[0].T for path in paths)
    left = float(np.sum((gain * song.astype(np.float64) - written) ** 2))
    expected = 10 * np.log10(np.sum((gain * song.astype(np.float64)) ** 2) / left)
    heard: list[np.ndarray] = []
    found = null_depth(ArraySource(song, RATE), paths, gain, heard.append)
    assert found == pytest.approx(expected, abs=0.5) and (found > 130) == (wrong == 1.0)
    np.testing.assert_allclose(np.concatenate(heard, axis=1), gain * song, rtol=1e-6)
