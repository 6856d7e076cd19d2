"""MSST as an oracle: modules of a checkout outside the tree, $ORTSEP_MSST; without it such tests are skipped."""

import os
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest


def checkout() -> Path:
    """The checkout of MSST; skips by name where there is none."""
    folder = Path(os.environ.get("ORTSEP_MSST") or "/nowhere")
    if not (folder / "models" / "demucs4ht.py").is_file():
        pytest.skip("no checkout of MSST in $ORTSEP_MSST")
    return folder


def msst_module(path: str, name: str) -> Any:
    """The module at ``path`` of the checkout, imported under ``name``; what it imports must be there already."""
    folder = checkout()
    spec = spec_from_file_location(name, folder / path)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
