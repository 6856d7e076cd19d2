"""MSST's own code out of a checkout that somebody names, as an oracle: run only when asked for, never installed."""

import sys
from collections.abc import Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ortsep.base.errors import UsageError


def msst_module(checkout: Path, file: str, stand_ins: Mapping[str, SimpleNamespace] | None = None) -> Any:
    """The module or package (its ``__init__.py``) at ``file`` of a checkout of MSST.

    ``stand_ins`` take the place of modules that it imports for something else than its network. Raises UsageError.
    """
    path = checkout / file
    if not path.is_file():
        raise UsageError(
            f"{checkout} is no checkout of MSST (it has no {file}); give the folder that git clone "
            "https://github.com/ZFTurbo/Music-Source-Separation-Training made"
        )
    name = "ortsep_oracle_" + "_".join(Path(file).with_suffix("").parts)
    inside = [str(path.parent)] if path.name == "__init__.py" else None
    spec = spec_from_file_location(name, path, submodule_search_locations=inside)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    before = {other: sys.modules.get(other) for other in stand_ins or {}}
    sys.modules.update({name: module, **(stand_ins or {})})  # type: ignore[dict-item]
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        raise UsageError(f"{path} needs {error.name}, which is not installed; pip install {error.name}") from error
    finally:
        for other, held in before.items():
            if held is None:
                del sys.modules[other]
            else:
                sys.modules[other] = held
    return module
