"""Other people's graphs under our names: a session of ortsep's tensors, whatever the file calls them."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from ortsep.base.arrays import F32
from ortsep.base.cancel import Cancel
from ortsep.base.errors import ModelError
from ortsep.graphs.layout import rearranged
from ortsep.graphs.session import Observer, Session, Sizes, Tensor
from ortsep.graphs.tuned import Setting
from ortsep.models.axes import OURS, measure
from ortsep.models.spec import ModelSpec
from ortsep.models.spec import Tensor as Mapped


def our_axes(ours: str, spec: ModelSpec) -> str:
    """Our own axes of a tensor; a complex graph's masks have a channel for each part."""
    return "b s cr f t" if ours == "masks" and spec.domain == "complex" else OURS[ours]


class Foreign(Session):
    """A session of a graph whose tensors the spec maps to ours; ``inputs`` and ``outputs`` are ours too.

    ``stems`` is the number of stems that the graph gives.
    """

    def __init__(
        self,
        path: Path,
        spec: ModelSpec,
        stems: int,
        *,
        provider: str | Setting = "auto",
        threads: int | None = None,
        observer: Observer | None = None,
    ) -> None:
        super().__init__(path, provider=provider, threads=threads, observer=observer)
        self._spec, self._stems = spec, stems
        self._known = {"c": spec.channels, "r": 2}
        theirs = {tensor.name: tensor for tensor in (*self.inputs, *self.outputs)}
        lacking = [t.theirs for t in spec.tensors.names if t.theirs not in theirs]
        if lacking:
            raise ModelError(
                f"{path} has no tensor {', '.join(lacking)}, which its spec.json names; adopt the file again"
            )
        self._given = [t for t in spec.tensors.names if any(t.theirs == o.name for o in self.outputs)]
        self._taken = [t for t in spec.tensors.names if t not in self._given]
        self.inputs = tuple(self._ours(t, theirs[t.theirs]) for t in self._taken)
        names = dict.fromkeys(t.ours for t in self._given)
        self.outputs = tuple(Tensor(name, (None, stems)) for name in names)

    def _ours(self, tensor: Mapped, theirs: Tensor) -> Tensor:
        axes = our_axes(tensor.ours, self._spec)
        sizes = measure(tensor.axes or axes, theirs.shape, self._known) or {}
        shape: list[int | None] = []
        for part in axes.split():
            known = [sizes.get(letter) for letter in part]
            shape.append(None if None in known else int(np.prod([size for size in known if size is not None])))
        return Tensor(tensor.ours, tuple(shape))

    def _fed(self, feeds: Mapping[str, F32]) -> dict[str, npt.NDArray[Any]]:
        return super()._fed({t.theirs: self._turned(feeds[t.ours], t) for t in self._taken})

    def _once(self, feeds: Mapping[str, F32], outputs: tuple[str, ...], cancel: Cancel | None) -> list[F32]:
        """As ``Session._once``, with our names and axes."""
        asked = [t for name in outputs for t in self._given if t.ours == name]
        results = dict(zip(asked, super()._once(feeds, tuple(t.theirs for t in asked), cancel), strict=True))
        return [self._combined(name, {t: results[t] for t in asked if t.ours == name}) for name in outputs]

    def _turned(self, array: F32, tensor: Mapped) -> F32:
        """One of our inputs as the graph takes it."""
        ours = our_axes(tensor.ours, self._spec)
        return rearranged(array, ours, tensor.axes or ours, self._known)

    def _combined(self, name: str, results: Mapping[Mapped, F32]) -> F32:
        """What the graph gives of one of our outputs, with the stems that count."""
        axes = our_axes(name, self._spec)
        ours = []
        for tensor, array in results.items():
            turned = rearranged(array, tensor.axes or axes, axes, self._known)
            if tensor.rows and max(tensor.rows) >= turned.shape[1]:
                raise ModelError(f"{self.path} gives {turned.shape[1]} stems, and its spec wants number {tensor.rows}")
            ours.append(turned[:, list(tensor.rows)] if tensor.rows else turned)
        together: F32 = ours[0] if len(ours) == 1 else np.concatenate(ours, 1)
        if together.shape[1] != self._stems:
            raise ModelError(
                f"{self.path} gives {together.shape[1]} stems and its spec names {self._stems}; name all of them with "
                "ortsep adopt --stems"
            )
        return together


def open_session(
    path: Path,
    spec: ModelSpec,
    stems: int,
    *,
    provider: str | Setting = "auto",
    threads: int | None = None,
    observer: Observer | None = None,
    sizes: Sizes = MappingProxyType({}),
) -> Session:
    """The session of a graph that gives ``stems`` stems: ours as it is, another under our names."""
    if spec.tensors.names:
        return Foreign(path, spec, stems, provider=provider, threads=threads, observer=observer)
    return Session(path, provider=provider, threads=threads, observer=observer, sizes=sizes)
