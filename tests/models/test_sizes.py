"""Files are read in one sitting and functions on one screen: 400 and 60 lines at most, everywhere."""

import ast

import pytest
from places import ROOT

FOLDERS = ("base", "models", "stems", "runtime", "export", "training", "benchmarks", "tests")
FILE, FUNCTION = 400, 60
DECLARATIONS = {"runtime/commands/running.py: run"}
"""Functions that only declare options, one a line, and hand them on, one a line."""


def too_long(name: str, text: str) -> list[str]:
    """The file where it has more than ``FILE`` lines, and its functions of more than ``FUNCTION``."""
    lines = len(text.splitlines())
    found = [f"{name}: {lines} lines"] if lines > FILE else []
    for node in ast.walk(ast.parse(text)):
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if function and (node.end_lineno or 0) - node.lineno >= FUNCTION:
            found.append(f"{name}: {node.name}")
    return found


def test_no_file_and_no_function_is_too_long() -> None:
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(paths) > 400
    found = [text for path in paths for text in too_long(path.relative_to(ROOT).as_posix(), path.read_text("utf-8"))]
    assert set(found) == DECLARATIONS


@pytest.mark.parametrize("lines", [59, 60, 61])
def test_the_limits_are_held(lines: int) -> None:
    body = "    pass\n" * (lines - 1)
    for kind in ("def", "async def"):
        assert bool(too_long("x", f"class A:\n @d\n {kind} f():\n{body}")) == (lines > 60)
    assert bool(too_long("x", "a = 1\n" * (340 + lines))) == (lines > 60)


def test_no_two_modules_of_the_tests_share_a_name() -> None:
    """Their folders lie on one path, so that of two only one would be imported: which, hangs on the tests' order."""
    names = [path.stem for path in sorted((ROOT / "tests").rglob("*.py")) if path.stem not in ("conftest", "__init__")]
    assert len(names) > 200 and sorted(names) == sorted(set(names))
