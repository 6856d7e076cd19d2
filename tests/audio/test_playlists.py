"""ffmpeg's part: what it decodes, by its own containers; and what it must never be made to open."""

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import GRAPHS
from test_song import RATE, music, read, refused, save
from test_surroundings import BEHIND, FRONT

from ortsep.audio.song import open_song, scan
from ortsep.base.errors import AudioError, OrtsepError, TimedOut
from ortsep.separator import Separator
from ortsep.songs.separate import Files, separate_file

real = pytest.mark.skipif(not (shutil.which("ffmpeg") and shutil.which("ffprobe")), reason="no ffmpeg on the PATH")


def ffmpeg(*arguments: object) -> bytes:
    done = subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, arguments)], capture_output=True)
    if b"Unknown encoder" in done.stderr:
        pytest.skip("this ffmpeg lacks an encoder")
    assert done.returncode == 0, done.stderr
    return done.stdout


def decoded(path: Path, channels: int = 2) -> Any:
    """The first audio stream by ffmpeg itself."""
    samples = np.frombuffer(ffmpeg("-i", f"file:{path}", "-map", "0:a:0", "-f", "f32le", "pipe:1"), "<f4")
    return samples.reshape(-1, channels).T


def tool(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!{sys.executable}\nimport sys\n{body}")
    path.chmod(0o755)


M4A = struct.pack(">I", 32) + b"ftypM4A " + bytes(20) + struct.pack(">I", 3000) + b"mdat" + bytes(2992)
WAVPACK = b"wvpk" + bytes(3000)


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-ins are scripts")
class TestStandIns:
    """The second decoder, played by scripts of its names."""

    def stand_in(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        x: Any,
        duration: str,
        status: int = 0,
        said: str = "",
        data: bytes = M4A,
    ) -> Path:
        (folder / "bin").mkdir()
        x.astype("<f4").tofile(folder / "samples")
        stream = {"codec_name": "aac", "sample_rate": "44100", "channels": x.shape[1], "duration": duration}
        found = json.dumps({"streams": [stream], "format": {"format_name": "mov,mp4,m4a"}})
        tool(folder / "bin", "ffprobe", f"print({found!r})")
        body = f"sys.stdout.buffer.write(open({str(folder / 'samples')!r},'rb').read())\n"
        body += f"open({str(folder / 'arguments')!r},'w').write(chr(10).join(sys.argv))\n"
        body += f"sys.stdout.flush()\nsys.stderr.write({said!r})\nsys.exit({status})"
        tool(folder / "bin", "ffmpeg", body)
        monkeypatch.setenv("PATH", str(folder / "bin"))
        path = folder / "-so ng.m4a"
        path.write_bytes(data)
        return path

    def test_decodes_what_libsndfile_cannot(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        x = music(2.5)
        path = self.stand_in(tmp_path, monkeypatch, x, "99")
        song = open_song(path)
        assert (song.decoder, song.subtype, song.samples) == ("ffmpeg", "aac", None)
        assert np.array_equal(read(path), x.T) and np.array_equal(read(path, 1000), x.T)
        assert np.array_equal(read(path, start=1.0, duration=0.5), x.T[:, RATE : RATE + RATE // 2])
        arguments = (tmp_path / "arguments").read_text().split("\n")
        assert f"file:{path}" in arguments
        told = ["-f", "mov", "-format_whitelist", "mov", "-protocol_whitelist", "file,subfile", "-i", f"file:{path}"]
        assert "\n".join(told) in "\n".join(arguments)
        assert "--start" in refused(path, start=3.0)

    def test_notices_a_file_that_holds_less_than_its_header_counts(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = self.stand_in(tmp_path, monkeypatch, music(1), "2.5", data=WAVPACK)
        assert "holds 1.000 s of 2.500 s" in refused(path)
        assert scan(open_song(path, allow_truncated=True)).samples == RATE

    def test_reports_a_failure(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = self.stand_in(tmp_path, monkeypatch, music(1), "1.0", status=1, said="moov atom not found")
        assert "moov atom not found" in refused(path)

    def test_what_it_complains_of_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = self.stand_in(tmp_path, monkeypatch, music(1), "1.0", said="Invalid data found")
        assert "Invalid data found" in scan(open_song(path)).warnings[0]

    def test_is_named_where_it_is_missing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        (tmp_path / "a.m4a").write_bytes(M4A)
        message = refused(tmp_path / "a.m4a")
        assert "MPEG-4" in message and "apt-get install ffmpeg" in message

    def test_a_reader_that_stops_leaves_no_process(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = self.stand_in(tmp_path, monkeypatch, music(20), "20")
        blocks = open_song(path).blocks(1000)
        next(blocks)
        children = Path(f"/proc/self/task/{os.getpid()}/children")
        if not children.exists():
            pytest.skip("no /proc here")
        assert children.read_text().split()
        blocks.close()  # type: ignore[attr-defined]
        assert not children.read_text().split()

    @pytest.mark.parametrize(("channels", "rate"), [(0, 44100), (2, 0), (-1, 44100)])
    def test_no_channels(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: int, rate: int) -> None:
        path = self.stand_in(tmp_path, monkeypatch, music(1), "1.0")
        streams = {"streams": [{"codec_name": "wavpack", "sample_rate": str(rate), "channels": channels}]}
        tool(tmp_path / "bin", "ffprobe", f"print({json.dumps(streams)!r})")
        with pytest.raises(AudioError, match="has no audio that libsndfile or ffmpeg can read"):
            open_song(path)

    @pytest.mark.parametrize("which", ["ffprobe", "ffmpeg"])
    def test_reading_ends_at_its_timeout(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str) -> None:
        path = self.stand_in(tmp_path, monkeypatch, music(1), "1.0")
        forever = "import time\nsys.stdout.write('x' * 99)\nsys.stdout.flush()\ntime.sleep(600)"
        tool(tmp_path / "bin", which, forever)
        began = time.monotonic()
        with pytest.raises(TimedOut, match="longer than it was given"):
            scan(open_song(path, timeout=0.5))
        assert time.monotonic() - began < 60

    def test_a_song_that_stalls_ends_its_separation(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = self.stand_in(tmp_path, monkeypatch, music(1), "1.0")
        tool(tmp_path / "bin", "ffmpeg", "import time\ntime.sleep(600)")
        files = Files(output=tmp_path / "stems")
        with pytest.raises(TimedOut):
            separate_file(Separator(GRAPHS / "waves", provider="cpu"), path, files, timeout=0.5)
        assert not list(tmp_path.glob("stems/**/*.*"))

    def test_a_stream_without_end_is_read_until_its_timeout(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = self.stand_in(tmp_path, monkeypatch, music(1), "1.0")
        tool(tmp_path / "bin", "ffmpeg", "while True: sys.stdout.buffer.write(bytes(65536))")
        with pytest.raises(TimedOut):
            scan(open_song(path, timeout=0.5))


FORMATS = [
    ("m4a", ["-c:a", "alac"]),
    ("m4a", ["-c:a", "aac"]),
    ("m4b", ["-c:a", "aac", "-f", "ipod"]),
    ("mov", ["-c:a", "pcm_s16le"]),
    ("mp4", ["-c:a", "aac", "-movflags", "+frag_keyframe+empty_moov"]),
    ("mka", ["-c:a", "flac"]),
    ("webm", ["-c:a", "libopus"]),
    ("wma", ["-c:a", "wmav2"]),
    ("wv", ["-c:a", "wavpack"]),
    ("tta", ["-c:a", "tta"]),
    ("aac", ["-c:a", "aac"]),
    ("ac3", ["-c:a", "ac3"]),
    ("eac3", ["-c:a", "eac3"]),
    ("dts", ["-c:a", "dca", "-strict", "-2"]),
    ("ts", ["-c:a", "aac"]),
    ("flv", ["-c:a", "aac"]),
    ("avi", ["-c:a", "ac3"]),
    ("mpg", ["-c:a", "mp2"]),
    ("thd", ["-c:a", "truehd", "-strict", "-2"]),
    ("wav", ["-c:a", "adpcm_swf"]),
    ("wav", ["-c:a", "ac3"]),
]


def made(folder: Path, extension: str, codec: list[str], seconds: float = 1.5) -> Path:
    wav = save(folder / "x.wav", music(seconds), subtype="PCM_16")
    rate = ["-ar", "48000"] if "libopus" in codec else []
    ffmpeg("-i", wav, *codec, *rate, folder / f"song.{extension}")
    return folder / f"song.{extension}"


@real
@pytest.mark.parametrize(("extension", "codec"), FORMATS)
def test_every_format_is_as_ffmpeg_alone_reads_it(tmp_path: Path, extension: str, codec: list[str]) -> None:
    path = made(tmp_path, extension, codec)
    expected = decoded(path)
    path = path.rename(tmp_path / "-odd: name.mp3")  # the name says nothing
    song = open_song(path)
    assert song.decoder == "ffmpeg" and song.warnings == ()
    assert np.array_equal(read(path), expected) and scan(song).warnings == ()
    assert np.array_equal(
        read(path, start=0.3, duration=0.5),
        expected[:, round(0.3 * song.sample_rate) :][:, : round(0.5 * song.sample_rate)],
    )


@real
@pytest.mark.parametrize(("extension", "codec"), [f for f in FORMATS if f[0] not in ("mpg", "ts", "flv")])
def test_tags_around_what_ffmpeg_reads(tmp_path: Path, extension: str, codec: list[str]) -> None:
    path = made(tmp_path, extension, codec, 0.7)
    data, expected = path.read_bytes(), decoded(path)
    for front, behind in ((b"", BEHIND["all"]), (FRONT["two id3v2"], b""), (FRONT["id3v2"], BEHIND["id3v2"])):
        path.write_bytes(front + data + behind)
        assert np.array_equal(read(path), expected), (len(front), len(behind))


@real
@pytest.mark.parametrize(
    ("extension", "codec"), [f for f in FORMATS if f[0] in ("m4a", "mov", "mka", "wma", "wv", "tta", "avi")]
)
def test_cut_off(tmp_path: Path, extension: str, codec: list[str]) -> None:
    faststart = ["-movflags", "+faststart"] if extension in ("m4a", "mov") else []
    path = made(tmp_path, extension, [*codec, *faststart])
    data = path.read_bytes()
    for keep in (0.6, 0.95):
        for behind in (b"", BEHIND["all"]):
            path.write_bytes(data[: int(len(data) * keep)] + behind)
            # True Audio's decoder fails at the frame that isn't whole, before its samples can be counted.
            assert re.search("damaged|cut off" if extension == "tta" else "cut off", refused(path)), keep
    if extension == "tta":
        return
    assert 0 < scan(open_song(path, allow_truncated=True)).samples < 1.5 * RATE


@real
def test_the_containers_length_is_not_the_tracks(tmp_path: Path) -> None:
    """A longer picture, a longer second track, subtitles, a late start, an edit list: the track is what it is."""
    wav = save(tmp_path / "x.wav", music(1), subtype="PCM_16")
    video = ["-f", "lavfi", "-i", "testsrc=size=64x64:rate=5:duration=4"]
    (tmp_path / "s.srt").write_text("1\n00:00:00,000 --> 00:00:09,000\nWords\n")
    picture = ["-c:v", "mpeg4", "-map", "0:a", "-map", "1:v"]
    cases = {
        "video.mkv": ["-i", wav, *video, "-c:a", "flac", *picture],
        "video.mp4": ["-i", wav, *video, "-c:a", "aac", *picture],
        "video.avi": ["-i", wav, *video, "-c:a", "ac3", *picture],
        "video.mov": ["-i", wav, *video, "-c:a", "alac", *picture],
        "subtitles.mkv": ["-i", wav, "-i", tmp_path / "s.srt", "-c:a", "flac", "-map", "0:a", "-map", "1:s"],
        "two.mka": ["-i", wav, "-f", "lavfi", "-i", "sine=d=5", "-c:a", "flac", "-map", "0:a", "-map", "1:a"],
        "two.webm": ["-i", wav, "-f", "lavfi", "-i", "sine=d=5", "-c:a", "libvorbis", "-map", "0:a", "-map", "1:a"],
        "late.mkv": [
            *video,
            "-itsoffset",
            "2",
            "-i",
            wav,
            "-c:a",
            "flac",
            "-c:v",
            "mpeg4",
            "-map",
            "1:a",
            "-map",
            "0:v",
        ],
        "late.mp4": [
            *video,
            "-itsoffset",
            "2",
            "-i",
            wav,
            "-c:a",
            "aac",
            "-c:v",
            "mpeg4",
            "-map",
            "1:a",
            "-map",
            "0:v",
        ],
    }
    for name, arguments in cases.items():
        path = tmp_path / name
        ffmpeg(*arguments, path)
        expected = decoded(path)
        assert np.array_equal(read(path), expected), name
        assert RATE - 2048 <= expected.shape[1] <= RATE + 4096, name
    ffmpeg("-ss", "0.5", "-i", tmp_path / "video.mov", "-map", "0:a", "-c", "copy", tmp_path / "edit.mov")
    assert np.array_equal(read(tmp_path / "edit.mov"), decoded(tmp_path / "edit.mov"))


# --- Playlists --------------------------------------------------------------------------------------------------------


def playlists(victim: Path) -> dict[str, bytes]:
    """Texts that name another file of this machine, each for the demuxer that would open it."""
    name, url = str(victim), f"file://{victim}"
    hls = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:9\n#EXTINF:2.0,\n{}\n#EXT-X-ENDLIST\n"
    dash = (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT2S">'
        f'<Period><AdaptationSet mimeType="audio/mp4"><Representation id="1" bandwidth="1"><BaseURL>{url}</BaseURL>'
        "</Representation></AdaptationSet></Period></MPD>"
    )
    sdp = f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 9 RTP/AVP 0\na=control:{url}\n"
    return {
        "hls": hls.format(name).encode(),
        "hls url": hls.format(url).encode(),
        "hls live": hls.format(name).replace("#EXT-X-ENDLIST\n", "").encode(),
        "hls master": f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{name}\n".encode(),
        "hls concat": hls.format(f"concat:{name}|{name}").encode(),
        "hls subfile": hls.format(f"subfile,,start,0,end,0,,:{name}").encode(),
        "dash": dash.encode(),
        "ffconcat": f"ffconcat version 1.0\nfile '{name}'\n".encode(),
        "sdp": sdp.encode(),
        "asx": f'<asx version="3.0"><entry><ref href="{url}"/></entry></asx>'.encode(),
        "ram": f"{url}\n".encode(),
        "imf": f"<AssetMap><AssetList><Asset><Path>{url}</Path></Asset></AssetList></AssetMap>".encode(),
        "image2": b"%s%%d.wav" % name.encode(),
        "ffmetadata": f";FFMETADATA1\ntitle={name}\n".encode(),
        "webvtt": b"WEBVTT\n\n00:00.000 --> 00:09.000\n" + name.encode(),
        "pls": f"[playlist]\nFile1={name}\nNumberOfEntries=1\n".encode(),
        "avisynth": f'WavSource("{name}")\n'.encode(),
        "vapoursynth": f"import vapoursynth\nopen({name!r})\n".encode(),
    }


NAMES = ["song.m4a", "song.mp3", "song.aac", "song.ts", "song.m3u8", "song%d.wav"]


@real
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", playlists(Path("/x")))
def test_a_playlist_that_poses_as_a_song_opens_nothing(tmp_path: Path, name: str, kind: str) -> None:
    save(tmp_path / "victim.wav", music(2), subtype="PCM_16")
    for victim in (tmp_path / "victim.wav", Path("victim.wav"), Path("victim.ts")):
        for front in (b"", FRONT["id3v2"], b"\xef\xbb\xbf", b"\n\n"):
            (tmp_path / name).write_bytes(front + playlists(victim)[kind])
            message = refused(tmp_path / name)
            assert "victim" not in message.replace(str(tmp_path / name), "")


@real
@pytest.mark.parametrize("kind", ["hls", "ffconcat"])
def test_the_attack_is_one(tmp_path: Path, kind: str) -> None:
    """Left to guess, ffmpeg plays the other file: what the tests around this one are about."""
    ffmpeg("-i", save(tmp_path / "x.wav", music(2), subtype="PCM_16"), "-c:a", "aac", tmp_path / "victim.ts")
    path = tmp_path / "song.m4a"
    path.write_bytes(playlists(Path("victim.ts"))[kind])
    guessed = ["ffmpeg", "-v", "error", "-i", f"file:{path}", "-f", "f32le", "pipe:1"]
    heard = subprocess.run(guessed, capture_output=True, cwd=tmp_path).stdout
    if len(heard) < RATE:
        pytest.skip("this ffmpeg opens no such playlist by itself")
    refused(path)


@real
@pytest.mark.parametrize(
    ("extension", "codec"), [(e, c) for e, c in FORMATS if e in ("mov", "mka", "ts", "flv", "ac3")]
)
def test_a_playlist_behind_the_first_bytes_of_a_container(tmp_path: Path, extension: str, codec: list[str]) -> None:
    """The magic alone gets a text to a demuxer of that magic, which finds no audio in it."""
    victim = save(tmp_path / "victim.wav", music(2), subtype="PCM_16")
    head = made(tmp_path, extension, codec, 0.3).read_bytes()
    for kind in ("hls", "dash", "ffconcat", "sdp"):
        (tmp_path / "s.m4a").write_bytes(head[:12] + b"\n" + playlists(victim)[kind])
        try:
            found = scan(open_song(tmp_path / "s.m4a"))
        except OrtsepError as error:
            assert "victim" not in str(error).replace(str(tmp_path), ""), kind
        else:
            assert found.samples < RATE, kind


@real
def test_a_movie_that_refers_to_another_file(tmp_path: Path, snr: Callable[[Any, Any], float]) -> None:
    """A QuickTime track whose samples are said to lie elsewhere (dref with an alias or a URL)."""
    victim = made(tmp_path, "mov", ["-c:a", "pcm_s16le"], 2.0).rename(tmp_path / "victim.mov")
    data = bytearray(victim.read_bytes())
    at = data.index(b"dref") - 4
    length = struct.unpack(">I", data[at : at + 4])[0]
    entry = data[at + 16 : at + length]
    for kind, body in (("url ", str(victim).encode() + b"\0"), ("alis", b"\0" * 6 + str(victim).encode())):
        other = struct.pack(">I4sI", 12 + len(body), kind.encode(), 0) + body
        grown = len(other) - len(entry)
        moved = bytearray(data[: at + 16] + other + data[at + length :])
        for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
            where = moved.index(box) - 4
            moved[where : where + 4] = struct.pack(">I", struct.unpack(">I", moved[where : where + 4])[0] + grown)
        mdat = moved.index(b"mdat") + 4
        if mdat < at:
            end = mdat - 8 + struct.unpack(">I", moved[mdat - 8 : mdat - 4])[0]
            moved[mdat:end] = bytes(end - mdat)
        (tmp_path / "s.mov").write_bytes(moved)
        try:
            stolen = read(tmp_path / "s.mov")
        except OrtsepError as error:
            assert "victim" not in str(error)
        else:
            assert np.abs(stolen).max() == 0
