"""The module that a network of one's own comes from, and the parameters that it is given."""

import contextlib
import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ortsep.base.errors import FileMissing, ModelError, UsageError, WeightsError
from ortsep.export.weights.checkpoints import load_state, plain_state


def network_of(source: str) -> torch.nn.Module:
    """The network that MODULE:FACTORY is or makes. Raises UsageError, FileMissing, ModelError."""
    name, _, factory = source.rpartition(":")
    if not name or not factory:
        raise UsageError(f"--torch {source} is not MODULE:FACTORY; write my_net.py:build, or package.module:Net")
    try:
        found: Any = _module(name)
        for part in factory.split("."):
            found = getattr(found, part)
        network = found if isinstance(found, torch.nn.Module) else found()
    except (UsageError, FileMissing):
        raise
    except Exception as error:  # the user's own code, of whatever kind
        cause = (str(error).splitlines() or [""])[0][:200]
        raise ModelError(f"{source} gives no network ({type(error).__name__}: {cause}); mend it") from error
    if not isinstance(network, torch.nn.Module):
        raise UsageError(f"{source} gives a {type(network).__name__}, not a torch.nn.Module; name a function that does")
    return network


def _module(name: str) -> Any:
    if name.endswith(".py"):
        path = Path(name)
        if not path.is_file():
            raise FileMissing(f"there is no module {path}; check the path given to --torch")
        found = importlib.util.spec_from_file_location(path.stem, path)
        assert found is not None and found.loader is not None
        module = importlib.util.module_from_spec(found)
        with _importable(path.parent):
            found.loader.exec_module(module)
        return module
    with _importable(Path.cwd()):
        return import_module(name)


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Modules in ``folder`` can be imported inside, as where python runs a file of it."""
    sys.path.insert(0, str(folder.absolute()))
    try:
        yield
    finally:
        sys.path.remove(str(folder.absolute()))


def load_into(network: torch.nn.Module, path: Path) -> None:
    """Give ``network`` the parameters in a checkpoint, all of them. Raises WeightsError, FileMissing."""
    state = plain_state(load_state(path), path)
    try:
        network.load_state_dict(state)
    except (RuntimeError, AttributeError) as error:
        lines = [" ".join(line.split()) for line in str(error).splitlines()[1:]] or [str(error)]
        raise WeightsError(f"{path} is not of this network ({lines[0][:200]}); name its own checkpoint") from error


def digest_of(network: torch.nn.Module) -> str:
    """The sha256 of all parameters and their names."""
    found = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        found.update(name.encode())
        found.update(np.ascontiguousarray(value.detach().cpu().numpy()).tobytes())
    return found.hexdigest()
