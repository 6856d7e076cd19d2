"""Which speaker each channel of a song is for, and how they are mixed down to stereo.

A layout is a tuple of speakers in ffmpeg's abbreviations. Sources: Microsoft's WAVEFORMATEXTENSIBLE (the bits of the
mask), RFC 9639, 9.1.3 (FLAC), Vorbis I, 4.3.9 and RFC 7845, 5.1.1.2 (Vorbis and Opus), Apple's CoreAudioBaseTypes.h
(CAF and AIFF), ITU-R BS.775-3, annex 4, table 2 (the shares), ffmpeg's libswresample (shares of what BS.775 lacks).
"""

import math
import re
import struct

Layout = tuple[str, ...]

_MASK = [
    "FL",
    "FR",
    "FC",
    "LFE",
    "BL",
    "BR",
    "FLC",
    "FRC",
    "BC",
    "SL",
    "SR",
    "TC",
    "TFL",
    "TFC",
    "TFR",
    "TBL",
    "TBC",
    "TBR",
]
"""The bits of a WAVE mask, lowest first."""


def _orders(**orders: str) -> dict[int, Layout]:
    return {int(channels[1:]): tuple(order.split()) for channels, order in orders.items()}


FLAC_LAYOUTS = _orders(
    _3="FL FR FC",
    _4="FL FR BL BR",
    _5="FL FR FC BL BR",
    _6="FL FR FC LFE BL BR",
    _7="FL FR FC LFE BC SL SR",
    _8="FL FR FC LFE BL BR SL SR",
)
"""By number of channels, where FLAC states nothing else; also what is assumed of formats that state nothing."""
VORBIS_LAYOUTS = _orders(
    _3="FL FC FR",
    _4="FL FR BL BR",
    _5="FL FC FR BL BR",
    _6="FL FC FR BL BR LFE",
    _7="FL FC FR SL SR BC LFE",
    _8="FL FC FR SL SR BL BR LFE",
)
"""The order of Vorbis and Opus, which libsndfile leaves as it is."""
_HALF = math.sqrt(0.5)
_SHARES: dict[str, tuple[float, float]] = {
    "FL": (1.0, 0.0),
    "FR": (0.0, 1.0),
    "FC": (_HALF, _HALF),
    "LFE": (0.0, 0.0),
    "BL": (_HALF, 0.0),
    "BR": (0.0, _HALF),
    "SL": (_HALF, 0.0),
    "SR": (0.0, _HALF),
    "BC": (0.5, 0.5),
    "FLC": (1.0, 0.0),
    "FRC": (0.0, 1.0),
    "DL": (1.0, 0.0),
    "DR": (0.0, 1.0),
    "LFE2": (0.0, 0.0),
    # What ffmpeg drops is heard here, as if it stood on the floor.
    "TFL": (_HALF, 0.0),
    "TFR": (0.0, _HALF),
    "TBL": (_HALF, 0.0),
    "TBR": (0.0, _HALF),
    "TSL": (_HALF, 0.0),
    "TSR": (0.0, _HALF),
    "WL": (_HALF, 0.0),
    "WR": (0.0, _HALF),
    "SDL": (_HALF, 0.0),
    "SDR": (0.0, _HALF),
    "BFL": (_HALF, 0.0),
    "BFR": (0.0, _HALF),
    "BFC": (0.5, 0.5),
    "TC": (0.5, 0.5),
    "TFC": (0.5, 0.5),
    "TBC": (0.5, 0.5),
}
"""Shares of left and right."""


def downmix(channels: int, layout: Layout | None) -> tuple[tuple[tuple[float, ...], ...], str]:
    """Rows left and right with a share for each channel, and what had to be assumed; empty where the layout is stated.

    Where none is stated, that of FLAC for 3 to 8 channels; for more, or speakers without a share, the mean.
    """
    assumed = ""
    if layout is None and channels in FLAC_LAYOUTS:
        layout = FLAC_LAYOUTS[channels]
        assumed = f"does not say which speakers its {channels} channels are for; assumed {' '.join(layout)}"
    if layout is None or len(layout) != channels or not set(layout) <= set(_SHARES):
        assumed = f"does not say which speakers its {channels} channels are for; both sides are their mean"
        return ((1 / channels,) * channels,) * 2, assumed
    left, right = zip(*(_SHARES[name] for name in layout), strict=True)
    return (left, right), assumed


def front(layout: Layout | None) -> tuple[int, int]:
    """The places of front left and right; the first two where the layout has or states none."""
    if layout is None or "FL" not in layout or "FR" not in layout:
        return 0, 1
    return layout.index("FL"), layout.index("FR")


def mask_layout(mask: int, channels: int) -> Layout | None:
    """The layout of a WAVE mask: its lowest bits, in order; None where it states fewer speakers than channels."""
    found = [name for bit, name in enumerate(_MASK) if mask >> bit & 1]
    return tuple(found[:channels]) if len(found) >= channels > 0 else None


# --- Apple ------------------------------------------------------------------------------------------------------------

_APPLE_LABELS = _MASK
"""kAudioChannelLabel 1 to 18, in which "surround" are the speakers that others call back."""
_APPLE_MORE = {33: "BL", 34: "BR", 35: "WL", 36: "WR", 37: "LFE2", 38: "DL", 39: "DR", 42: "FC"}
_APPLE = {
    101: "L R",
    108: "L R Ls Rs",
    109: "L R Ls Rs C",
    110: "L R Ls Rs C Cs",
    111: "L R Rls Rrs C Cs Ls Rs",
    113: "L R C",
    114: "C L R",
    115: "L R C Cs",
    116: "C L R Cs",
    117: "L R C Ls Rs",
    118: "L R Ls Rs C",
    119: "L C R Ls Rs",
    120: "C L R Ls Rs",
    121: "L R C LFE Ls Rs",
    122: "L R Ls Rs C LFE",
    123: "L C R Ls Rs LFE",
    124: "C L R Ls Rs LFE",
    125: "L R C LFE Ls Rs Cs",
    126: "L R C LFE Ls Rs Lc Rc",
    127: "C Lc Rc L R Ls Rs LFE",
    128: "L R C LFE Ls Rs Rls Rrs",
    129: "L R Ls Rs C LFE Lc Rc",
    131: "L R Cs",
    132: "L R Ls Rs",
    133: "L R LFE",
    134: "L R LFE Cs",
    135: "L R LFE Ls Rs",
    136: "L R C LFE",
    137: "L R C LFE Cs",
    138: "L R Ls Rs LFE",
    139: "L R Ls Rs C Cs",
    140: "L R Ls Rs C Rls Rrs",
    141: "C L R Ls Rs Cs",
    142: "C L R Ls Rs Cs LFE",
    143: "C L R Ls Rs Rls Rrs",
    144: "C L R Ls Rs Rls Rrs Cs",
    148: "L R Ls Rs C Lc Rc",
    150: "L C R",
    151: "L C R Cs",
    152: "L C R LFE",
    153: "L R Cs LFE",
    154: "L C R Cs LFE",
}
"""kAudioChannelLayoutTag by its upper half, for the layouts of loudspeakers up to 8 channels."""
_APPLE_NAMES = {"L": "FL", "R": "FR", "C": "FC", "Cs": "BC", "Lc": "FLC", "Rc": "FRC", "LFE": "LFE"}


def apple_layout(chunk: bytes, channels: int) -> Layout | None:
    """The layout of a CAF's ``chan`` or an AIFF's ``CHAN`` chunk; None where it states none of loudspeakers."""
    if len(chunk) < 12:
        return None
    tag, bitmap, count = struct.unpack(">III", chunk[:12])
    if tag == 1 << 16:
        return mask_layout(bitmap, channels)
    if tag == 0:
        labels = [struct.unpack_from(">I", chunk, 12 + 20 * i)[0] for i in range(min(count, (len(chunk) - 12) // 20))]
        names = [_APPLE_LABELS[n - 1] if 1 <= n <= 18 else _APPLE_MORE.get(n, "") for n in labels]
        return tuple(names) if len(names) == channels and all(names) else None
    if tag & 0xFFFF != channels or tag >> 16 not in _APPLE:
        return None
    speakers = _APPLE[tag >> 16].split()
    # Rear surrounds stand behind the surrounds, which are then at the sides.
    sides = {"Ls": "SL", "Rs": "SR", "Rls": "BL", "Rrs": "BR"} if "Rls" in speakers else {"Ls": "BL", "Rs": "BR"}
    return tuple({**_APPLE_NAMES, **sides}[speaker] for speaker in speakers)


# --- ffmpeg -----------------------------------------------------------------------------------------------------------

_FFMPEG = {
    "mono": "FC",
    "stereo": "FL FR",
    "2.1": "FL FR LFE",
    "3.0": "FL FR FC",
    "3.0(back)": "FL FR BC",
    "4.0": "FL FR FC BC",
    "quad": "FL FR BL BR",
    "quad(side)": "FL FR SL SR",
    "3.1": "FL FR FC LFE",
    "5.0": "FL FR FC BL BR",
    "5.0(side)": "FL FR FC SL SR",
    "4.1": "FL FR FC LFE BC",
    "5.1": "FL FR FC LFE BL BR",
    "5.1(side)": "FL FR FC LFE SL SR",
    "6.0": "FL FR FC BC SL SR",
    "6.0(front)": "FL FR FLC FRC SL SR",
    "hexagonal": "FL FR FC BL BR BC",
    "6.1": "FL FR FC LFE BC SL SR",
    "6.1(back)": "FL FR FC LFE BL BR BC",
    "6.1(front)": "FL FR LFE FLC FRC SL SR",
    "7.0": "FL FR FC BL BR SL SR",
    "7.0(front)": "FL FR FC FLC FRC SL SR",
    "7.1": "FL FR FC LFE BL BR SL SR",
    "7.1(wide)": "FL FR FC LFE BL BR FLC FRC",
    "7.1(wide-side)": "FL FR FC LFE FLC FRC SL SR",
    "octagonal": "FL FR FC BL BR BC SL SR",
    "hexadecagonal": "FL FR FC BL BR BC SL SR TFL TFC TFR TBL TBC TBR WL WR",
    "downmix": "DL DR",
    "22.2": "FL FR FC LFE BL BR FLC FRC BC SL SR TC TFL TFC TFR TBL TBC TBR LFE2 TSL TSR BFC BFL BFR",
    "3.1.2": "FL FR FC LFE TFL TFR",
    "5.1.2": "FL FR FC LFE BL BR TFL TFR",
    "5.1.2(back)": "FL FR FC LFE BL BR TBL TBR",
    "5.1.4": "FL FR FC LFE BL BR TFL TFR TBL TBR",
    "7.1.2": "FL FR FC LFE BL BR SL SR TFL TFR",
    "7.1.4": "FL FR FC LFE BL BR SL SR TFL TFR TBL TBR",
    "7.1(top)": "FL FR FC LFE BL BR TFL TFR",
    "cube": "FL FR BL BR TFL TFR TBL TBR",
}
"""``ffmpeg -layouts`` of versions 5 to 7."""


def ffmpeg_layout(text: str, channels: int) -> Layout | None:
    """The layout that ffprobe names, as ``5.1(side)`` or ``7 channels (FL+FR+LFE+...)``; None where it names none."""
    listed = re.fullmatch(r"\d+ channels \(([A-Z0-9+]+)\)", text)
    if listed is None and text not in _FFMPEG:
        return None
    found = tuple(listed[1].split("+") if listed else _FFMPEG[text].split())
    return found if len(found) == channels else None
