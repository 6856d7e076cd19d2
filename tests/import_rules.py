"""The import rule of the house, checked from sources alone: who imports what at any depth, and whether it may."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard


@dataclass(frozen=True)
class Import:
    """One import of ``module``: what it names (a module of ours, or another package's), where, and how it is meant."""

    module: str
    target: str
    line: int
    lazy: bool
    """In a function: it happens when that is called."""
    typing: bool
    """Under ``if TYPE_CHECKING``: it never happens."""
    name: str = ""
    """What is taken from the target, where that is no module itself."""

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}{'.' + self.name if self.name else ''}"


def sources(root: Path, packages: Mapping[str, str]) -> dict[str, str]:
    """Source by module name of all packages; ``packages``: folder by package name."""
    found = {}
    for package, folder in packages.items():
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root / folder).with_suffix("").parts
            found[".".join([package, *(p for p in parts if p != "__init__")])] = path.read_text(encoding="utf-8")
    return found


def imports(texts: Mapping[str, str]) -> list[Import]:
    """Every import of every module, in functions and under TYPE_CHECKING too; ``from X import y`` is of X.y if that is
    a module. Literal arguments of ``import_module`` count. Raises SyntaxError."""
    return [found for module, text in texts.items() for found in _of(module, ast.parse(text), texts)]


def _of(
    module: str, tree: ast.AST, texts: Mapping[str, str], lazy: bool = False, typing: bool = False
) -> Iterator[Import]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, node.lineno, lazy, typing)
        elif isinstance(node, ast.ImportFrom):
            source = "." * node.level + (node.module or "")
            for alias in node.names:
                whole = f"{source}.{alias.name}"
                if whole in texts:
                    yield Import(module, whole, node.lineno, lazy, typing)
                else:
                    yield Import(module, source, node.lineno, lazy, typing, alias.name)
        elif isinstance(node, ast.Call) and _named(node.func) in ("import_module", "__import__"):
            yield from (Import(module, str(a.value), node.lineno, lazy, typing) for a in node.args[:1] if _literal(a))
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(node, ast.If) and _named(node.test) == "TYPE_CHECKING":
            yield from _of(module, ast.Module(node.body, []), texts, lazy, True)
            yield from _of(module, ast.Module(node.orelse, []), texts, lazy, typing)
        else:
            yield from _of(module, node, texts, lazy or inside, typing)


def _named(node: ast.AST) -> str:
    """The last part of a name with dots."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _literal(node: ast.AST) -> TypeGuard[ast.Constant]:
    return isinstance(node, ast.Constant)


def room_of(module: str, rooms: Mapping[str, object], top: str = "ortsep") -> str | None:
    """The innermost of ``rooms`` that the module is or lies in; ``x.*`` is one for each name there, ``=x`` x alone."""
    parts = module.removeprefix(f"{top}.").split(".") if module != top else [""]
    if (alone := f"={'.'.join(parts)}") in rooms:
        return alone
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        if name in rooms:
            return name
        if length > 1 and ".".join([*parts[: length - 1], "*"]) in rooms:
            return name
    return None


def faults(texts: Mapping[str, str], rooms: Mapping[str, set[str]], lazily: set[tuple[str, str]]) -> list[str]:
    """What breaks the rule, one line each.

    ``rooms``: which rooms a room may import, besides itself. ``lazily``: pairs (module, room) that may be imported in
    functions, and under TYPE_CHECKING, only. ``__version__`` may be taken from the top by everybody.
    """
    found, graph = list[str](), dict[str, set[str]]()
    for each in imports(texts):
        if each.target.startswith("."):
            found.append(f"{each}: imports are absolute")
        if each.target.split(".")[0] != "ortsep" or (each.target == "ortsep" and each.name == "__version__"):
            continue
        here, there = room_of(each.module, rooms), room_of(each.target, rooms)
        if here is None or there is None:
            found.append(f"{each}: {each.module if here is None else each.target} is in no room of the table")
            continue
        kind = f"{here.rpartition('.')[0]}.*"
        allowed = rooms[here] if here in rooms else rooms[kind]
        if (each.module, there) in lazily:
            if not (each.lazy or each.typing):
                found.append(f"{each}: only in a function")
            continue
        if here != there and there not in allowed:
            found.append(f"{each}: {here} may not import {there}")
        graph.setdefault(each.module, set()).add(each.target)
    return found + [f"a circle: {' -> '.join(circle)}" for circle in circles(graph)]


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """A way round for each module that is found on one, once a circle."""
    found: list[list[str]] = []
    done: set[str] = set()

    def visit(module: str, trail: list[str]) -> None:
        if module in trail:
            found.append([*trail[trail.index(module) :], module])
            return
        if module in done:
            return
        for other in sorted(graph.get(module, ())):
            visit(other, [*trail, module])
        done.add(module)

    for module in sorted(graph):
        visit(module, [])
    return found
