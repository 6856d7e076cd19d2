"""Random weights that hide nothing: seeded, sizeable, and such that activations stay in range."""

import math
import zlib

import torch
from torch import nn

SCALES = (0.3, 0.7)
"""Range of norm weights and LayerScale: a factor of 1e-4, as a fresh network has it, would hide whole branches."""


def randomise(module: nn.Module, seed: int = 0) -> None:
    """Give every floating parameter of ``module`` a value drawn from ``seed`` and the parameter's name, in place.

    Weights of two and more dimensions are normal with deviation 1/sqrt(fan_in) (embeddings 0.1), vectors called
    ``weight``, ``scale`` or ``gamma`` uniform in ``SCALES``, biases normal with deviation 0.1, running statistics of
    normalisations likewise about 0 and 1. torch's own generator is left alone.
    """
    embeddings = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    transposed = {id(m.weight) for m in module.modules() if isinstance(m, nn.ConvTranspose1d | nn.ConvTranspose2d)}
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            # the CPU generator hears only the low 32 bits of its seed
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode(), seed))
            values = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
            if id(parameter) in embeddings:
                values *= 0.1
            elif parameter.ndim > 1:
                # a transposed convolution's output hears kernel/stride taps, two in Demucs, of every input channel
                fan_in = 2 * parameter.shape[0] if id(parameter) in transposed else parameter[0].numel()
                values /= math.sqrt(fan_in)
            elif name.rsplit(".", 1)[-1] in ("weight", "scale", "gamma"):
                low, high = SCALES
                values = low + (high - low) * torch.rand(parameter.shape, generator=generator, dtype=torch.float32)
            else:
                values *= 0.1
            parameter.copy_(values)
        for name, buffer in module.named_buffers():
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode(), seed))
            if name.endswith("running_mean"):
                buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))
            elif name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
