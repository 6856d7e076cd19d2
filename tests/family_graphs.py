"""A small network of every family as a graph, with noise that it hears: for tests of what runs graphs.

Random weights. Where ``portable`` makes a difference, the graph is made of operators of the ONNX standard only.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import onnx
from demucs.demucs import Demucs
from demucs.hdemucs import HDemucs
from demucs.htdemucs import HTDemucs
from roformer_cases import CASES

from ortsep.export.families.demucs.hdemucs import hdemucs_graph
from ortsep.export.families.demucs.htdemucs import htdemucs_graph
from ortsep.export.families.demucs.time import demucs_v3_graph
from ortsep.export.families.drums_mini.graph import DrumsMini
from ortsep.export.families.drums_mini.graph import build_graph as drums_mini_graph
from ortsep.export.families.larsnet.graph import UNet
from ortsep.export.families.larsnet.graph import build_graph as larsnet_graph
from ortsep.export.families.mdx23c import architecture as mdx23c_architecture
from ortsep.export.families.mdx23c.graph import build_graph as mdx23c_graph
from ortsep.export.families.mdx_net.graph import build_graph as mdx_net_graph
from ortsep.export.families.mdx_net.network import ConvTDFNet
from ortsep.export.families.mdx_net.network import Shape as MdxNetShape
from ortsep.export.families.moises_light import architecture as moises_architecture
from ortsep.export.families.moises_light.graph import build_graph as moises_graph
from ortsep.export.families.open_unmix.graph import Shape, random_network
from ortsep.export.families.open_unmix.graph import build_graph as open_unmix_graph
from ortsep.export.families.roformer.architecture import random_state as roformer_state
from ortsep.export.families.roformer.graph import build_graph as roformer_graph
from ortsep.export.families.scnet import architecture as scnet_architecture
from ortsep.export.families.scnet.graph import build_graph as scnet_graph
from ortsep.export.families.spleeter.graph import spleeter_graph
from ortsep.export.families.spleeter.weights import Architecture as SpleeterArchitecture
from ortsep.export.families.spleeter.weights import networks, random_variables
from ortsep.export.families.vr.architecture import Architecture as VrArchitecture
from ortsep.export.families.vr.graph import build_graph as vr_graph
from ortsep.export.families.vr.network import made_network
from ortsep.export.weights.random_weights import randomise

STEMS = ["drums", "bass", "other"]


class Small(NamedTuple):
    """A graph and what it is fed."""

    model: onnx.ModelProto
    feeds: dict[str, np.ndarray]


def noise(*shape: int) -> np.ndarray:
    return (np.random.default_rng(3).standard_normal(shape) * 0.3).astype(np.float32)


def loud(*shape: int) -> np.ndarray:
    return np.abs(noise(*shape))


def built(network: Any) -> Any:
    randomise(network, 1)
    return network.eval()


def htdemucs(portable: bool) -> Small:
    network = built(HTDemucs(STEMS, channels=8, dconv_mode=3, t_layers=3, t_heads=4, bottom_channels=32, segment=1))
    return Small(
        htdemucs_graph(network, portable=portable), {"mix": noise(1, 2, 44100), "spectrum": noise(1, 4, 2048, 44)}
    )


def hdemucs(_: bool) -> Small:
    network = built(HDemucs(STEMS, channels=8, nfft=1024, depth=4, norm_starts=3, cac=True))
    feeds = {"mix": noise(1, 2, 256 * 64), "spectrum": noise(1, 4, 512, 64)}
    return Small(hdemucs_graph(network, samples=256 * 64), feeds)


def demucs(_: bool) -> Small:
    network = built(Demucs(STEMS, channels=8, depth=4, norm_starts=2, lstm_layers=1))
    samples = network.valid_length(6000)
    return Small(demucs_v3_graph(network, samples=samples), {"mix": noise(1, 2, samples)})


def open_unmix(_: bool) -> Small:
    network = random_network(Shape(bins=129, heard=93, channels=2, hidden=32), 5)
    return Small(open_unmix_graph(network, "small"), {"magnitude": loud(1, 2, 129, 24)})


def larsnet(_: bool) -> Small:
    return Small(larsnet_graph(built(UNet(128)), 64, "small"), {"magnitude": loud(1, 2, 128, 64)})


def moises_light(portable: bool) -> Small:
    sizes = {"n_fft": 256, "hop_size": 64, "freq_dim": 96, "n_bands": 3, "G": 6, "n_enc": 2, "n_dec": 1}
    arch = moises_architecture.Architecture(**sizes, n_split_enc=2, n_rope=2, dim_head=8, heads=2)
    state = moises_architecture.random_state(arch, 0)
    return Small(moises_graph(arch, state, portable=portable), {"spectrum": noise(1, 4, 96, 12)})


def spleeter(_: bool) -> Small:
    (net,) = networks(random_variables(1, 2), 1)
    arch = SpleeterArchitecture(128, "ELU", "ELU", softmax=False)
    return Small(spleeter_graph("one", [net], arch).model(), {"magnitude": loud(1, 2, 128, 512)})


def drums_mini(_: bool) -> Small:
    return Small(drums_mini_graph(built(DrumsMini()), "small"), {"magnitude": loud(1, 2, 1025, 24) * 30})


def bs_roformer(portable: bool) -> Small:
    return _roformer("bs", portable)


def mel_roformer(portable: bool) -> Small:
    return _roformer("mel", portable)


def _roformer(name: str, portable: bool) -> Small:
    arch = CASES[name]
    graph = roformer_graph(arch, roformer_state(arch, 0), portable=portable)
    return Small(graph, {"spectrum": noise(1, 2 * arch.channels, arch.bins, 21)})


def mdx23c(_: bool) -> Small:
    sizes = {"outputs": 2, "num_channels": 12, "growth": 12, "num_subbands": 2, "num_scales": 2}
    arch = mdx23c_architecture.Architecture(**sizes, n_fft=256, hop=64, dim_f=128, frames=16)
    return Small(mdx23c_graph(arch, mdx23c_architecture.random_state(arch, 0)), {"spectrum": noise(1, 4, 128, 16)})


def scnet(_: bool) -> Small:
    sizes = {"sources": 2, "dims": (4, 8, 16, 24), "num_dplayer": 2, "nfft": 512, "hop_size": 128}
    arch = scnet_architecture.Architecture(**sizes, chunk=128 * 20)
    graph = scnet_graph(arch, scnet_architecture.random_state(arch, 0))
    return Small(graph, {"spectrum": noise(1, 4, arch.bins, arch.frames)})


def mdx_net(_: bool) -> Small:
    shape = MdxNetShape(dim_f=128, growth=8, levels=2, layers=2, kernel=3, bottleneck=8, bias=False, batch_norm=True)
    return Small(mdx_net_graph(built(ConvTDFNet(shape)), 16, "mdx"), {"spectrum": noise(1, 4, 128, 16)})


def vr(_: bool) -> Small:
    arch = VrArchitecture("5.1", 8, 672, 5, 4, 16)
    network = built(made_network(arch))
    state = {name: value.numpy() for name, value in network.state_dict().items()}
    return Small(vr_graph(arch, state), {"magnitude": loud(1, 2, 672, 272)})


FAMILIES: dict[str, Callable[[bool], Small]] = {
    each.__name__: each
    for each in (
        htdemucs, hdemucs, demucs, open_unmix, larsnet, moises_light, spleeter, drums_mini, bs_roformer, mel_roformer,
        mdx23c, scnet, mdx_net, vr,
    )
}  # fmt: skip
