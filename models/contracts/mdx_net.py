"""UVR's MDX-Net files: the table of their parameters, and the spec that follows from an entry.

The parameters are those of TRvlvr/application_data, mdx_model_data/model_data_new.json; which file has which key is
pinned by tests and logs of several public programs. Of UVR's 39 files 16 are known by name only: their keys are among
the entries without one. What is done around the network: UVR's separate.py and python-audio-separator's
mdx_separator.py.
"""

from dataclasses import dataclass, replace

from ortsep.models.contracts.contract import Contract, Found, Port, Unclear, number
from ortsep.models.spec import STFT, Border, Chunks, Derived, Join, ModelSpec, Weights

HOP = 1024
RATE = 44100
OVERLAP = 0.25
"""Of python-audio-separator, and the first of UVR's list; UVR's "Default" is chunk - n_fft."""
ZEROED = 3
"""Bins from DC up that the networks hear as zero."""
COMPENSATE = (0.9, 1.2)
"""What can be meant; all but one of the table's entries are from 1.009 to 1.075."""


@dataclass(frozen=True)
class Entry:
    """What the table says of a file. ``file`` is its name without .onnx, where it is known."""

    file: str
    dim_f: int
    n_fft: int
    dim_t: int
    compensate: float
    primary: str
    karaoke: bool = False


ENTRIES: dict[str, Entry] = {
    "0ddfc0eb5792638ad5dc27850236c246": Entry("UVR_MDXNET_9482", 2048, 6144, 256, 1.035, "Vocals"),
    "26d308f91f3423a67dc69a6d12a8793d": Entry("kuielab_a_other", 2048, 8192, 512, 1.035, "Other"),
    "2f5501189a2f6db6349916fabe8c90de": Entry("UVR_MDXNET_KARA", 2048, 6144, 256, 1.035, "Vocals", True),
    "4910e7827f335048bdac11fa967772f9": Entry("kuielab_b_drums", 2048, 4096, 128, 1.035, "Drums"),
    "5f6483271e1efb9bfb59e4a3e6d4d098": Entry("kuielab_a_vocals", 2048, 6144, 512, 1.035, "Vocals"),
    "65ab5919372a128e4167f5e01a8fda85": Entry("kuielab_b_other", 2048, 8192, 256, 1.035, "Other"),
    "6703e39f36f18aa7855ee1047765621d": Entry("kuielab_a_bass", 2048, 16384, 512, 1.035, "Bass"),
    "6b31de20e84392859a3d09d43f089515": Entry("kuielab_b_vocals", 2048, 6144, 256, 1.035, "Vocals"),
    "a3cd63058945e777505c01d2507daf37": Entry("UVR_MDXNET_1_9703", 2048, 6144, 256, 1.03, "Vocals"),
    "c3b29bdce8c4fa17ec609e16220330ab": Entry("kuielab_b_bass", 2048, 16384, 256, 1.035, "Bass"),
    "d7bff498db9324db933d913388cba6be": Entry("UVR_MDXNET_3_9662", 2048, 6144, 256, 1.035, "Vocals"),
    "d94058f8c7f1fae4164868ae8ae66b20": Entry("UVR_MDXNET_2_9682", 2048, 6144, 256, 1.035, "Vocals"),
    "dc41ede5961d50f277eb846db17f5319": Entry("kuielab_a_drums", 2048, 4096, 512, 1.035, "Drums"),
    "73492b58195c3b52d34590d5474452f6": Entry("Kim_Vocal_1", 3072, 7680, 256, 1.043, "Vocals"),
    "970b3f9492014d18fefeedfe4773cb42": Entry("Kim_Vocal_2", 3072, 7680, 256, 1.009, "Vocals"),
    "1d64a6d2c30f709b8c9b4ce1366d96ee": Entry("UVR_MDXNET_KARA_2", 2048, 5120, 256, 1.065, "Instrumental", True),
    "cd5b2989ad863f116c855db1dfe24e39": Entry("Reverb_HQ_By_FoxJoy", 3072, 6144, 512, 1.035, "Reverb"),
    "55657dd70583b0fedfba5f67df11d711": Entry("UVR-MDX-NET-Inst_HQ_3", 3072, 6144, 256, 1.022, "Instrumental"),
    "b6bccda408a436db8500083ef3491e8b": Entry("Kim_Inst", 3072, 7680, 256, 1.02, "Instrumental"),
    "77d07b2667ddf05b9e3175941b4454a0": Entry("UVR-MDX-NET-Voc_FT", 3072, 7680, 256, 1.021, "Vocals"),
    "0f2a6bc5b49d87d64728ee40e23bceb1": Entry("UVR-MDX-NET-Inst_HQ_4", 2560, 5120, 256, 1.019, "Instrumental"),
    "cb790d0c913647ced70fc6b38f5bea1a": Entry("UVR-MDX-NET-Inst_HQ_5", 2560, 5120, 256, 1.01, "Instrumental"),
    "b02be2d198d4968a121030cf8950b492": Entry("UVR-MDX-NET_Crowd_HQ_1", 2560, 5120, 256, 1.02, "No Crowd"),
    "2cdd429caac38f0194b133884160f2c6": Entry("", 3072, 7680, 256, 1.045, "Instrumental"),
    "398580b6d5d973af3120df54cee6759d": Entry("", 3072, 7680, 256, 1.75, "Vocals"),
    "488b3e6f8bd3717d9d7c428476be2d75": Entry("", 3072, 7680, 256, 1.035, "Instrumental"),
    "53c4baf4d12c3e6c3831bb8f5b532b93": Entry("", 3072, 7680, 256, 1.043, "Vocals"),
    "5d343409ef0df48c7d78cce9f0106781": Entry("", 3072, 7680, 256, 1.075, "Vocals"),
    "867595e9de46f6ab699008295df62798": Entry("", 3072, 7680, 256, 1.03, "Vocals"),
    "b33d9b3950b6cbf5fe90a32608924700": Entry("", 3072, 7680, 256, 1.03, "Vocals"),
    "ceed671467c1f64ebdfac8a2490d0d52": Entry("", 3072, 7680, 256, 1.035, "Instrumental"),
    "d2a1376f310e4f7fa37fb9b5774eb701": Entry("", 3072, 7680, 256, 1.035, "Instrumental"),
    "e5572e58abf111f80d8241d2e44e7fa4": Entry("", 3072, 7680, 256, 1.028, "Instrumental"),
    "e7324c873b1f615c35c1967f912db92a": Entry("", 3072, 7680, 256, 1.03, "Vocals"),
    "1c56ec0224f1d559c42fd6fd2a67b154": Entry("", 2048, 5120, 256, 1.025, "Instrumental"),
    "f2df6d6863d8f435436d8b561594ff49": Entry("", 3072, 7680, 256, 1.035, "Instrumental"),
    "b06327a00d5e5fbc7d96e1781bbdb596": Entry("", 3072, 6144, 256, 1.035, "Instrumental"),
    "94ff780b977d3ca07c7a343dab2e25dd": Entry("", 3072, 6144, 256, 1.039, "Instrumental"),
    "203f2a3955221b64df85a41af87cf8f0": Entry("", 3072, 6144, 256, 1.035, "Instrumental"),
    "291c2049608edb52648b96e27eb80e95": Entry("", 3072, 6144, 256, 1.035, "Instrumental"),
    "ead8d05dab12ec571d67549b3aab03fc": Entry("", 3072, 6144, 256, 1.035, "Instrumental"),
    "cc63408db3d80b4d85b0287d1d7c9632": Entry("", 3072, 6144, 256, 1.033, "Instrumental"),
    "8a88db95c7fb5dbe6a095ff2ffb428b1": Entry("", 2048, 5120, 256, 1.026, "Instrumental"),
    "b78da4afc6512f98e4756f5977f5c6b9": Entry("", 3072, 7680, 256, 1.021, "Instrumental"),
}
"""By the MD5 of the last 10,240,000 bytes of the file (all of it if it is smaller)."""

FILES = (
    "UVR-MDX-NET-Inst_HQ_1",
    "UVR-MDX-NET-Inst_HQ_2",
    "UVR-MDX-NET-Inst_HQ_3",
    "UVR-MDX-NET-Inst_HQ_4",
    "UVR-MDX-NET-Inst_HQ_5",
    "UVR_MDXNET_Main",
    "UVR-MDX-NET-Inst_Main",
    "UVR_MDXNET_1_9703",
    "UVR_MDXNET_2_9682",
    "UVR_MDXNET_3_9662",
    "UVR-MDX-NET-Inst_1",
    "UVR-MDX-NET-Inst_2",
    "UVR-MDX-NET-Inst_3",
    "UVR_MDXNET_KARA",
    "UVR_MDXNET_KARA_2",
    "UVR_MDXNET_9482",
    "UVR-MDX-NET-Voc_FT",
    "Kim_Vocal_1",
    "Kim_Vocal_2",
    "Kim_Inst",
    "Reverb_HQ_By_FoxJoy",
    "UVR-MDX-NET_Crowd_HQ_1",
    "kuielab_a_vocals",
    "kuielab_a_other",
    "kuielab_a_bass",
    "kuielab_a_drums",
    "kuielab_b_vocals",
    "kuielab_b_other",
    "kuielab_b_bass",
    "kuielab_b_drums",
    "UVR-MDX-NET_Main_340",
    "UVR-MDX-NET_Main_390",
    "UVR-MDX-NET_Main_406",
    "UVR-MDX-NET_Main_427",
    "UVR-MDX-NET_Main_438",
    "UVR-MDX-NET_Inst_82_beta",
    "UVR-MDX-NET_Inst_90_beta",
    "UVR-MDX-NET_Inst_187_beta",
    "UVR-MDX-NET-Inst_full_292",
)
"""All of UVR's MDX-Net files, without .onnx; from the ninth-last on those for its patrons."""

SIZES: dict[int, tuple[int, ...]] = {
    dim_f: tuple(sorted({e.n_fft for e in ENTRIES.values() if e.dim_f == dim_f}))
    for dim_f in sorted({e.dim_f for e in ENTRIES.values()})
}
"""The n_fft that occur with each dim_f: no dim_f says its n_fft."""

_OPPOSITE = {"vocals": "instrumental", "instrumental": "vocals"}


def stem_names(primary: str) -> tuple[str, str]:
    """The stem that a network gives, as ortsep writes it, and what is left: ``Vocals``, ``No Crowd``, ``Reverb``."""
    first = primary.strip().lower().replace(" ", "_").replace("-", "_")
    rest = first.removeprefix("no_") if first.startswith("no_") else f"no_{first}"
    return first, _OPPOSITE.get(first, rest)


def mdx_spec(entry: Entry, name: str) -> ModelSpec:
    """The spec of a network of UVR's: trim, zeroed bins, Hann join, ``compensate`` on the stem, the rest mix - stem."""
    primary, rest = stem_names(entry.primary)
    trim, length = entry.n_fft // 2, HOP * (entry.dim_t - 1)
    notes = ("karaoke: the backing vocals stay with the instrumental",) if entry.karaoke else ()
    return ModelSpec(
        name=name,
        family="mdx_net",
        stems=(primary,),
        sample_rate=RATE,
        channels=2,
        domain="complex",
        output="stem_spectra",
        stft=STFT(entry.n_fft, HOP, entry.dim_f, pad_left=trim, pad_right=trim, zero_before=ZEROED),
        chunks=Chunks(
            length,
            overlap=OVERLAP,
            join=Join("hann"),
            border=Border(before=trim, after=trim, multiple=length - 2 * trim),
            tail="zeros",
        ),
        gains=(entry.compensate,),
        derived=(Derived(rest, (primary,)),),
        bandwidth=entry.dim_f * RATE / entry.n_fft if 2 * entry.dim_f < entry.n_fft else None,
        notes=notes,
    )


def find_entry(found: Found) -> tuple[Entry, str]:
    """The parameters of a file, and how they were found: by its key, by its name, by what is set. Raises Unclear."""
    file, settings = found.file, found.wishes.settings
    entry = ENTRIES.get(file.key)
    how = f"found in UVR's table by the key {file.key}"
    if entry is None:
        entry = next((e for e in ENTRIES.values() if e.file.lower() == file.stem.lower()), None)
        how = f"found in UVR's table by the name {file.stem}, since the file was saved anew (key {file.key})"
    if entry is None and not {"n_fft", "primary", "compensate"} <= settings.keys():
        raise Unclear(_unknown(found))
    base = entry or Entry("", found.sizes["f"], 0, 256, 1.0, "")
    changed = replace(
        base,
        n_fft=int(number(found, "n_fft", 2, 1 << 16) or base.n_fft),
        compensate=number(found, "compensate", *COMPENSATE) or base.compensate,
        primary=settings.get("primary", base.primary),
        dim_t=found.sizes.get("t") or int(number(found, "dim_t", 2, 1 << 14) or base.dim_t),
    )
    _check(changed, base, found)
    return changed, how if entry else "as set"


def _check(entry: Entry, base: Entry, found: Found) -> None:
    if entry.dim_f != found.sizes["f"]:
        raise Unclear(
            f"the table gives {base.file or found.file.key} {entry.dim_f} bins and the graph has {found.sizes['f']}; "
            "it is another model of that name: rename it, and --set its n_fft, compensate and primary"
        )
    if entry.n_fft % 2 or entry.n_fft // 2 + 1 < entry.dim_f:
        raise Unclear(f"an n_fft of {entry.n_fft} has no {entry.dim_f} bins; set another")
    if entry.n_fft >= HOP * (entry.dim_t - 1):
        raise Unclear(f"an n_fft of {entry.n_fft} does not fit into {entry.dim_t} frames; set another")
    if not COMPENSATE[0] <= entry.compensate <= COMPENSATE[1]:
        raise Unclear(
            f"UVR's table gives it compensate {entry.compensate}, which can't be meant: give "
            f"--set compensate=... from {COMPENSATE[0]} to {COMPENSATE[1]} (perhaps 1.075)"
        )
    if not entry.primary.strip():
        raise Unclear("it isn't said which stem it gives; add --set primary=Vocals, or another")


def _unknown(found: Found) -> str:
    dim_f, file = found.sizes["f"], found.file
    known = SIZES.get(dim_f)
    candidates = (
        f"with {dim_f} bins n_fft is one of {', '.join(map(str, known))}"
        if known
        else f"no MDX-Net has {dim_f} bins: they have {', '.join(map(str, SIZES))}"
    )
    return (
        f"its key {file.key} and its name {file.stem} are in no table, and the graph doesn't say its n_fft, its stem "
        f"and its gain: {candidates}; "
        f"give --set n_fft=... --set primary=Vocals (or another) --set compensate=... (1 if unknown)"
    )


def describe(found: Found) -> ModelSpec:
    entry, how = find_entry(found)
    spec = mdx_spec(entry, found.file.stem)
    weights = Weights(source=found.file.name, licence="unstated")
    return replace(spec, tensors=found.tensors, weights=weights, notes=(*spec.notes, f"parameters {how}"))


MDX_NET = Contract(
    name="mdx-net",
    title="UVR's MDX-Net",
    inputs=(Port("spectrum", "b cr f t", ("input",)),),
    outputs=(Port("stem_spectra", "b cr f t"),),
    describe=describe,
    settings=("n_fft", "primary", "compensate", "dim_t"),
)
