"""Tags and covers: what a song carries is in the stems, whatever the formats, as mutagen and ffprobe read it."""

import base64
import json
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from places import GRAPHS

pytest.importorskip("mutagen")
import mutagen
from mutagen import apev2, flac, id3, mp4

from ortsep.audio.song_tags import has_tags, song_tags
from ortsep.separator import Separator
from ortsep.songs import Files, separate_file
from ortsep.songs import separate as separate_module
from ortsep.stems.encoders import Encoding, header
from ortsep.stems.tags import HOLD, Picture, Tags, write_tags

RATE = 8000
needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg")
TEXT = {
    "title": ("Größe: 100 % \N{MUSICAL SYMBOL G CLEF}",),
    "artist": ("One", "Two"),
    "album": ("Album",),
    "albumartist": ("All",),
    "tracknumber": ("3/12",),
    "discnumber": ("1/2",),
    "date": ("2021-05-03",),
    "genre": ("Drum & Bass",),
    "comment": ("said",),
    "lyrics": ("la\nla",),
    "musicbrainz_albumid": ("0b1c",),
}


def png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 2, 2, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0" + bytes(6) + b"\0" + bytes(6)))
        + chunk(b"IEND", b"")
    )


COVER = Picture(png(), "image/png", 3, "front")


def sound(path: Path, seconds: float = 0.5) -> Path:
    x = np.random.default_rng(0).uniform(-0.4, 0.4, (round(seconds * RATE), 2)).astype(np.float32)
    soundfile.write(path, x, RATE, **({"subtype": "FLOAT"} if path.suffix == ".wav" else {}))
    return path


def converted(path: Path, suffix: str) -> Path:
    target = path.with_suffix(suffix)
    subprocess.run(["ffmpeg", "-v", "error", "-i", path, target], check=True)
    return target


def by_mutagen(path: Path) -> tuple[dict[str, tuple[str, ...]], list[bytes]]:
    """What mutagen's own common names say: an oracle for the tables. mutagen has none for the ID3 of a WAV."""
    if path.suffix == ".wav":
        path.with_suffix(".id3").write_bytes(b"")
        id3.ID3.save(mutagen.File(path).tags, path.with_suffix(".id3"))
        easy: Any = mutagen.easyid3.EasyID3(path.with_suffix(".id3"))
    else:
        easy = mutagen.File(path, easy=True)
    found = {key: tuple(value) for key, value in easy.items()}
    file = mutagen.File(path)
    if isinstance(file.tags, id3.ID3):
        return found, [frame.data for frame in file.tags.getall("APIC")]
    if isinstance(file, mp4.MP4):
        return found, [bytes(cover) for cover in file.get("covr", [])]
    if isinstance(file, flac.FLAC):
        return found, [picture.data for picture in file.pictures]
    coded = found.pop("metadata_block_picture", ())
    return found, [flac.Picture(base64.b64decode(part)).data for part in coded]


@needs_ffmpeg
@pytest.mark.parametrize("format", HOLD)
def test_tags_are_in_every_format_as_others_read_them(tmp_path: Path, format: str) -> None:
    suffix = "mp4" if format == "stem.mp4" else format
    path = sound(tmp_path / f"a.{suffix}") if suffix != "mp4" else converted(sound(tmp_path / "a.wav"), ".mp4")
    before, _ = soundfile.read(path) if suffix != "mp4" else (None, 0)
    copy = Path(shutil.copy(path, tmp_path / f"b.{suffix}"))
    assert write_tags(path, format, Tags(TEXT, (COVER,))) == []
    write_tags(copy, format, Tags(TEXT, (COVER,)))
    assert path.read_bytes() == copy.read_bytes()
    found, covers = by_mutagen(path)
    for name in ("title", "artist", "album", "albumartist", "date", "genre"):
        assert found[name] == TEXT[name], name
    numbers = found["tracknumber"][0], found.get("tracktotal", ("",))[0]
    assert numbers in (("3/12", ""), ("3", "12"))
    assert covers == [COVER.data]
    tags, said = song_tags(path)
    assert said == () and tags.text == TEXT and [p.data for p in tags.pictures] == [COVER.data]
    if before is not None:
        assert np.array_equal(before, soundfile.read(path)[0])
    command = ["ffprobe", "-v", "error", "-show_entries", "format_tags:stream=codec_type:stream_tags", "-of", "json"]
    probed = json.loads(subprocess.run([*command, path], capture_output=True, check=True).stdout)
    streams = probed["streams"]
    words = {**streams[0].get("tags", {}), **probed["format"].get("tags", {})}
    assert {k.lower(): v for k, v in words.items()}["title"] == TEXT["title"][0]
    assert any(stream["codec_type"] == "video" for stream in streams)  # the cover, as ffmpeg sees it


@needs_ffmpeg
@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3", ".m4a", ".opus", ".aiff", ".wma", ".wv"])
def test_tags_are_read_from_every_format(tmp_path: Path, suffix: str) -> None:
    """Written by mutagen here and, where it can, by ffmpeg; what tells of the samples is left behind."""
    song = sound(tmp_path / "a.wav")
    target = song if suffix == ".wav" else converted(song, suffix)
    file = mutagen.File(target)
    if file.tags is None:
        file.add_tags()
    if isinstance(file.tags, id3.ID3):
        file.tags.add(id3.TIT2(encoding=3, text=["T"]))
        file.tags.add(id3.TXXX(encoding=3, desc="replaygain_track_gain", text=["-3 dB"]))
        file.tags.add(id3.APIC(encoding=3, mime="image/png", type=3, desc="x", data=COVER.data))
    elif isinstance(file, mp4.MP4):
        file["©nam"], file["covr"] = ["T"], [mp4.MP4Cover(COVER.data, mp4.MP4Cover.FORMAT_PNG)]
        file["----:com.apple.iTunes:iTunSMPB"] = [b"0"]
    elif suffix == ".wma":
        text = "image/png\0\0".encode("utf-16-le")
        file["Title"] = ["T"]
        data = struct.pack("<bI", 3, len(COVER.data)) + text + COVER.data
        file["WM/Picture"] = [mutagen.asf.ASFByteArrayAttribute(data)]
    elif suffix == ".wv":
        file["Title"], file["replaygain_track_gain"] = "T", "-3 dB"
        file["Cover Art (Front)"] = apev2.APEValue(b"a.png\0" + COVER.data, apev2.BINARY)
    else:
        file["TITLE"], file["REPLAYGAIN_TRACK_GAIN"] = ["T"], ["-3 dB"]
        block = flac.Picture()
        block.data, block.mime, block.type = COVER.data, "image/png", 3
        if suffix == ".flac":
            file.add_picture(block)
        else:
            file["METADATA_BLOCK_PICTURE"] = [base64.b64encode(block.write()).decode()]
    file.save()
    tags, said = song_tags(target)
    assert said == () and tags.text == {"title": ("T",)} and tags.pictures[0].data == COVER.data
    assert tags.pictures[0].mime == "image/png" and tags.pictures[0].kind == 3


@needs_ffmpeg
def test_the_text_chunk_of_a_wav_is_read(tmp_path: Path) -> None:
    command = ["ffmpeg", "-v", "error", "-i", sound(tmp_path / "a.wav"), "-metadata", "title=T", tmp_path / "b.wav"]
    subprocess.run(command, check=True)
    assert song_tags(tmp_path / "b.wav")[0].text == {"title": ("T",)} and has_tags(tmp_path / "b.wav")


@pytest.mark.parametrize("format", ["wav", "flac", "ogg", "mp3"])
def test_stems_carry_the_tags_of_their_song(tmp_path: Path, format: str) -> None:
    song = sound(tmp_path / "song.flac")
    write_tags(song, "flac", Tags(TEXT, (COVER,)))
    report = separate_file(Separator(GRAPHS / "waves"), song, Files(tmp_path / "a", format=format))
    stem = report.stems["drums"]
    assert stem and song_tags(stem)[0] == Tags(TEXT, (COVER,)) and not any("tags" in w for w in report.warnings)
    again = separate_file(Separator(GRAPHS / "waves"), song, Files(tmp_path / "b", format=format)).stems["drums"]
    if format != "ogg":  # libsndfile numbers every Ogg stream by chance
        assert again and Path(stem).read_bytes() == Path(again).read_bytes()
    plain = separate_file(Separator(GRAPHS / "waves"), song, Files(tmp_path / "c", format=format, tags=False))
    assert not song_tags(plain.stems["drums"] or "")[0]
    assert np.array_equal(soundfile.read(stem)[0], soundfile.read(plain.stems["drums"])[0])


@pytest.mark.parametrize("suffix", ["flac", "mp3", "wav", "ogg"])
def test_without_mutagen_one_sentence_is_said_of_a_song_with_tags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    tagged, plain = sound(tmp_path / f"a.{suffix}"), sound(tmp_path / f"b.{suffix}")
    write_tags(tagged, suffix, Tags(TEXT))
    monkeypatch.setitem(sys.modules, "mutagen", None)
    _, (said,) = song_tags(tagged)
    assert "ortsep[tags]" in said and str(tmp_path) not in said  # one sentence for a whole batch
    assert song_tags(plain) == (Tags(), ())


def test_tags_that_cannot_be_read_cost_nothing_but_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    song = sound(tmp_path / "song.wav")

    def broken(*_: Any) -> Any:
        raise struct.error("unpack requires a buffer of 4 bytes")

    monkeypatch.setattr(mutagen, "File", broken)
    report = separate_file(Separator(GRAPHS / "waves"), song, Files(tmp_path / "out"))
    assert [w for w in report.warnings if "can't be read (unpack requires" in w]


def test_an_rf64_keeps_its_size_where_readers_look_for_it(tmp_path: Path) -> None:
    path, data = tmp_path / "a.wav", np.zeros((100, 2), np.float32)
    path.write_bytes(header(Encoding("RF64", "FLOAT"), RATE, 2, 100) + data.tobytes())
    write_tags(path, "wav", Tags(TEXT))
    content = path.read_bytes()
    assert struct.unpack("<Q", content[20:28])[0] == len(content) - 8 and content[4:8] == b"\xff" * 4
    with soundfile.SoundFile(path) as file:
        assert file.format == "RF64" and file.frames == 100


def test_mp4_says_what_it_cannot_hold(tmp_path: Path) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("no ffmpeg")
    path = converted(sound(tmp_path / "a.wav"), ".mp4")
    odd = Tags({"tracknumber": ("A1",)}, (Picture(b"GIF89a", "image/gif"),))
    first, second = write_tags(path, "stem.mp4", odd)
    assert "'A1' is no number" in first and "not image/gif" in second


def test_the_tags_of_a_run_are_read_once_a_song(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = []
    monkeypatch.setattr(separate_module, "song_tags", lambda path: (count.append(path), song_tags(path))[1])
    separate_file(Separator(GRAPHS / "waves"), sound(tmp_path / "song.wav"), Files(tmp_path / "out"))
    assert len(count) == 1


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_header_prints_nothing(tmp_path: Path) -> None:
    """libsndfile seeks before the beginning of such a file; what a callback raises there, cffi prints."""
    path = tmp_path / "song.aiff"
    soundfile.write(path, np.zeros((3000, 2)), RATE, subtype="PCM_16")
    data = bytearray(path.read_bytes())
    at = data.index(b"SSND")
    data[at : at + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert has_tags(path) is False and song_tags(path)[0] == Tags()
