"""The fields of a WAV header by the definition of RIFF, and as two readers that trust different ones take them."""

import io
import struct

import pytest
import soundfile

from ortsep.base.wav import float_wav_header, wav_header


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (44100, 2), (48000, 6), (192_000, 2)])
@pytest.mark.parametrize(("tag", "bits"), [(1, 16), (1, 24), (3, 32)])
def test_every_field_is_that_of_the_definition(rate: int, channels: int, tag: int, bits: int) -> None:
    size = 1000 * channels * bits // 8
    head = wav_header(rate, channels, size, tag=tag, bits=bits)
    riff, whole, wave, fmt, length = struct.unpack_from("<4sI4s4sI", head)
    assert (riff, wave, fmt) == (b"RIFF", b"WAVE", b"fmt ") and whole + 8 == len(head) + size
    kind, number, hertz, bytes_a_second, frame, depth = struct.unpack_from("<HHIIHH", head, 20)
    assert (kind, number, hertz, depth) == (tag, channels, rate, bits)
    assert frame == channels * bits // 8 and bytes_a_second == rate * frame
    assert head[20 + length : 24 + length] == b"fact" and head[-8:-4] == b"data"
    assert struct.unpack("<I", head[-4:])[0] == size
    found = soundfile.info(io.BytesIO(head + bytes(size)))
    assert (found.samplerate, found.channels, found.frames) == (rate, channels, 1000)


def test_beyond_what_32_bits_tell() -> None:
    head = float_wav_header(48_000, 2, 1 << 31)
    assert head[-4:] == b"\xff" * 4
    wide = wav_header(48_000, 2, 1 << 34, tag=3, bits=32, rf64=True)
    assert wide[:4] == b"RF64" and struct.unpack_from("<QQ", wide, 20) == (len(wide) - 8 + (1 << 34), 1 << 34)
