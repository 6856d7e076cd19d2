"""Hostile stems.txt: a ModelError, or names that can be files."""

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from mutations import budget, damaged

from ortsep.base.errors import ModelError
from ortsep.stems.manifest import name_fault, read_manifest, safe_name

NAMES = (b"drums\nbass\nvocals\n", "t\u00e4kt\r\nste\u0301m\r\n".encode(), b"..\n/etc/passwd\nCON\n")


@budget(300)
@given(damaged(*NAMES) | st.binary())
def test_fuzz_manifest(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stems.txt"
        path.write_bytes(data)
        try:
            names = read_manifest(path)
        except ModelError:
            return
        for name in names:
            assert name_fault(name) is None and Path(folder, name).parent == Path(folder)


@budget(200)
@given(st.text(max_size=300))
def test_fuzz_safe_names(text: str) -> None:
    fault = name_fault(safe_name(text))
    assert fault is None or "longer" in fault
