"""Songs for tests/fuzz.py: sound files of every kind, with tags and without, and what reads them."""

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import soundfile
from fuzz_reader import BINARY, Reader, file
from places import ROOT

from ortsep.audio import ffmpeg
from ortsep.audio.song import open_song, scan
from ortsep.audio.song_tags import song_tags

_KINDS = (("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAVEX", "PCM_24"), ("RF64", "PCM_16"), ("W64", "PCM_16"))
_KINDS += (("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III"), ("AIFF", "PCM_16"), ("CAF", "PCM_16"))
_KINDS += (("AU", "PCM_16"), ("OGG", "OPUS"), ("W64", "FLOAT"), ("WAV", "IMA_ADPCM"), ("AIFF", "FLOAT"))


def readers_of_songs() -> list[Reader]:
    sys.path.append(str(ROOT / "tests" / "audio"))
    from test_fuzz_audio import BOXES, TAGS

    songs = tuple(_encoded(*kind) for kind in _KINDS)
    tagged = tuple(TAGS[k % len(TAGS)] + song + TAGS[(k + 2) % len(TAGS)] for k, song in enumerate(songs))
    named = tuple(_named(form, kind) for form, kind in (*_KINDS[:1], *_KINDS[5:9]))
    readers = [
        Reader("audio", (*songs, *tagged), BINARY, file("song", _song), 40),
        Reader("boxes", tuple(BOXES), BINARY, file("song", _song)),
        Reader("tags", (*tagged[::3], *named), BINARY, file("song", song_tags)),
    ]
    if shutil.which("ffmpeg") is None:  # its turns are then not taken, and the last line doesn't count it
        return readers
    foreign = tuple(_by_ffmpeg(*kind) for kind in _FOREIGN)
    return [*readers, Reader("ffmpeg", foreign, BINARY, file("song", _scanned), 1)]


def _encoded(form: str, subtype: str) -> bytes:
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (3000, 2))
    out = io.BytesIO()
    soundfile.write(out, x, 48000 if subtype == "OPUS" else 44100, format=form, subtype=subtype)
    return out.getvalue()


_FOREIGN = (("ipod", "aac"), ("ipod", "alac"), ("webm", "libopus"), ("matroska", "flac"), ("asf", "wmav2"))
_FOREIGN += (("ac3", "ac3"), ("wv", "wavpack"), ("tta", "tta"), ("mpegts", "aac"), ("adts", "aac"), ("avi", "mp2"))


def _by_ffmpeg(form: str, codec: str) -> bytes:
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "sine=330:duration=0.2", "-ac", "2", "-ar", "48000"]
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "song"
        subprocess.run(
            [*command, "-fflags", "+bitexact", "-flags", "+bitexact", "-strict", "-2", "-c:a", codec, "-f", form, path],
            check=True,
            capture_output=True,
        )
        return path.read_bytes()


def _named(form: str, subtype: str) -> bytes:
    """With a title, an artist and a picture where the format has room for one."""
    import mutagen

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / f"song.{form.lower()}"
        path.write_bytes(_encoded(form, subtype))
        song = mutagen.File(path)
        if song.tags is None:
            song.add_tags()
        text = dict.fromkeys(("title", "artist"), "\u266b caf\u00e9")
        from mutagen import id3

        if isinstance(song.tags, id3.ID3):
            for frame in (id3.TIT2, id3.TPE1):
                song.tags.add(frame(encoding=3, text="\u266b caf\u00e9"))
            song.tags.add(id3.APIC(encoding=3, mime="image/png", type=3, desc="", data=bytes(300)))
        else:
            song.update(text)
        song.save()
        return path.read_bytes()


def _song(path: Path) -> None:
    """By libsndfile alone: a process of ffmpeg for each try would take all the time."""
    with mock.patch.object(ffmpeg, "tools", lambda: None):
        _scanned(path)


def _scanned(path: Path) -> None:
    found = scan(open_song(path, downmix=True, allow_truncated=path.stat().st_size % 2 == 0))
    assert found.samples > 0 and np.isfinite(found.peak).all()
