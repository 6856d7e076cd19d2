"""HTDemucs with frequencies folded to channels, as MSST trains it (``num_subbands``, models/demucs4ht.py)."""

from typing import Any

import torch
from demucs.htdemucs import HTDemucs
from torch import nn

from ortsep.export.families.demucs.layers import require


class SubbandHTDemucs(HTDemucs):
    """HTDemucs whose frequency branch hears ``num_subbands`` equal parts of the spectrum as channels of their own."""

    def __init__(self, *args: Any, num_subbands: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        require(self.cac and hasattr(self.encoder[0], "conv"), "subbands of masks, or split frequency bands")
        require(self.nfft // 2 % num_subbands == 0, f"{num_subbands} subbands of {self.nfft // 2} bins")
        self.num_subbands = num_subbands
        first, last = self.encoder[0].conv, self.decoder[-1].conv_tr
        self.encoder[0].conv = nn.Conv2d(
            first.in_channels * num_subbands, first.out_channels, first.kernel_size, first.stride, first.padding
        )
        self.decoder[-1].conv_tr = nn.ConvTranspose2d(
            last.in_channels, last.out_channels * num_subbands, last.kernel_size, last.stride
        )

    def _magnitude(self, z: torch.Tensor) -> torch.Tensor:
        """[B, 2C, F, T] as [B, 2C k, F / k, T]."""
        m = super()._magnitude(z)
        batch, channels, bins, frames = m.shape
        return m.reshape(batch, channels * self.num_subbands, bins // self.num_subbands, frames)

    def _mask(self, z: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
        """[B, S, 2C k, F / k, T] as [B, S, 2C, F, T], and on as HTDemucs does."""
        batch, stems, channels, bins, frames = m.shape
        shape = (batch, stems, channels // self.num_subbands, bins * self.num_subbands, frames)
        spectra: torch.Tensor = super()._mask(z, m.reshape(shape))
        return spectra
