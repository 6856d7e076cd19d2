"""Parameters and a clip that depend on names and seeds only, so that two environments make the same."""

import re
import zlib

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[np.float32]]


def seeded_state(shapes: dict[str, tuple[int, ...]], seed: int = 0, growth: float = 1.0) -> Arrays:
    """Sizeable values for every parameter: weights 1/sqrt(fan_in), norms' 0.5 to 1.2, variances 0.5 to 1.5.

    What transformer block i adds is scaled by growth^i: the legacy network doubles its stream twice a block, and later
    blocks would hide behind earlier ones without 4^i.
    """
    state = {}
    for name, shape in shapes.items():
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        if name.endswith("rotary_embed.freqs"):
            values = 10000.0 ** (-np.arange(shape[0]) / shape[0])
        elif len(shape) > 1:
            values = rng.standard_normal(shape) * 1.2 / np.sqrt(np.prod(shape[1:]))
        elif name.endswith("running_var"):
            values = rng.uniform(0.5, 1.5, shape)
        elif name.endswith(("weight", "gamma")):
            values = rng.uniform(0.5, 1.2, shape)
        else:
            values = rng.uniform(-0.3, 0.3, shape)
        if match := re.search(r"rope_blocks\.(\d+)\..*(to_out\.0|net\.4)\.weight", name):
            values = values * growth ** int(match[1])
        state[name] = values.astype(np.float32)
    return state


def seeded_clip(samples: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Stereo noise [2, N] with a falling spectrum."""
    noise = np.random.default_rng(seed).standard_normal((2, samples))
    return (0.1 * (noise + np.cumsum(noise, axis=1) / 8)).astype(np.float32)
