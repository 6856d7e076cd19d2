"""Runs on a device with its memory bound once: for graphs of fixed shapes, where allocating anew each run is waste."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ortsep.base.arrays import F32


class Bound:
    """A session's inputs and outputs in buffers on ``device`` (``cuda``, ``cpu``), allocated here and used by each run.

    Input goes to the device and output comes back by one copy each; nothing else is allocated or copied. One run at a
    time: the buffers are shared.
    """

    def __init__(self, session: Any, device: str, outputs: Sequence[str]) -> None:
        from onnxruntime import OrtValue

        def buffer(tensor: Any) -> Any:
            return OrtValue.ortvalue_from_shape_and_type(tensor.shape, np.float32, device, 0)

        self._session, self._lock = session, threading.Lock()
        self._inputs = {t.name: buffer(t) for t in session.get_inputs()}
        given = {t.name: t for t in session.get_outputs()}
        self._outputs = {name: buffer(given[name]) for name in outputs}
        self._binding = session.io_binding()
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)

    def run(self, feeds: Mapping[str, F32], run_options: Any) -> list[F32]:
        """The outputs as arrays of their own. Raises ValueError for inputs of other names or shapes."""
        if feeds.keys() != self._inputs.keys():
            raise ValueError(f"inputs {', '.join(feeds)} for {', '.join(self._inputs)}")
        for name, value in self._inputs.items():
            if (want := tuple(value.shape())) != feeds[name].shape or feeds[name].dtype != np.float32:
                raise ValueError(f"{name} is {feeds[name].dtype} {list(feeds[name].shape)} for float32 {list(want)}")
        with self._lock:
            for name, value in self._inputs.items():
                value.update_inplace(np.ascontiguousarray(feeds[name]))
            self._session.run_with_iobinding(self._binding, run_options)
            return [np.array(value.numpy()) for value in self._outputs.values()]


def bindable(session: Any) -> bool:
    """Whether all tensors are float32 of fixed shapes."""
    tensors = [*session.get_inputs(), *session.get_outputs()]
    return all(t.type == "tensor(float)" and all(isinstance(d, int) and d > 0 for d in t.shape) for t in tensors)
