"""A command that lacks a package names the smallest extra that has it."""

import subprocess
import sys

import pytest

WITHOUT_ONNX = "import sys; sys.modules['onnx'] = None; from ortsep.__main__ import main; main()"


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        ("export spleeter:4stems", "onnx"),
        ("export htdemucs", "export"),
        ("validate models/exported/spleeter-2stems", "onnx"),
        ("validate htdemucs", "export"),
        ("optimize a.onnx -o b.onnx", "onnx"),
    ],
)
def test_the_smallest_extra_is_named(words: str, extra: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_ONNX, *words.split()], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.strip().splitlines()[-1].endswith(f"pip install 'ortsep[{extra}]'"), done.stderr
