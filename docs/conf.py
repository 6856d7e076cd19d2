"""The site of these pages: Sphinx with furo and MyST, built offline by ``make docs``.

Why Sphinx and furo, and not MkDocs with Material: the pages are Markdown either way (MyST), but the docstrings are
written with Sphinx's ``literals`` and doctests, so autodoc shows them as they are; search, fonts and scripts are files
of the site, so it opens from a disk without the network, where Material needs a plugin or a setting for each.
"""

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import typer

import ortsep
from ortsep.cli import app as cli

project, author, copyright = "ortsep", "The ortsep authors", "The ortsep authors"
version = release = ortsep.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown"}
html_theme, html_title = "furo", f"ortsep {version}"
html_static_path: list[str] = []
exclude_patterns = ["_build"]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing", "myst.header"]  # links to files of the repository that are no pages
OUTSIDE = Path(__file__).parent / "site"
"""What is generated, beside the pages that are written."""


def _help(command: Any, names: list[str]) -> str:
    """``ortsep NAME --help`` at 80 columns, from inside this process."""
    out = io.StringIO()
    context = command.make_context(" ".join(names), [], resilient_parsing=True, max_content_width=80)
    with contextlib.redirect_stdout(out):
        print(command.get_help(context))
    return out.getvalue()


def _commands() -> str:
    group: Any = typer.main.get_command(cli)
    pages = ["# Commands\n", "```text\n" + _help(group, ["ortsep"]) + "```\n"]
    for name, command in group.commands.items():
        if not command.hidden:
            pages.append(f"## ortsep {name}\n\n```text\n{_help(command, ['ortsep', name])}```\n")
    return "\n".join(pages)


def _http() -> str:
    """The server's own OpenAPI document, as a table and whole."""
    import tempfile

    from ortsep.server.app import make_app
    from ortsep.server.settings import Settings

    with tempfile.TemporaryDirectory() as folder:
        document = make_app(Settings(data=Path(folder) / "data", models=("drums_mini",))).openapi()
    lines = ["# HTTP\n", "`ortsep serve` describes itself at `/v1/openapi.json`; this is that document.\n"]
    lines += ["| | address | |", "|---|---|---|"]
    for path, methods in document["paths"].items():
        for method, of in methods.items():
            lines.append(f"| {method.upper()} | `{path}` | {of.get('summary', '')} |")
    return "\n".join([*lines, "", "```json", json.dumps(document, indent=1), "```", ""])


def _python() -> str:
    named = sorted(name for name in ortsep.__all__ if not name.startswith("__"))
    parts = ["# Python\n"]
    for name in named:
        kind = "autofunction" if name[0].islower() else "autoclass"
        members = "   :members:\n" if kind == "autoclass" else ""
        parts.append(f"## {name}\n\n```{{eval-rst}}\n.. {kind}:: ortsep.{name}\n{members}```\n")
    return "\n".join(parts)


def generate() -> None:
    """Write the reference, from what is installed, below ``docs/site``."""
    OUTSIDE.mkdir(exist_ok=True)
    for name, text in (("commands", _commands()), ("http", _http()), ("reference", _python())):
        (OUTSIDE / f"{name}.md").write_text(text, encoding="utf-8")


def setup(app: Any) -> None:
    """Sphinx calls this first."""
    sys.path.insert(0, str(Path(__file__).parent))
    app.connect("builder-inited", lambda _: generate())
