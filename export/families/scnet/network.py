"""The SCNet network in torch, in any precision: what the exported graph is compared with, and timed against.

The operations are those of MSST's ``SCNet`` between its two transforms, one for one.
"""

from typing import Any

import torch
from torch.nn import functional as nn

from ortsep.export.families.scnet.architecture import EPS, Architecture, Band, State


class Network:
    """A network with its parameters, to be called."""

    def __init__(self, arch: Architecture, state: State, dtype: torch.dtype = torch.float32) -> None:
        self.arch = arch
        self.state = {name: torch.from_numpy(array).to(dtype) for name, array in state.items()}
        self.lstms = {(i, path): self._lstm(i, path, dtype) for i in range(arch.num_dplayer) for path in range(2)}

    def _lstm(self, i: int, path: int, dtype: torch.dtype) -> Any:
        name = f"separation_net.dp_modules.{i}.lstm_layers.{path}."
        held = {key.removeprefix(name): value for key, value in self.state.items() if key.startswith(name)}
        width = held["weight_ih_l0"].shape[1]
        with torch.device("meta"):
            lstm = torch.nn.LSTM(width, width * self.arch.expand, bidirectional=True, batch_first=True, dtype=dtype)
        lstm.load_state_dict(held, assign=True)
        return lstm.eval()

    def __call__(self, spectrum: torch.Tensor) -> torch.Tensor:
        """``spectrum`` [B, 2C, F, T] to ``stem_spectra`` [B, S, 2C, F, T]."""
        a, x = self.arch, spectrum
        skips = []
        for i, bands in enumerate(a.levels()):
            parts = [self._band(x, f"encoder.{i}", b, band) for b, band in enumerate(bands)]
            x = torch.cat(parts, 2)
            skips.append(x)
            x = self._conv(nn.conv2d, x, f"encoder.{i}.globalconv", padding=1)
        for i in range(a.num_dplayer):
            x = self._path(x, i, 0, (3, 2, 1))
            x = self._path(x, i, 1, (2, 3, 1))
            x = self._converted(x, i)
        for i, bands in enumerate(reversed(a.levels())):
            x = (x + skips.pop()).repeat(1, 2, 1, 1)
            x = nn.glu(self._conv(nn.conv2d, x, f"decoder.{i}.0.conv", padding=1), 1)
            rows = x.split([band.rows for band in bands], 2)
            grown = []
            for b, (band, part) in enumerate(zip(bands, rows, strict=True)):
                y = self._conv(nn.conv_transpose2d, part, f"decoder.{i}.1.convtrs.{b}", stride=(band.stride, 1))
                grown.append(y[:, :, band.crop : band.crop + band.stop - band.start])
            x = torch.cat(grown, 2)
        return x.view(len(x), a.sources, -1, *x.shape[2:])

    def _conv(self, function: Any, x: torch.Tensor, name: str, **how: Any) -> torch.Tensor:
        result: torch.Tensor = function(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"], **how)
        return result

    def _band(self, x: torch.Tensor, name: str, b: int, band: Band) -> torch.Tensor:
        """One band of ``SDblock``: its convolution, and its convolution module on each row."""
        x = nn.pad(x[:, :, band.start : band.stop], (0, 0, *band.pads))
        x = self._conv(nn.conv2d, x, f"{name}.SDlayer.convs.{b}", stride=(band.stride, 1))
        batch, channels, rows, frames = x.shape
        x = x.permute(0, 2, 1, 3).reshape(-1, channels, frames)
        pad, hidden = self.arch.conv_kernel // 2, self.arch.hidden(channels)
        for i in range(self.arch.conv_depths[b]):
            n = f"{name}.conv_modules.{b}.layers.{i}"
            y = self._norm(x, f"{n}.0")
            y = nn.glu(self._conv(nn.conv1d, y, f"{n}.1", padding=pad), 1)
            y = self._conv(nn.conv1d, y, f"{n}.3", padding=pad, groups=hidden)
            y = self._norm(y, f"{n}.4")
            x = x + self._conv(nn.conv1d, y * y.sigmoid(), f"{n}.6")
        return nn.gelu(x.view(batch, rows, channels, frames).permute(0, 2, 1, 3))

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return nn.group_norm(x, 1, self.state[f"{name}.weight"], self.state[f"{name}.bias"], EPS)

    def _path(self, x: torch.Tensor, i: int, path: int, order: tuple[int, int, int]) -> torch.Tensor:
        """One half of ``DualPathRNN``: the LSTM over F (order T, F, C) or T (order F, T, C)."""
        name = f"separation_net.dp_modules.{i}"
        y = self._norm(x, f"{name}.norm_layers.{path}").permute(0, *order)
        shape = y.shape
        y, _ = self.lstms[i, path](y.flatten(0, 1))
        y = nn.linear(
            y, self.state[f"{name}.linear_layers.{path}.weight"], self.state[f"{name}.linear_layers.{path}.bias"]
        )
        back = [0, *(order.index(axis) + 1 for axis in (1, 2, 3))]
        return y.view(shape).permute(*back) + x

    def _converted(self, x: torch.Tensor, i: int) -> torch.Tensor:
        """``FeatureConversion``: to the frames' spectrum after even layers, back after odd ones."""
        if i % 2 == 0:
            spectrum = torch.fft.rfft(x, dim=3, norm="ortho")
            return torch.cat([spectrum.real, spectrum.imag], 1)
        real, imaginary = x.chunk(2, 1)
        return torch.fft.irfft(torch.complex(real.contiguous(), imaginary.contiguous()), dim=3, norm="ortho")
