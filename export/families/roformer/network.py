"""The RoFormers' network in torch: what lies between the STFT and its inverse, for any precision.

Functions on parameters by name, written from the architecture's description, apart from graph.py. A layer's parameters
are widened when it is their turn, and sequences attended a few at a time, so that float64 takes little memory.
"""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ortsep.export.families.roformer.architecture import Architecture, State, transformers, uses

SEQUENCES = 16
"""Attended, and fed forward, at a time."""


class Network:
    """``masked`` is the network: spectra in, stems' spectra out."""

    def __init__(self, arch: Architecture, state: State, dtype: torch.dtype = torch.float64) -> None:
        self.arch, self.state, self.dtype = arch, state, dtype

    def get(self, name: str) -> Tensor:
        return torch.from_numpy(self.state[name]).to(self.dtype)

    def linear(self, x: Tensor, name: str, bias: bool = True) -> Tensor:
        return F.linear(x, self.get(f"{name}.weight"), self.get(f"{name}.bias") if bias else None)

    def norm(self, x: Tensor, gamma: str) -> Tensor:
        """Each vector to the length sqrt(its size), then scaled; shorter than 1e-12 it is only multiplied by 1e12."""
        return F.normalize(x, dim=-1) * x.shape[-1] ** 0.5 * self.get(gamma)

    # -- transformers ---------------------------------------------------------------------------------------------

    def turn(self, x: Tensor, freqs: str) -> Tensor:
        """Rotary positions: the pairs (2i, 2i + 1) of [.., positions, d] turned by position * frequency i."""
        angles = torch.arange(x.shape[-2], dtype=self.dtype)[:, None] * self.get(freqs)
        pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)

    def attention(self, x: Tensor, name: str) -> Tensor:
        """Gated attention over [sequences, positions, dim]."""
        heads, freqs = self.arch.heads, f"{name}.rotary_embed.freqs"
        n = self.norm(x, f"{name}.norm.gamma")
        q, k, v = self.linear(n, f"{name}.to_qkv", bias=False).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(self.turn(q, freqs), self.turn(k, freqs), v).transpose(1, 2)
        gates = self.linear(n, f"{name}.to_gates").sigmoid()
        return self.linear((out * gates[..., None]).flatten(-2), f"{name}.to_out.0", bias=False)

    def transformer(self, x: Tensor, name: str, depth: int) -> Tensor:
        """[sequences, positions, dim] to the same."""
        return torch.cat([self._some(part, name, depth) for part in x.split(SEQUENCES)])

    def _some(self, x: Tensor, name: str, depth: int) -> Tensor:
        for k in range(depth):
            x = x + self.attention(x, f"{name}.layers.{k}.0")
            net = f"{name}.layers.{k}.1.net"
            x = x + self.linear(F.gelu(self.linear(self.norm(x, f"{net}.0.gamma"), f"{net}.1")), f"{net}.4")
        return self.norm(x, f"{name}.norm.gamma") if self.arch.normed else x

    # -- bands ----------------------------------------------------------------------------------------------------

    def split(self, x: Tensor) -> Tensor:
        """Spectra [B, F, C, 2, T] to tokens [B, bands, T, dim]."""
        out = []
        for b, (start, stop) in enumerate(self.arch.bands):
            name = f"band_split.to_features.{b}"
            values = x[:, start:stop].flatten(1, 3).transpose(1, 2)
            out.append(self.linear(self.norm(values, f"{name}.0.gamma"), f"{name}.1"))
        return torch.stack(out, dim=1)

    def mask(self, x: Tensor, stem: int) -> Tensor:
        """Tokens to complex masks [B, F, C, T], the mean over the bands that a bin lies in."""
        arch = self.arch
        total = x.new_zeros(len(x), arch.bins, arch.channels, 2, x.shape[2])
        for b, (start, stop) in enumerate(arch.bands):
            values = x[:, b]
            for k in range(arch.mask_layers):
                values = self.linear(values, f"mask_estimators.{stem}.to_freqs.{b}.0.{2 * k}").tanh()
            values = F.glu(self.linear(values, f"mask_estimators.{stem}.to_freqs.{b}.0.{2 * arch.mask_layers}"))
            total[:, start:stop] += values.transpose(1, 2).unflatten(1, (stop - start, arch.channels, 2))
        total = total / torch.from_numpy(uses(arch))[:, None, None, None]
        return torch.view_as_complex(total.transpose(3, 4).contiguous())

    def tokens(self, x: Tensor) -> Tensor:
        """[B, bands, T, dim] through all transformers."""
        earlier = torch.zeros_like(x)
        for name, over_time, depth in transformers(self.arch):
            if over_time and self.arch.skip:
                x = x + earlier
            shape = x.shape
            if over_time:
                x = self.transformer(x.flatten(0, 1), name, depth).view(shape)
            else:
                x = x.transpose(1, 2)
                x = self.transformer(x.flatten(0, 1), name, depth).view(x.shape).transpose(1, 2)
                earlier = earlier + x
        return x if self.arch.normed else self.norm(x, "final_norm.gamma")

    def masked(self, spectrum: Tensor) -> Tensor:
        """Complex [B, C, F, T] to complex [B, S, C, F, T]."""
        parts = torch.view_as_real(spectrum).permute(0, 2, 1, 4, 3)
        x = self.tokens(self.split(parts))
        mixture = spectrum.transpose(1, 2)
        stems = torch.stack([mixture * self.mask(x, s) for s in range(self.arch.stems)], dim=1)
        if self.arch.zero_dc:
            stems[:, :, 0] = 0
        return stems.transpose(2, 3)

    def on_channels(self, spectrum: Tensor) -> Tensor:
        """``masked`` on real channels [B, 2C, F, T], as a graph has them: [B, S, 2C, F, T]."""
        pairs = spectrum.to(self.dtype).unflatten(1, (self.arch.channels, 2)).permute(0, 1, 3, 4, 2)
        stems = torch.view_as_real(self.masked(torch.view_as_complex(pairs.contiguous())))
        return stems.permute(0, 1, 2, 5, 3, 4).flatten(2, 3).contiguous()


def run(
    arch: Architecture, state: State, inputs: Mapping[str, np.ndarray], dtype: torch.dtype = torch.float64
) -> np.ndarray:
    """The network on a graph's input ``spectrum`` [B, 2C, F, T]: ``stem_spectra`` [B, S, 2C, F, T]."""
    with torch.inference_mode():
        out = Network(arch, state, dtype).on_channels(torch.from_numpy(np.asarray(inputs["spectrum"])))
    result: np.ndarray = out.numpy()
    return result
