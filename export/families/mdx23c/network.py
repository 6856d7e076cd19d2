"""The MDX23C network in torch, in any precision: what the exported graph is compared with, and timed against.

The operations are those of MSST's ``TFC_TDF_net`` between its two transforms, one for one.
"""

import torch
from torch.nn import functional as nn

from ortsep.export.families.mdx23c.architecture import EPS, Architecture, State


class Network:
    """A network with its parameters, to be called."""

    def __init__(self, arch: Architecture, state: State, dtype: torch.dtype = torch.float32) -> None:
        self.arch = arch
        self.state = {name: torch.from_numpy(array).to(dtype) for name, array in state.items()}

    def __call__(self, spectrum: torch.Tensor) -> torch.Tensor:
        """``spectrum`` [B, 2C, F, T] to ``stem_spectra`` [B, S, 2C, F, T]."""
        a, (batch, _, bins, frames) = self.arch, spectrum.shape
        mix = spectrum.reshape(batch, a.inputs, a.band, frames)
        first = x = nn.conv2d(mix, self.state["first_conv.weight"])
        x = x.transpose(-1, -2)
        skips = []
        for i in range(a.num_scales):
            x = self._blocks(x, f"encoder_blocks.{i}.tfc_tdf")
            skips.append(x)
            x = self._act(self._norm(x, f"encoder_blocks.{i}.downscale.conv.0"))
            x = nn.conv2d(x, self.state[f"encoder_blocks.{i}.downscale.conv.2.weight"], stride=a.scale)
        x = self._blocks(x, "bottleneck_block")
        for i in range(a.num_scales):
            x = self._act(self._norm(x, f"decoder_blocks.{i}.upscale.conv.0"))
            x = nn.conv_transpose2d(x, self.state[f"decoder_blocks.{i}.upscale.conv.2.weight"], stride=a.scale)
            x = torch.cat([x, skips.pop()], 1)
            x = self._blocks(x, f"decoder_blocks.{i}.tfc_tdf")
        x = x.transpose(-1, -2) * first
        x = nn.conv2d(torch.cat([mix, x], 1), self.state["final_conv.0.weight"])
        x = nn.conv2d(self._act(x), self.state["final_conv.2.weight"])
        return x.reshape(batch, a.outputs, 2 * a.audio_channels, bins, frames)

    def _blocks(self, x: torch.Tensor, name: str) -> torch.Tensor:
        for i in range(self.arch.num_blocks_per_scale):
            block = f"{name}.blocks.{i}"
            weight = {part: self.state[f"{block}.{part}.weight"] for part in PARTS}
            shortcut = nn.conv2d(x, weight["shortcut"])
            x = nn.conv2d(self._act(self._norm(x, f"{block}.tfc1.0")), weight["tfc1.2"], padding=1)
            y = nn.linear(self._act(self._norm(x, f"{block}.tdf.0")), weight["tdf.2"])
            x = x + nn.linear(self._act(self._norm(y, f"{block}.tdf.3")), weight["tdf.5"])
            x = nn.conv2d(self._act(self._norm(x, f"{block}.tfc2.0")), weight["tfc2.2"], padding=1)
            x = x + shortcut
        return x

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        if self.arch.norm == "none":
            return x
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        if self.arch.norm == "InstanceNorm":
            return nn.instance_norm(x, weight=weight, bias=bias, eps=EPS)
        if self.arch.norm == "BatchNorm":
            mean, variance = (self.state[f"{name}.running_{part}"] for part in ("mean", "var"))
            return nn.batch_norm(x, mean, variance, weight, bias, eps=EPS)
        return nn.group_norm(x, self.arch.groups, weight, bias, EPS)

    def _act(self, x: torch.Tensor) -> torch.Tensor:
        if self.arch.act == "gelu":
            return nn.gelu(x)
        return nn.relu(x) if self.arch.act == "relu" else nn.elu(x, self.arch.alpha)


PARTS = ("shortcut", "tfc1.2", "tdf.2", "tdf.5", "tfc2.2")
