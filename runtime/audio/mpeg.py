"""MPEG audio (MP1, MP2, MP3): counting the frames by their headers, without decoding.

Sources: ISO 11172-3 and 13818-3 for the headers; the Xing, LAME and VBRI headers as libmpg123 reads them.
"""

import struct
from dataclasses import replace
from typing import BinaryIO, NamedTuple

from ortsep.audio.contents import MOST_JUNK, Contents, read_at, whole
from ortsep.audio.tags import id3_length


class Frame(NamedTuple):
    """An MPEG audio frame's header; ``family`` is equal in all frames of one stream."""

    length: int
    samples: int
    layer: int
    side: int
    family: tuple[int, int, int]


_KBIT = {
    (1, 1): tuple(range(32, 449, 32)),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_DECODER_DELAY = 529
"""Samples by which a Layer III decoder lags, which libmpg123 drops on top of the delay that a LAME tag gives."""


def _frame(head: bytes) -> Frame | None:
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    kbit, rate, pad = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer == 4 or kbit in (0, 15) or rate == 3:
        return None
    half = version != 3
    hertz = (44100, 48000, 32000)[rate] >> {3: 0, 2: 1, 0: 2}[version]
    bits = _KBIT[2 if half else 1, layer][kbit - 1] * 1000
    samples = 384 if layer == 1 else 576 if layer == 3 and half else 1152
    length = (12 * bits // hertz + pad) * 4 if layer == 1 else samples // 8 * bits // hertz + pad
    mono = head[3] >> 6 == 3
    side = (9 if mono else 17) if half else (17 if mono else 32)
    return Frame(length, samples, layer, side, (version, layer, rate))


def read_mpeg(file: BinaryIO, begin: int, end: int, reach: int) -> Contents | None:
    """Count the frames of a stream and compare with its Xing or VBRI header. ``claimed`` and ``present`` are frames.

    None where fewer than three frames in a row (or as many as there are) begin within ``reach`` bytes from ``begin``.
    """
    first = _first_frame(file, begin, end, reach)
    if first is None:
        return None
    head = read_at(file, first, 192)
    frame = _frame(head)
    assert frame is not None
    at = 4 + frame.side
    xing = frame.layer == 3 and head[at : at + 4] in (b"Xing", b"Info")
    vbri = frame.layer == 3 and head[36:40] == b"VBRI"
    claimed = claimed_bytes = None
    if xing:
        flags, frames_field, bytes_field = struct.unpack(">III", head[at + 4 : at + 16].ljust(12, b"\0"))
        claimed = frames_field if flags & 1 else None
        claimed_bytes = bytes_field if flags & 3 == 3 else None
    elif vbri:
        claimed_bytes, claimed = struct.unpack(">II", head[46:54].ljust(8, b"\0"))
    audio = first + frame.length if xing or vbri else first
    frames, stop = _count_frames(file, audio, end, frame.family)
    found = replace(whole("mpeg", first, stop), claimed=claimed or None, present=frames)
    if frame.layer != 3:
        # libsndfile takes the first frame's length for every frame's and stops where that ends; so the file goes on for
        # as long as it must in a stretch beyond its end, which holds nothing. The end is where it looks for a tag.
        size = file.seek(0, 2)
        nothing = (size, size + frames * frame.length)
        return replace(found, samples=frames * frame.samples, parts=(((first, stop), nothing, bytes(128)),))
    # Some encoders count the Xing frame itself: one frame too few only counts where bytes are missing too.
    short = claimed_bytes is not None and end - first < claimed_bytes
    cut = bool(claimed) and frames < (claimed or 0) - (0 if short else 1)
    if not (xing and claimed and frames <= claimed + 1):
        found = replace(found, parts=((_counting_header(head[:4], frames, stop - audio), (audio, stop)),))
    return replace(found, problem="cut off" if cut else None)


def _first_frame(file: BinaryIO, begin: int, end: int, reach: int) -> int | None:
    """Where the first of three frames in a row is (or of as many as there are), less than ``reach`` bytes on."""
    window = read_at(file, begin, min(reach, end - begin))
    at = -1
    while (at := window.find(b"\xff", at + 1)) >= 0:
        position, family = begin + at, None
        for _ in range(3):
            frame = _frame(read_at(file, position, 4))
            if frame is None or frame.family != (family or frame.family):
                break
            family, position = frame.family, position + frame.length
            if position >= end:
                return begin + at
        else:
            return begin + at
    return None


def _count_frames(file: BinaryIO, position: int, end: int, family: tuple[int, int, int]) -> tuple[int, int]:
    """Complete frames from ``position`` on, tags and junk between them skipped, and where the last one ends."""
    count, stop = 0, position
    while position < end:
        head = read_at(file, position, 10)
        frame = _frame(head)
        if frame is not None and frame.family == family:
            position += frame.length
            if position <= end:
                count, stop = count + 1, position
        elif length := id3_length(head):
            position += length
        else:
            found = _first_frame(file, position + 1, end, MOST_JUNK)
            if found is None:
                break
            position = found
    return count, stop


def _counting_header(head: bytes, frames: int, audio_bytes: int) -> bytes:
    """A Xing frame that counts ``frames``, and one silent frame, for the front of a stream whose count is missing.

    Its LAME tag makes libmpg123 drop exactly the silent frame, so that every sample stays where it was.
    """
    low = bytes((0xFF, head[1] | 1, head[2] & 0x0D | 0x90, head[3]))
    frame = _frame(low)
    assert frame is not None
    delay = frame.samples - _DECODER_DELAY
    trim = (delay << 12 | _DECODER_DELAY).to_bytes(3)
    tag = struct.pack(">4sIII", b"Xing", 3, frames + 1, audio_bytes + 2 * frame.length)
    lame = b"LAME3.100" + bytes(12) + trim + bytes(12)
    first = low + bytes(frame.side) + tag + lame
    return first.ljust(frame.length, b"\0") + low.ljust(frame.length, b"\0")
