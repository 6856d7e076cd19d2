"""torch's inverse STFT in operators that ONNX has, for networks that transform inside.

torch.onnx.export takes ``torch.istft`` apart into an addition for each sample of its window, 11,000 nodes for n_fft
256, and its optimiser then does not come to an end. Here the frames are cut into hops and added as so many shifted
blocks as hops fill a window: n_fft / hop additions, 60 nodes in all.
``torch.stft`` needs nothing: ONNX has an operator for it.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from ortsep.base.errors import ModelError


class StaysOutside(ModelError):
    """An inverse STFT that can't become part of a graph."""


class ByHops(TorchFunctionMode):
    """While it is entered, ``torch.istft`` and ``Tensor.istft`` are ``istft`` below."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return (istft if func in (torch.istft, torch.Tensor.istft) else func)(*args, **(kwargs or {}))


def istft(
    spectrum: torch.Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: torch.Tensor | None = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: int | None = None,
    return_complex: bool = False,
) -> torch.Tensor:
    """As ``torch.istft``: complex [..., F, T] to [..., N]: windowed frames added, over the sum of squared windows.

    Raises StaysOutside for a hop that does not divide the window, and for signals that are not real.
    """
    width, hop = win_length or n_fft, hop_length or (win_length or n_fft) // 4
    if n_fft % hop or onesided is False or return_complex:
        what = f"a hop of {hop}, which does not divide {n_fft}" if n_fft % hop else "a signal that is not real"
        raise StaysOutside(
            f"the network computes an inverse STFT with {what}, and a graph can't; leave both transforms out of the "
            "network and give it spectra (domain = complex)"
        )
    shape = torch.ones(width) if window is None else window
    before = (n_fft - width) // 2
    shape = F.pad(shape, (before, n_fft - width - before))
    norm = "ortho" if normalized else "backward"
    frames = torch.fft.irfft(spectrum.transpose(-1, -2), n=n_fft, norm=norm) * shape
    start = n_fft // 2 if center else 0
    whole, weight = _added(frames, hop), _added((shape * shape).expand(frames.shape[-2:]), hop)
    end = whole.shape[-1] - start if length is None else start + length
    wave = whole[..., start:end] / weight[start:end]
    return wave if length is None else F.pad(wave, (0, length - wave.shape[-1]))


def _added(frames: torch.Tensor, hop: int) -> torch.Tensor:
    """[..., T, n_fft] as [..., (T - 1) * hop + n_fft], each frame a hop behind the one before."""
    parts = frames.shape[-1] // hop
    cut = frames.reshape(*frames.shape[:-1], parts, hop)
    moved = [F.pad(cut[..., k, :], (0, 0, k, parts - 1 - k)) for k in range(parts)]
    return torch.stack(moved).sum(0).flatten(-2) if parts > 1 else moved[0].flatten(-2)
