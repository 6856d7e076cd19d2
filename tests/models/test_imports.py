"""Imports run one way: models <- stems <- runtime <- export, and only export knows the training frameworks."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "tensorflow", "onnx", "tf2onnx", "demucs", "openunmix", "moises_light", "librosa", "scipy", "yaml"}
ROOMS = {
    "base": ("ortsep.base",),
    "models": ("ortsep.base", "ortsep.models"),
    "stems": ("ortsep.base", "ortsep.models", "ortsep.stems"),
    "runtime": ("ortsep",),
}
STANDARD_ONLY = {"models"}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_lies_below_it(room: str) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        names = imported(path)
        assert not {n.split(".")[0] for n in names} & HEAVY, path
        ours = {n for n in names if n.split(".")[0] == "ortsep"}
        if room == "runtime":
            allowed_up = path.name in {"make.py", "bench.py"}  # commands that need the export extra import it inside
            assert allowed_up or not any(n.startswith("ortsep.export") for n in ours), path
        else:
            assert all(n.startswith(ROOMS[room]) for n in ours), (path, ours)
        if room in STANDARD_ONLY:
            import sys

            assert {n.split(".")[0] for n in names} <= {*sys.stdlib_module_names, "ortsep"}, path


def test_there_are_no_circles() -> None:
    graph: dict[str, set[str]] = {}
    for room, package in (
        ("base", "ortsep.base"),
        ("models", "ortsep.models"),
        ("stems", "ortsep.stems"),
        ("runtime", "ortsep"),
        ("export", "ortsep.export"),
    ):
        for path in (ROOT / room).rglob("*.py"):
            parts = path.relative_to(ROOT / room).with_suffix("").parts
            module = ".".join([package, *(p for p in parts if p != "__init__")])
            top = ast.parse(path.read_text(encoding="utf-8")).body
            graph[module] = {n.module or "" for n in top if isinstance(n, ast.ImportFrom)}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join([*trail, module])
        if module in done or module not in graph:
            return
        for other in graph[module]:
            visit(other, (*trail, module))
        done.add(module)

    for module in graph:
        visit(module, ())
