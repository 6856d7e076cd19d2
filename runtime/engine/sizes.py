"""How large a graph's inputs are, for one block or chunk at a time: what its free dimensions are fixed at for providers
that take nothing of a graph of any size."""

from ortsep.engine.stft import frame_count
from ortsep.models.spec import ModelSpec


def sizes_of(spec: ModelSpec, name: str) -> dict[int, int]:
    """The sizes of the axes of the input ``name`` that may be free: the batch, and frames or samples where known."""
    known = {0: 1}
    if name == "magnitude" and spec.blocks is not None:
        known[3] = spec.blocks.frames
    elif name == "magnitude" and spec.bands is not None:
        known[3] = spec.bands.window
    elif name == "mix" and spec.chunks is not None:
        known[2] = spec.chunks.length
    elif name == "spectrum" and spec.chunks is not None and spec.stft is not None:
        known[3] = frame_count(spec.stft, spec.chunks.length)
    return known


def all_sizes(spec: ModelSpec) -> dict[str, dict[int, int]]:
    """The same of every input that a graph may have under our names; of none where the names are others'."""
    return {} if spec.tensors.names else {name: sizes_of(spec, name) for name in ("magnitude", "mix", "spectrum")}
