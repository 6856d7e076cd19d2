"""The parts of a contract, and whether a file's tensors are those that it wants."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ortsep.models.axes import OURS, measure
from ortsep.models.onnx_signature import Shaped, Signature
from ortsep.models.spec import ModelSpec, Tensor, Tensors

STEREO = {"c": 2, "r": 2}
"""All contracts are of stereo graphs; real and imaginary part are two."""


@dataclass(frozen=True)
class File:
    """What is known of a file without loading its graph."""

    name: str
    signature: Signature
    metadata: Mapping[str, str] = field(default_factory=dict)
    key: str = ""
    """MD5 of its last 10,240,000 bytes, by which UVR finds the parameters of a model."""
    beside: frozenset[str] = frozenset()
    """Names of the files in its folder."""

    @property
    def stem(self) -> str:
        """The name without its ending and what says its precision: ``Kim_Vocal_2.fp16.onnx`` is ``Kim_Vocal_2``."""
        name = self.name.removesuffix(".onnx")
        for ending in (".fp16", ".int8", "_fp16weights", "_fp16", "_int8"):
            name = name.removesuffix(ending)
        return name


@dataclass(frozen=True)
class Wishes:
    """What the user says of a file: ``--as``, ``--set NAME=VALUE ...``, ``--stems``."""

    contract: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    stems: tuple[str, ...] = ()


class Unclear(Exception):
    """A file has a contract's tensors, and what these leave open isn't known: a clause with the flag that decides."""


@dataclass(frozen=True)
class Port:
    """A tensor that a contract wants: which of ours it is, its axes, and its names where these matter."""

    ours: str
    axes: str
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{'|'.join(self.names) or self.ours} [{', '.join(self.axes.split())}]"


@dataclass(frozen=True)
class Found:
    """A file whose tensors a contract wants, and the sizes of their axes as far as they are fixed."""

    file: File
    sizes: Mapping[str, int]
    tensors: Tensors
    wishes: Wishes = Wishes()


@dataclass(frozen=True)
class Contract:
    """A kind of file: its tensors in their order, and the spec that follows from them. Raises Unclear.

    ``sizes``: which sizes an axis may have; ``known``: which it has, whatever the file says.
    """

    name: str
    title: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    describe: Callable[[Found], ModelSpec]
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    known: Mapping[str, int] = field(default_factory=lambda: STEREO)
    each: bool = False
    """The last output is there once or more often."""
    settings: tuple[str, ...] = ()
    """What ``--set`` may say of it."""

    def __str__(self) -> str:
        limits = "; ".join(f"{axis} {' or '.join(map(str, sizes))}" for axis, sizes in self.sizes.items())
        wants = f"{', '.join(map(str, self.inputs))} -> {', '.join(map(str, self.outputs))}"
        return f"{self.name}: {wants}" + (f" ({limits})" if limits else "")

    def measure(self, signature: Signature, *, names: bool = True) -> dict[str, int] | None:
        """The sizes of the axes, or None where these are not the contract's tensors; ``names``: by their names too."""
        sizes: dict[str, int] | None = dict(self.known)
        for ports, tensors in ((self.inputs, signature.inputs), (self._outputs(signature), signature.outputs)):
            if len(ports) != len(tensors):
                return None
            for port, tensor in zip(ports, tensors, strict=True):
                if names and port.names and tensor.name not in port.names:
                    return None
                sizes = measure(port.axes, tensor.shape, sizes) if sizes is not None else None
        if sizes is None or any(axis in sizes and sizes[axis] not in allowed for axis, allowed in self.sizes.items()):
            return None
        return sizes

    def _outputs(self, signature: Signature) -> tuple[Port, ...]:
        more = len(signature.outputs) - len(self.outputs) if self.each else 0
        return self.outputs + self.outputs[-1:] * more

    def nearness(self, signature: Signature) -> int:
        """How many tensors have the right rank and, where it matters, name, less what is too much or lacks."""
        score = 0
        for ports, tensors in ((self.inputs, signature.inputs), (self._outputs(signature), signature.outputs)):
            score -= abs(len(ports) - len(tensors))
            for port, tensor in zip(ports, tensors, strict=False):
                score += len(port.axes.split()) == len(tensor.shape)
                score += tensor.name in port.names
        return score

    def tensors(self, signature: Signature) -> Tensors:
        """The map from our tensors to the file's, of those that differ in name or axes."""
        ports = zip((*self.inputs, *self._outputs(signature)), (*signature.inputs, *signature.outputs), strict=True)
        return Tensors(tuple(_mapped(port, tensor) for port, tensor in ports))


def _mapped(port: Port, tensor: Shaped) -> Tensor:
    return Tensor(port.ours, tensor.name, "" if port.axes == OURS.get(port.ours) else port.axes)


def number(found: Found, name: str, least: float, most: float) -> float | None:
    """The setting ``name``, None where it isn't set. Raises Unclear for no number from ``least`` to ``most``."""
    text = found.wishes.settings.get(name)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise Unclear(f"{name} can't be {text}: it is a number from {least:g} to {most:g}")
    return value
