"""Imports run one way, as DESIGN.md draws them, and each room's outer packages are its own."""

import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
from import_rules import faults, imports, room_of, sources
from places import ROOT

PACKAGES = {
    "ortsep.base": "base",
    "ortsep.models": "models",
    "ortsep.stems": "stems",
    "ortsep": "runtime",
    "ortsep.export": "export",
}
_GROUND = "base models stems"
_ENGINE = f"{_GROUND} audio graphs options engine"
_SONGS = f"{_ENGINE} separator chain songs"
_RUNTIME = f"{_SONGS} report batch measure"
_TOOLS = f"{_GROUND} graphs export.graph export.weights export.family"
_MAKING = f"{_TOOLS} export.passes"
_TABLE = {
    "base": "",
    "models": "base",
    "stems": "base models",
    "audio": _GROUND,
    "graphs": _GROUND,
    "options": _GROUND,
    "engine": f"{_GROUND} audio graphs options",
    "separator": _ENGINE,
    "chain": f"{_ENGINE} separator",
    "songs": f"{_ENGINE} separator chain",
    "report": _SONGS,
    "batch": f"{_SONGS} report",
    "measure": _SONGS,
    "server": f"{_SONGS} report batch",
    "fleet": f"{_SONGS} report batch",
    "client": _SONGS,
    "drums": "songs",
    "heap": "base",
    "commands": f"{_RUNTIME} server fleet",
    "cli": "base commands options songs",
    "__main__": "base cli",
    "export.graph": f"{_TOOLS} engine",
    "export.weights": _TOOLS,
    "export.family": _TOOLS,
    "export.passes": _TOOLS,
    "export.msst": _TOOLS,
    "export.families.*": f"{_MAKING} export.msst engine audio options",
    "export.exporter": f"{_MAKING} export.fixed export.waveform export.own",
    "export.fixed": f"{_MAKING} export.targets",
    "export.waveform": f"{_MAKING} {_ENGINE} separator",
    "export.targets": f"{_TOOLS} engine",
    "export.optimize": f"{_MAKING} export.exporter export.simplify export.fixed export.portable",
    "export.portable": _MAKING,
    "export.simplify": _MAKING,
    "export.inverse_stft": "base",
    "export.torch_graph": f"{_TOOLS} export.inverse_stft",
    "export.own": f"{_MAKING} export.simplify export.torch_graph export.own_source",
    "export.own_source": _TOOLS,
    "export.rewrite": f"{_MAKING} export.exporter",
    "export.reference": f"{_MAKING} export.exporter",
    "export.validate": f"{_MAKING} {_SONGS} export.exporter",
    "=export.families": "",
    "=export": "",
    "=": "",
}
ROOMS = {room: set(allowed.split()) for room, allowed in _TABLE.items()}
"""Room by room, what it may import besides itself, by DESIGN.md. ``=x``: the module x alone, ``x.*``: each in x."""
LAZILY = {
    *{("ortsep.commands.make", f"export.{room}") for room in ("exporter", "optimize", "rewrite", "validate")},
    ("ortsep.commands.show", "export.targets"),
    ("ortsep.measure.tune", "export.portable"),
    *{("ortsep", room) for room in ("base", "models", "options", "graphs", "separator", "chain", "songs", "measure")},
}
"""Who may import upwards inside functions, or for types alone: commands the exporters, the top its public names."""
OUTSIDE = {
    "export": {"torch", "onnx", "yaml", "safetensors", "onnxsim", "onnxruntime", "demucs", "moises_light", "openunmix"}
    | {"tensorflow", "tf2onnx", "soundfile", "numpy", "julius"},
    "server": {"fastapi", "starlette", "uvicorn", "pydantic", "python_multipart", "numpy", "soundfile"}
    | {"prometheus_client"},
    "client": {"httpx"},
    "fleet": {"ray", "fsspec", "pyarrow", "numpy"},
    "report": {"matplotlib", "jinja2", "numpy", "soundfile"},
    "measure": {"matplotlib", "numpy", "onnxruntime", "soundfile"},
    "models": set(),
    "base": {"numpy"},
}
"""Packages of others by room; the rest of the runtime has ``LEAN``."""
LEAN = {"numpy", "onnxruntime", "soundfile", "soxr", "typer"}
OF_ONE = {
    ("ortsep.commands.serve", "uvicorn"),
    ("ortsep.stems.tags", "mutagen"),
    ("ortsep.audio.song_tags", "mutagen"),
}
"""Modules with a package that the rest of their room does not have."""


@cache
def house() -> dict[str, str]:
    found = sources(ROOT, PACKAGES)
    assert len(found) > 100
    return found


def test_every_import_goes_downwards_and_there_is_no_circle() -> None:
    assert faults(house(), ROOMS, LAZILY) == []


def test_each_room_has_only_its_own_packages_of_others() -> None:
    found = []
    for each in imports(house()):
        package = each.target.split(".")[0]
        if package == "ortsep" or package in sys.stdlib_module_names:
            continue
        room = (room_of(each.module, ROOMS) or "").split(".")[0]
        if package not in OUTSIDE.get(room, LEAN) and (each.module, package) not in OF_ONE:
            found.append(str(each))
    assert found == []


def test_every_exception_is_used() -> None:
    """An exception that nobody needs would let the next fault through."""
    used = {(each.module, room_of(each.target, ROOMS)) for each in imports(house()) if each.lazy or each.typing}
    assert used >= LAZILY


def test_the_packages_of_pyproject_are_the_folders() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        told = tomllib.load(file)["tool"]["setuptools"]
    assert {name: told["package-dir"][name] for name in PACKAGES} == PACKAGES
    there = {
        ".".join([name, *path.parent.relative_to(ROOT / folder).parts])
        for name, folder in PACKAGES.items()
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert sorted(told["packages"]) == sorted(there)
    for name, folder in PACKAGES.items():
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.parent.relative_to(ROOT / folder).parts
            assert ".".join([name, *parts]) in there, f"{path} is in a folder without __init__.py"


HOUSE = {
    "ortsep": "__version__ = '1'",
    "ortsep.base": "",
    "ortsep.base.errors": "import sys",
    "ortsep.audio.song": "from ortsep import __version__\nfrom ortsep.base.errors import AudioError",
    "ortsep.songs.separate": "from ortsep.audio import song",
    "ortsep.commands.make": "def make():\n    from ortsep.export.exporter import export_model",
    "ortsep.export.exporter": "",
    "ortsep.export.families.a.graph": "from ortsep.export.graph import builder",
    "ortsep.export.families.b.graph": "",
    "ortsep.export.graph.builder": "",
}


def test_the_rule_holds_in_a_small_house() -> None:
    assert faults(HOUSE, ROOMS, LAZILY) == []


_FAMILY = "ortsep.export.families.a.graph"


@pytest.mark.parametrize(
    ("module", "text", "words"),
    [
        ("ortsep.audio.song", "from ortsep.songs import separate", "audio may not import songs"),
        ("ortsep.audio.song", "from ortsep import songs", "audio may not import ="),
        ("ortsep.audio.song", "import ortsep.songs.separate", "audio may not import songs"),
        ("ortsep.audio.song", "def f():\n    if 1:\n        from ortsep.songs.separate import x", "audio may not"),
        ("ortsep.audio.song", "if TYPE_CHECKING:\n    from ortsep.songs.separate import x", "audio may not"),
        ("ortsep.audio.song", "import importlib\nimportlib.import_module('ortsep.songs.separate')", "audio may not"),
        ("ortsep.audio.song", "class A:\n    def f(self): return lambda: __import__('ortsep.songs')", "audio may not"),
        ("ortsep.audio.song", "from . import decode", "imports are absolute"),
        ("ortsep.commands.make", "from ortsep.export.exporter import export_model", "only in a function"),
        ("ortsep.commands.show", "def f():\n    import ortsep.export.exporter", "commands may not import export.e"),
        (_FAMILY, "import ortsep.export.families.b.graph", "families.a may not import export.families.b"),
        ("ortsep.base.errors", "import ortsep.base.other", "a circle: ortsep.base.errors -> ortsep.base.other -> o"),
        ("ortsep.attic", "", ""),
    ],
)
def test_a_broken_rule_is_found(module: str, text: str, words: str) -> None:
    broken = {**HOUSE, "ortsep.base.other": "def f():\n    from ortsep.base.errors import x", module: text}
    found = faults(broken, ROOMS, LAZILY)
    if words:
        assert found and words in found[0]
    else:
        broken["ortsep.audio.song"] = "from ortsep.attic import x"
        assert "ortsep.attic is in no room" in faults(broken, ROOMS, LAZILY)[0]


@pytest.mark.parametrize("package", ["torch", "matplotlib", "fastapi"])
def test_a_package_of_others_in_the_wrong_room_is_found(package: str) -> None:
    (found,) = imports({"ortsep.audio.song": f"def f():\n    from {package}.x import y"})
    assert found.target == f"{package}.x" and found.lazy and package not in LEAN


def test_the_sources_are_found_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "runtime" / "a").mkdir(parents=True)
    (tmp_path / "runtime" / "a" / "__init__.py").write_text("1")
    (tmp_path / "runtime" / "b.py").write_text("2")
    assert sources(tmp_path, {"ortsep": "runtime"}) == {"ortsep.a": "1", "ortsep.b": "2"}
