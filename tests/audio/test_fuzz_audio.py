"""Hostile audio: an AudioError, soon and in little memory, or samples that are finite."""

import io
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from mutations import budget, damaged
from test_surroundings import ape, id3v1, id3v2, lyrics3

from ortsep.audio import ffmpeg
from ortsep.audio.song import open_song, scan
from ortsep.base.errors import OrtsepError


def encoded(form: str, subtype: str | None, samples: int = 3000) -> bytes:
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (samples, 2))
    file = io.BytesIO()
    soundfile.write(file, x, 48000 if subtype == "OPUS" else 44100, format=form, subtype=subtype)
    return file.getvalue()


KINDS = [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAVEX", "PCM_24"), ("RF64", "PCM_16"), ("W64", "PCM_16")]
KINDS += [("FLAC", None), ("OGG", "VORBIS"), ("MP3", None), ("AIFF", "PCM_16"), ("CAF", "PCM_16"), ("AU", "PCM_16")]
KINDS += [("OGG", "OPUS"), ("W64", "FLOAT"), ("WAV", "IMA_ADPCM"), ("AIFF", "FLOAT"), ("FLAC", "PCM_24")]
TAGS = [id3v1(), id3v2(200), ape(items=60), lyrics3() + id3v1(), bytes(500)]
BOXES = [
    b"\0\0\0\x10ftypM4A \0\0\0\0" + b"\0\0\0\x20moov" + bytes(24) + b"\0\0\0\x01mdat\0\0\0\0\0\0\1\0" + bytes(300),
    bytes.fromhex("1a45dfa3934286810142f7810142f2810442f381084282846d6b7661")
    + bytes.fromhex("1853806701")
    + bytes(300),
    bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + (60).to_bytes(8, "little") + bytes(300),
    b"RIFF\0\1\0\0AVI LIST" + bytes(300),
    b"G" + bytes(187) + b"G" + bytes(187) + b"G" + bytes(187),
    b"\x0bw" + bytes(300),
    b"wvpk" + bytes(300),
]
"""What ffmpeg would be asked about: here only the boxes are read."""
FILES = [encoded(*kind) for kind in KINDS if kind[0] in soundfile.available_formats()] + BOXES


@pytest.fixture(autouse=True, scope="module")
def no_ffmpeg() -> object:
    """libsndfile alone: a process of ffmpeg for each try would take all the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ffmpeg, "tools", lambda: None)
        yield


@budget(400)
@given(
    st.sampled_from([b"", *TAGS]) | damaged(*TAGS),
    damaged(*FILES) | st.binary(max_size=64),
    st.sampled_from([b"", *TAGS]) | damaged(*TAGS),
    st.booleans(),
)
def test_fuzz_audio(front: bytes, data: bytes, behind: bytes, allow_truncated: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "song"
        path.write_bytes(front + data + behind)
        tracemalloc.start()
        began = time.monotonic()
        try:
            song = open_song(path, downmix=True, allow_truncated=allow_truncated)
            found = scan(song)
            assert found.samples > 0 and all(np.isfinite(found.peak))
        except OrtsepError:
            pass
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < 150e6, f"{peak / 1e6:.0f} MB for {len(data)} bytes"
        assert time.monotonic() - began < 20
