"""Headers of WAV files whose length is known beforehand: nothing in them depends on when they are written."""

import struct

_UNKNOWN = 0xFFFFFFFF


def float_wav_header(sample_rate: int, channels: int, samples: int) -> bytes:
    """A WAV header for float32 samples; beyond 4 GiB its sizes are 0xFFFFFFFF, which readers of pipes take for open."""
    return wav_header(sample_rate, channels, samples * channels * 4, tag=3, bits=32)


def wav_header(sample_rate: int, channels: int, size: int, *, tag: int, bits: int, rf64: bool = False) -> bytes:
    """A header (Microsoft/IBM RIFF; ``tag`` 1 integer, 3 float) for ``size`` bytes of samples.

    ``rf64`` puts the sizes beyond 4 GiB into a chunk of 64 bits (EBU Tech 3306).
    """
    frame = channels * bits // 8
    form = struct.pack("<HHIIHHH", tag, channels, sample_rate, sample_rate * frame, frame, bits, 0)
    fact = _chunk(b"fact", _size(size // frame))
    head = _chunk(b"fmt ", form) + fact
    if rf64:
        riff = len(b"WAVE") + 8 + 28 + len(head) + 8 + size + size % 2
        wide = _chunk(b"ds64", struct.pack("<QQQI", riff, size, size // frame, 0))
        return b"RF64" + _size(_UNKNOWN) + b"WAVE" + wide + head + b"data" + _size(_UNKNOWN)
    whole = len(b"WAVE") + len(head) + 8 + size + size % 2
    return b"RIFF" + _size(whole) + b"WAVE" + head + b"data" + (_size(size) if whole < _UNKNOWN else _size(_UNKNOWN))


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data


def _size(value: int) -> bytes:
    return struct.pack("<I", min(value, _UNKNOWN))
