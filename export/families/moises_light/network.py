"""The Moises-Light network in torch, both generations from the one package that is installed (0.1.5 or later).

The differences of 0.1.0 to 0.1.3 are put into the newer class: kernels over bins only, each transformer inside another
residual with the bins first, no norm after the blocks, a last convolution with BatchNorm and ReLU, a head always.
"""

from typing import Any

import numpy as np
import torch
from torch import nn

from ortsep.base.errors import MissingDependency
from ortsep.export.families.moises_light.architecture import Architecture, State


class LegacyBlock(nn.Module):
    """DualPathRoPEBlock of 0.1.0 to 0.1.3 with the transformers of a newer one, on [B, C, F, T]."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.freq_transformer = block.freq_transformer
        self.time_transformer = block.time_transformer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.permute(0, 3, 2, 1)  # [B, T, F, C]
        tokens = tokens + self.freq_transformer(tokens.flatten(0, 1)).reshape(tokens.shape)
        tokens = tokens.transpose(1, 2)  # [B, F, T, C]
        tokens = tokens + self.time_transformer(tokens.flatten(0, 1)).reshape(tokens.shape)
        return tokens.permute(0, 3, 1, 2)


def build_network(arch: Architecture) -> Any:
    """A fresh ``moises_light.MoisesLight`` in evaluation; a legacy one has its parameter names and its mathematics."""
    try:
        from moises_light import MoisesLight
        from moises_light.modules import SplitModule
    except ImportError as error:
        raise MissingDependency("the package moises-light is missing; pip install ortsep[export]") from error
    network = MoisesLight(**arch.constructor())
    if not arch.new:
        for module in list(network.modules()):
            if isinstance(module, SplitModule) and module is not network.first_conv:
                old = module.conv
                module.conv = nn.Conv2d(old.in_channels, old.out_channels, (3, 1), padding=(1, 0), groups=old.groups)
        blocks = network.bottleneck.rope_blocks
        network.bottleneck.rope_blocks = nn.ModuleList([LegacyBlock(block) for block in blocks])
        network.bottleneck.final_norm = nn.Identity()
        c = 2 * arch.audio_channels
        network.final_conv = SplitModule(arch.G, c * arch.n_bands, arch.n_bands, nn.BatchNorm2d, nn.ReLU)
        network.source_head = nn.Conv2d(c, len(arch.sources) * c, 1)
    return network.eval()


def load_network(arch: Architecture, state: State) -> Any:
    """The network with a checkpoint's parameters, float32."""
    network = build_network(arch)
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in state.items()}
    missing, surplus = network.load_state_dict(tensors, strict=False)
    own = [n for n in missing if n not in ("stft_window", "freq_pad") and not n.endswith("num_batches_tracked")]
    assert not own and not surplus, f"{own} {surplus}"
    return network


def masks(network: Any, x: torch.Tensor) -> torch.Tensor:
    """What ``MoisesLight.forward`` does between z-score and mask: [B, 2C, F, T] to [B, S, 2C, F, T]."""
    batch, channels, bins, frames = x.shape
    x = network.first_conv(network._band_split(x))
    skips = []
    for block, down in zip(network.encoder_blocks, network.ds, strict=True):
        skips.append(block(x))
        x = down(skips[-1])
    x = network.bottleneck(x)
    for up, block in zip(network.dec_heavy_us, network.dec_heavy_blocks, strict=True):
        x = block(up(x) * skips.pop())
    for up in network.dec_light_us:
        x = up(x) * skips.pop()
    x = network._band_merge(network.final_conv(x))
    if network.source_head is not None:
        x = network.source_head(x)
    return x.reshape(batch, -1, channels, bins, frames)
