"""UVR's VR networks: the layouts of their bands, the table of their parameters, and the spec that follows.

Layouts: the json files of python-audio-separator 0.47.1 (uvr_lib_v5/vr_network/modelparams) and UVR (lib_v5), where
``mid_side_b`` and ``stereo_w`` are set in some and read by nobody. Parameters: TRvlvr/application_data,
vr_model_data/model_data_new.json, and two entries of python-audio-separator's own. What is done around the networks:
python-audio-separator's vr_separator.py and UVR's separate.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ortsep.models.bands import Band, Bands, Channels
from ortsep.models.contracts.contract import Unclear
from ortsep.models.contracts.mdx_net import stem_names
from ortsep.models.spec import ModelSpec

Edition = Literal["5", "5.1"]
CONTEXT: Mapping[str, int] = {"5": 128, "5.1": 64}
"""Frames at both ends of a window of which a network gives nothing."""


@dataclass(frozen=True)
class Layout:
    """The bands of a json, without what depends on the network's edition."""

    bands: tuple[Band, ...]
    bins: int
    prefilter: tuple[int, ...]
    waves: Channels = "left_right"
    """What old networks hear in place of left and right, in all bands."""
    spectra: tuple[Channels, ...] = ()
    """What networks of 5.1 hear, band by band; empty for left and right in all."""


_V2 = (
    Band(7350, 80, 640, 0, 85, fall=(25, 53)),
    Band(7350, 80, 320, 4, 87, rise=(25, 12), fall=(31, 62)),
    Band(14700, 160, 512, 17, 216, rise=(48, 24), fall=(139, 210)),
    Band(44100, 480, 960, 78, 383, rise=(130, 86)),
)
_V4 = (
    Band(7350, 96, 768, 0, 102, fall=(30, 62)),
    Band(7350, 96, 384, 5, 104, rise=(30, 14), fall=(37, 73)),
    Band(14700, 192, 640, 20, 259, rise=(58, 29), fall=(191, 262)),
    Band(44100, 576, 1152, 119, 575, rise=(157, 110)),
)
_FOUR = (
    Band(11025, 128, 1024, 0, 186, fall=(37, 73)),
    Band(11025, 128, 512, 4, 185, rise=(36, 18), fall=(93, 185)),
    Band(22050, 256, 512, 46, 186, rise=(93, 46), fall=(164, 186)),
    Band(44100, 512, 768, 121, 382, rise=(138, 123)),
)
_THREE = (
    Band(11025, 128, 768, 0, 278, fall=(28, 140)),
    Band(22050, 256, 768, 14, 322, rise=(70, 14), fall=(283, 314)),
    Band(44100, 512, 768, 131, 313, rise=(154, 141)),
)
_MSB2 = (
    Band(11025, 108, 1024, 0, 187, fall=(92, 186)),
    Band(22050, 216, 768, 0, 212, rise=(68, 34), fall=(174, 209)),
    Band(44100, 432, 640, 66, 307, rise=(86, 72)),
)
_TWO_32 = (Band(6000, 66, 512, 0, 240, fall=(60, 118)), Band(32000, 352, 1024, 22, 505, rise=(44, 23)))
_TWO_48 = (Band(6000, 66, 512, 0, 240, fall=(60, 240)), Band(48000, 528, 1536, 22, 505, rise=(82, 22)))
_LOFI = (Band(11025, 160, 768, 0, 192, fall=(41, 139)), Band(44100, 640, 1024, 10, 320, rise=(47, 15)))
_NORMAL: tuple[Channels, ...] = ("left_right", "left_right", "left_right", "stereo_n")


def _one(rate: int, hop: int, n_fft: int = 2048, prefilter: tuple[int, int] = (1023, 1024)) -> Layout:
    return Layout((Band(rate, hop, n_fft, 0, n_fft // 2),), n_fft // 2, prefilter)


LAYOUTS: Mapping[str, Layout] = {
    "1band_sr16000_hl512": _one(16000, 512),
    "1band_sr32000_hl512": _one(32000, 512, prefilter=(1000, 1021)),
    "1band_sr33075_hl384": _one(33075, 384, prefilter=(1000, 1021)),
    "1band_sr44100_hl1024": _one(44100, 1024),
    "1band_sr44100_hl256": _one(44100, 256, 512, (256, 256)),
    "1band_sr44100_hl512": _one(44100, 512),
    "1band_sr44100_hl512_nf1024": _one(44100, 512, 1024, (511, 512)),
    "2band_32000": Layout(_TWO_32, 768, (710, 731)),
    "2band_44100_lofi": Layout(_LOFI, 512, (510, 512)),
    "2band_48000": Layout(_TWO_48, 768, (710, 731)),
    "3band_44100": Layout(_THREE, 768, (757, 768)),
    "3band_44100_mid": Layout(_THREE, 768, (757, 768), "mid_side"),
    "3band_44100_msb2": Layout(_MSB2, 640, (639, 640), "mid_side_b2"),
    "4band_44100": Layout(_FOUR, 768, (740, 768)),
    "4band_44100_mid": Layout(_FOUR, 768, (740, 768), "mid_side"),
    "4band_44100_msb": Layout(_FOUR, 768, (740, 768)),
    "4band_44100_msb2": Layout(_FOUR, 768, (740, 768)),
    "4band_44100_sw": Layout(_FOUR, 768, (740, 768)),
    "4band_v2": Layout(_V2, 672, (668, 672)),
    "4band_v2_sn": Layout(_V2, 672, (668, 672), spectra=_NORMAL),
    "4band_v3": Layout(_V2, 672, (668, 672)),
    "4band_v3_sn": Layout(_V2, 672, (668, 672), spectra=_NORMAL),
    "4band_v4_ms_fullband": Layout(_V4, 896, (), spectra=("mid_side",) * 4),
}
"""By UVR's name."""
LOST: Mapping[str, tuple[float, float]] = {
    "1band_sr16000_hl512": (8.2, 8.2),
    "1band_sr32000_hl512": (12.8, 12.8),
    "1band_sr33075_hl384": (13.2, 13.2),
    "1band_sr44100_hl1024": (37.3, 37.3),
    "1band_sr44100_hl256": (37.8, 37.8),
    "1band_sr44100_hl512": (37.5, 37.5),
    "1band_sr44100_hl512_nf1024": (34.4, 34.4),
    "2band_32000": (12.8, 12.8),
    "2band_44100_lofi": (11.7, 11.7),
    "2band_48000": (12.9, 13.1),
    "3band_44100": (14.8, 15.0),
    "3band_44100_mid": (14.8, 15.0),
    "3band_44100_msb2": (22.0, 21.7),
    **dict.fromkeys(("4band_44100", "4band_44100_mid", "4band_44100_msb"), (19.9, 23.1)),
    **dict.fromkeys(("4band_44100_msb2", "4band_44100_sw"), (19.9, 23.1)),
    **dict.fromkeys(("4band_v2", "4band_v2_sn", "4band_v3", "4band_v3_sn"), (14.8, 14.8)),
    "4band_v4_ms_fullband": (32.5, 32.5),
}
"""dB of pink noise at 44.1 kHz that comes back through a mask of one, for old networks and for those of 5.1."""
BACKWARDS = "4band_44100_reverse"
"""UVR's layout that hears songs from their end, which a stream can't; no file that UVR lists has it."""


@dataclass(frozen=True)
class Entry:
    """What the table says of a file. ``file`` is its name without .pth, where it is known."""

    file: str
    layout: str
    primary: str


ENTRIES: Mapping[str, Entry] = {
    "0d0e6d143046b0eecc41a22e60224582": Entry("", "3band_44100_mid", "Instrumental"),
    "18b52f873021a0af556fb4ecd552bb8e": Entry("", "2band_32000", "Instrumental"),
    "1fc66027c82b499c7d8f55f79e64cadc": Entry("", "2band_32000", "Instrumental"),
    "2aa34fbc01f8e6d2bf509726481e7142": Entry("", "4band_44100", "No Piano"),
    "3e18f639b11abea7361db1a4a91c2559": Entry("", "4band_44100", "Instrumental"),
    "570b5f50054609a17741369a35007ddd": Entry("", "4band_v3", "Instrumental"),
    "5a6e24c1b530f2dab045a522ef89b751": Entry("MGM_MAIN_v4", "1band_sr44100_hl512", "Instrumental"),
    "6b5916069a49be3fe29d4397ecfd73fa": Entry("6_HP-Karaoke-UVR", "3band_44100_msb2", "Instrumental"),
    "74b3bc5fa2b69f29baf7839b858bc679": Entry("", "4band_44100", "Instrumental"),
    "827213b316df36b52a1f3d04fec89369": Entry("", "4band_44100", "Instrumental"),
    "911d4048eee7223eca4ee0efb7d29256": Entry("", "4band_44100", "Vocals"),
    "941f3f7f0b0341f12087aacdfef644b1": Entry("2_HP-UVR", "4band_v2", "Instrumental"),
    "a02827cf69d75781a35c0e8a327f3195": Entry("MGM_LOWEND_B_v4", "1band_sr33075_hl384", "Instrumental"),
    "b165fbff113c959dba5303b74c6484bc": Entry("12_SP-UVR-3B-44100", "3band_44100", "Instrumental"),
    "b5f988cd3e891dca7253bf5f0f3427c7": Entry("", "4band_44100", "Instrumental"),
    "b99c35723bc35cb11ed14a4780006a80": Entry("MGM_HIGHEND_v4", "1band_sr44100_hl1024", "Instrumental"),
    "ba02fd25b71d620eebbdb49e18e4c336": Entry("", "3band_44100_mid", "Instrumental"),
    "c4476ef424d8cba65f38d8d04e8514e2": Entry("7_HP2-UVR", "3band_44100_msb2", "Instrumental"),
    "da2d37b8be2972e550a409bae08335aa": Entry("", "4band_44100", "Vocals"),
    "db57205d3133e39df8e050b435a78c80": Entry("", "4band_44100", "Instrumental"),
    "ea83b08e32ec2303456fe50659035f69": Entry("", "4band_v3", "Instrumental"),
    "f6ea8473ff86017b5ebd586ccacf156b": Entry("5_HP-Karaoke-UVR", "4band_v2_sn", "Instrumental"),
    "fd297a61eafc9d829033f8b987c39a3d": Entry("MGM_LOWEND_A_v4", "1band_sr32000_hl512", "Instrumental"),
    "0ec76fd9e65f81d8b4fbd13af4826ed8": Entry("17_HP-Wind_Inst-UVR", "4band_v3", "No Woodwinds"),
    "0fb9249ffe4ffc38d7b16243f394c0ff": Entry("UVR-DeEcho-DeReverb", "4band_v3", "No Reverb"),
    "6857b2972e1754913aad0c9a1678c753": Entry("UVR-De-Echo-Aggressive", "4band_v3", "No Echo"),
    "f200a145434efc7dcf0cd093f517ed52": Entry("UVR-De-Echo-Normal", "4band_v3", "No Echo"),
    "44c55d8b5d2e3edea98c2b2bf93071c7": Entry("UVR-DeNoise", "4band_v3", "Noise"),
    "51ea8c43a6928ed3c10ef5cb2707d57b": Entry("UVR-DeNoise-Lite", "1band_sr44100_hl1024", "Noise"),
    "97dc361a7a88b2c4542f68364b32c7f6": Entry("UVR-De-Reverb-aufr33-jarredou", "4band_v4_ms_fullband", "Dry"),
    "581f4461b8d8c7e43af546eebd3b6a2a": Entry("UVR-BVE-4B_SN-44100-2", "4band_v4_ms_fullband", "Vocals"),
}
"""By the MD5 of the last 10,240,000 bytes of the file (all of it if it is smaller). The table's last edition calls the
stem of UVR-De-Echo-Aggressive Echo; the lists of three programs that run it, and its older editions, No Echo."""

TAKEN_OUT = frozenset(
    ("vocals", "other", "bass", "drums", "guitar", "piano", "synthesizer", "strings", "woodwinds", "brass", "wind_inst")
)
"""The primary stems for which UVR turns the aggression round."""


def find_entry(key: str, named: Entry | None, settings: Mapping[str, str], layouts: Sequence[str]) -> tuple[Entry, str]:
    """The bands and the stem of a file with this ``key``, and how they were found: by it, by its name, by what is set.

    ``layouts`` are those that its parameters allow. Raises Unclear.
    """
    entry = ENTRIES.get(key)
    how = f"found in UVR's table by the key {key}"
    if entry is None and named is not None:
        entry, how = named, f"found by the name {named.file} (key {key})"
    if entry is None and not {"model_param", "primary"} <= settings.keys():
        raise Unclear(
            f"its key {key} and its name are in no table, and it says itself neither its bands nor its stem: give "
            f"--set model_param=... and --set primary=Vocals (or another); the layouts are {', '.join(layouts)}"
        )
    layout = settings.get("model_param", entry.layout if entry else "")
    primary = settings.get("primary", entry.primary if entry else "")
    if layout == BACKWARDS:
        raise Unclear(f"{BACKWARDS} hears songs from their end, which a stream can't; take another model")
    if layout not in LAYOUTS:
        raise Unclear(f"there is no layout {layout}; the layouts are {', '.join(layouts)}")
    if not primary.strip():
        raise Unclear("it isn't said which stem its mask is for; add --set primary=Vocals, or another")
    found = Entry(entry.file if entry else "", layout, primary)
    return found, how if found == entry else "as set"


def vr_spec(entry: Entry, edition: Edition, name: str, *, multiple: int = 16) -> ModelSpec:
    """The spec of a network of UVR's: one mask, for the primary stem and what it leaves for the other one."""
    layout = LAYOUTS[entry.layout]
    primary, rest = stem_names(entry.primary)
    plain = tuple(band.channels for band in layout.bands)
    waves = tuple(layout.waves for _ in layout.bands)
    heard = (layout.spectra or plain) if edition == "5.1" else waves
    bands = Bands(
        layout=entry.layout,
        bands=tuple(replace(band, channels=channels) for band, channels in zip(layout.bands, heard, strict=True)),
        bins=layout.bins,
        prefilter=layout.prefilter,
        steep=edition == "5" and len(layout.bands) > 1,
        context=CONTEXT[edition],
        multiple=multiple,
        inverted=primary in TAKEN_OUT,
    )
    figure = LOST[entry.layout][edition == "5.1"]
    note = (
        f"the bands of {entry.layout} don't give a song back whole ({figure:.1f} dB of pink noise through a mask of "
        "one): --residual is what the stems leave"
    )
    return ModelSpec(
        name=name,
        family="vr",
        stems=(primary, rest),
        sample_rate=bands.rate,
        channels=2,
        domain="bands",
        output="masks",
        bands=bands,
        notes=(note,),
    )
