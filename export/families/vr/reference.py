"""UVR's formula around a VR network, in torch and written from its definitions: what an export is compared with.

The song is held whole and every step is that of the formula: zeros between samples and one long filter for a change of
rate, one STFT a band, windows one after the other. Only facts of the spec are shared with the runtime.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ortsep.models.bands import MATRICES, Band, Bands

Masking = Callable[[Tensor], Tensor]
"""A network: magnitudes [1, 2, F, T] to masks of the same shape."""


def resampled(x: Tensor, rate: int, new: int) -> Tensor:
    """``scipy.signal.resample_poly`` of [C, N] by its definition."""
    common = math.gcd(rate, new)
    up, down = new // common, rate // common
    if up == down:
        return x
    half = 10 * max(up, down)
    at = torch.arange(-half, half + 1, dtype=torch.float64)
    h = torch.sinc(at / max(up, down)) * torch.kaiser_window(2 * half + 1, False, 5.0, dtype=torch.float64)
    spread = torch.zeros(len(x), x.shape[1] * up, dtype=x.dtype)
    spread[:, ::up] = x
    kernel = (up * h / h.sum()).to(x.dtype)[None, None]
    return torch.nn.functional.conv1d(spread[:, None], kernel, padding=half, stride=down)[:, 0]


@dataclass(frozen=True)
class Formula:
    """All that is done around a network of these ``bands``, in the precision ``dtype``."""

    bands: Bands
    dtype: torch.dtype = torch.float64

    def spectrum(self, mix: Tensor) -> Tensor:
        """The stacked spectrum [2, F, T] of a song [2, N] of at least a hop."""
        parts: list[Tensor] = []
        wave, rate = mix.to(self.dtype), self.bands.rate
        for band in reversed(self.bands.bands):
            wave, rate = resampled(wave, rate, band.rate), band.rate
            heard = self._matrix(band) @ wave
            z = torch.stft(
                heard, band.n_fft, band.hop, window=self._hann(band), pad_mode="constant", return_complex=True
            )
            parts.insert(0, z[:, band.start : band.stop])
        frames = min(part.shape[-1] for part in parts)
        stacked = torch.zeros(2, self.bands.bins, frames, dtype=z.dtype)
        whole = torch.cat([part[..., :frames] for part in parts], 1)
        stacked[:, : whole.shape[1]] = whole
        return stacked * self._prefilter()[:, None]

    def wave(self, stacked: Tensor) -> Tensor:
        """The signal [2, hop (T - 1)] of a stacked spectrum [2, F, T]."""
        row, total, rate = 0, torch.zeros(2, 0, dtype=self.dtype), self.bands.bands[0].rate
        for index, band in enumerate(self.bands.bands):
            z = torch.zeros(2, band.n_fft // 2 + 1, stacked.shape[-1], dtype=stacked.dtype)
            z[:, band.start : band.stop] = stacked[:, row : row + band.stop - band.start]
            row += band.stop - band.start
            z *= self._ramps(band)[:, None]
            sound = torch.istft(z, band.n_fft, band.hop, window=self._hann(band))
            sound = torch.linalg.inv(self._matrix(band)) @ sound
            total = sound if index == 0 else resampled(total, rate, band.rate) + sound
            rate = band.rate
        return total

    def masks(self, stacked: Tensor, network: Masking) -> Tensor:
        """The network's masks [2, F, T] of a stacked spectrum, window after window."""
        window, context, frames = self.bands.window, self.bands.context, stacked.shape[-1]
        counted = window - 2 * context
        magnitude = stacked.abs()
        magnitude = magnitude / (magnitude.max() or 1.0)
        padded = torch.nn.functional.pad(magnitude, (context, context + counted - frames % counted))
        masks = [
            network(padded[None, ..., start : start + window])[0, ..., context : window - context]
            for start in range(0, frames, counted)
        ]
        return torch.cat(masks, -1)[..., :frames]

    def separate(self, mix: Tensor, network: Masking) -> Tensor:
        """Both stems [2, 2, N] of a song [2, N], silent where the formula leaves the song's end out."""
        samples = mix.shape[-1]
        heard = torch.nn.functional.pad(mix, (0, max(0, self.bands.hop - samples)))
        stacked = self.spectrum(heard)
        masks = self._shaped(self.masks(stacked, network))
        stems = torch.zeros(2, 2, samples, dtype=self.dtype)
        for stem, mask in zip(stems, (masks, 1 - masks), strict=True):
            wave = self.wave(mask * stacked)[..., :samples]
            stem[..., : wave.shape[-1]] = wave
        return stems

    def _shaped(self, masks: Tensor) -> Tensor:
        """``adjust_aggr``: the masks to powers, below the split row and from it on."""
        bands = self.bands
        if not bands.aggression:
            return masks
        strength = 2 * bands.aggression / 100
        strength = 1 - strength if bands.inverted else strength
        powers = torch.full((bands.bins, 1), 1 + strength, dtype=self.dtype)
        powers[: bands.split] = 1 + strength / 3
        return masks**powers

    def _hann(self, band: Band) -> Tensor:
        return torch.hann_window(band.n_fft, dtype=self.dtype)

    def _matrix(self, band: Band) -> Tensor:
        return torch.tensor(MATRICES[band.channels], dtype=self.dtype)

    def _ramps(self, band: Band) -> Tensor:
        """``fft_hp_filter`` and ``fft_lp_filter``; ``get_hp_filter_mask`` and ``get_lp_filter_mask`` are the same."""
        gains = [1.0] * (band.n_fft // 2 + 1)
        if band.rise:
            top, zero = band.rise[0], band.rise[1] - 1
            for b in range(len(gains)):
                gains[b] *= 0.0 if b <= zero else max(0.0, 1 - (top + 1 - b) / (top - zero)) if b <= top else 1.0
        if band.fall:
            first, last = band.fall
            for b in range(first, len(gains)):
                gains[b] *= max(0.0, 1 - (b + 1 - first) / (last - first))
        return torch.tensor(gains, dtype=self.dtype)

    def _prefilter(self) -> Tensor:
        """``get_lp_filter_mask`` or, for old networks of several bands, what ``combine_spectrograms`` does itself."""
        gains = [1.0] * self.bands.bins
        if self.bands.prefilter:
            first, last = self.bands.prefilter
            former = 1.0
            for b in range(first + self.bands.steep, min(last, len(gains))):
                former = (
                    10 ** (-(b - first) * (3.5 - former) / 20) if self.bands.steep else (last - 1 - b) / (last - first)
                )
                gains[b] = former
            if not self.bands.steep:
                gains[last:] = [0.0] * (len(gains) - min(last, len(gains)))
        return torch.tensor(gains, dtype=self.dtype)
