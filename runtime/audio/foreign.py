"""Formats that only ffmpeg decodes: which they are, by their own first bytes, and whether a file's end is missing.

ffmpeg is never left to guess: it would take a text for a playlist and read the files of this machine or addresses of
the net that it names. It is told the demuxer that belongs to the bytes, and what begins with none of these is no song.
Sources of the first bytes: libavformat's probes. Of the boxes: ISO 14496-12 (MP4), RFC 8794 and RFC 9559 (Matroska).
"""

from dataclasses import replace
from typing import BinaryIO, NamedTuple

from ortsep.audio.contents import Contents, read_at, whole


class Foreign(NamedTuple):
    """A format by its first bytes: ``magic`` at ``at``, ffmpeg's demuxer, and its name in a sentence."""

    magic: bytes
    at: int
    demuxer: str
    name: str


_MP4 = "an MPEG-4 or QuickTime file (AAC or ALAC)"
_FORMATS = (
    Foreign(b"ftyp", 4, "mov", _MP4),
    *(Foreign(box, 4, "mov", _MP4) for box in (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")),
    Foreign(b"\x1aE\xdf\xa3", 0, "matroska", "a Matroska or WebM file"),
    Foreign(bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), 0, "asf", "a Windows Media file"),
    Foreign(b"wvpk", 0, "wv", "a WavPack file"),
    Foreign(b"MAC ", 0, "ape", "a Monkey's Audio file"),
    Foreign(b"TTA1", 0, "tta", "a True Audio file"),
    Foreign(b"tBaK", 0, "tak", "a TAK file"),
    Foreign(b"MPCK", 0, "mpc8", "a Musepack file"),
    Foreign(b"MP+", 0, "mpc", "a Musepack file"),
    Foreign(b"DSD ", 0, "dsf", "a DSD file"),
    Foreign(b"FRM8", 0, "iff", "a DSD file"),
    Foreign(b"#!AMR", 0, "amr", "an AMR file"),
    Foreign(b"\xff\xf1", 0, "aac", "an AAC stream"),
    Foreign(b"\xff\xf9", 0, "aac", "an AAC stream"),
    Foreign(b"\xff\xf0", 0, "aac", "an AAC stream"),
    Foreign(b"\xff\xf8", 0, "aac", "an AAC stream"),
    Foreign(b"\x7f\xfe\x80\x01", 0, "dts", "a DTS stream"),
    Foreign(b"\xfe\x7f\x01\x80", 0, "dts", "a DTS stream"),
    Foreign(b"\x1f\xff\xe8\x00", 0, "dts", "a DTS stream"),
    Foreign(b"\xff\x1f\x00\xe8", 0, "dts", "a DTS stream"),
    Foreign(b"\xf8\x72\x6f\xba", 4, "truehd", "a TrueHD stream"),
    Foreign(b"\0\0\x01\xba", 0, "mpeg", "an MPEG program stream"),
    Foreign(b"FLV\x01", 0, "flv", "a Flash video"),
    Foreign(b".RMF", 0, "rm", "a RealMedia file"),
    Foreign(b".ra\xfd", 0, "rm", "a RealAudio file"),
    Foreign(b"Creative Voice File", 0, "voc", "a Creative Voice file"),
    Foreign(b"AVI ", 8, "avi", "an AVI file"),
    # What libsndfile knows too, for the codecs in it that it doesn't.
    Foreign(b"WAVE", 8, "wav", "a WAV file"),
    Foreign(b"riff\x2e\x91\xcf\x11", 0, "w64", "a Wave64 file"),
    Foreign(b"AIFF", 8, "aiff", "an AIFF file"),
    Foreign(b"AIFC", 8, "aiff", "an AIFF file"),
    Foreign(b"8SVX", 8, "iff", "an IFF file"),
    Foreign(b"caff\0\x01", 0, "caf", "a CAF file"),
    Foreign(b".snd", 0, "au", "an AU file"),
    Foreign(b"fLaC", 0, "flac", "a FLAC file"),
    Foreign(b"OggS", 0, "ogg", "an Ogg file"),
)
_AC3 = b"\x0bw"
_STREAMED_AVI = 0x7FFFF000
"""A size from here on is a placeholder."""
_PACKET = 188
"""Bytes of a packet of an MPEG transport stream, each of which begins with 0x47; M2TS puts 4 bytes in front."""


def format_of(head: bytes) -> Foreign | None:
    """The format that a file with these first bytes (600 and more, where there are so many) is of."""
    for found in _FORMATS:
        if head[found.at : found.at + len(found.magic)] == found.magic:
            return found
    if head[:2] == _AC3 and len(head) > 5:
        enhanced = head[5] >> 3 > 10
        return Foreign(_AC3, 0, "eac3" if enhanced else "ac3", "an AC-3 stream")
    for lead in (0, 4):
        syncs = head[lead :: _PACKET + lead][:3]
        if syncs == b"GGG":
            return Foreign(b"G", lead, "mpegts", "an MPEG transport stream")
    return None


def read_foreign(file: BinaryIO, begin: int, end: int) -> Contents:
    """Examine a file for ffmpeg: cut off where what its container begins goes on beyond its end."""
    found = whole("other", begin, end)
    head = read_at(file, begin, 16)
    match format_of(head):
        case Foreign(demuxer="matroska"):
            cut = _matroska_cut(file, begin, end)
        case Foreign(demuxer="mov"):
            cut = _mp4_cut(file, begin, end)
        case Foreign(demuxer="asf"):
            cut = _asf_cut(file, begin, end)
        case Foreign(demuxer="avi"):
            length = int.from_bytes(head[4:8], "little")
            cut = length < _STREAMED_AVI and begin + 8 + length > end + 1
        case _:
            cut = False
    return replace(found, problem="cut off" if cut else None)


def _mp4_cut(file: BinaryIO, position: int, end: int) -> bool:
    """Whether a box of an MP4's top level that holds the song's tables or samples ends beyond the file."""
    while position + 8 <= end:
        head = read_at(file, position, 16)
        length, kind = int.from_bytes(head[:4]), head[4:8]
        if length == 1:
            length = int.from_bytes(head[8:16])
        if length == 0:  # to the end of the file
            return False
        if length < 8 or not all(0x20 <= byte < 0x7F or byte == 0xA9 for byte in kind):
            return False  # junk behind the last box
        if position + length > end:
            return kind in (b"moov", b"mdat", b"moof")
        position += length
    return False


def _asf_cut(file: BinaryIO, position: int, end: int) -> bool:
    """Whether an object of a Windows Media file's top level, each a GUID and a size, ends beyond the file."""
    while position + 24 <= end:
        length = int.from_bytes(read_at(file, position + 16, 8), "little")
        if length < 24:  # a live stream doesn't know
            return False
        position += length
    return position > end


def _matroska_cut(file: BinaryIO, position: int, end: int) -> bool:
    """Whether the segment of a Matroska file, which holds all but its header, ends beyond the file."""
    for _ in range(16):
        head = read_at(file, position, 16)
        id_length = _vint_length(head[:1])
        size_length = _vint_length(head[id_length : id_length + 1])
        if not (id_length and size_length) or position + id_length + size_length > end:
            return False
        digits = head[id_length : id_length + size_length]
        size = int.from_bytes(digits) & ((1 << 7 * size_length) - 1)
        position += id_length + size_length
        if head[:4] == b"\x18\x53\x80\x67":
            unknown = size == (1 << 7 * size_length) - 1
            return not unknown and position + size > end
        position += size
    return False


def _vint_length(first: bytes) -> int:
    """Bytes of a number whose first byte is ``first``; 0 where that begins none."""
    return 9 - first[0].bit_length() if first and first[0] else 0
