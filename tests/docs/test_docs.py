"""The pages of docs/: their commands can be typed, the code of the first minute and of the embedding is right."""

import contextlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from places import ROOT

from ortsep.base.errors import FileMissing
from ortsep.cli import app

PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "models" / "README.md"])
COMMANDS: Any = typer.main.get_command(app)


def commands(text: str) -> Iterator[str]:
    """What is typed as ``ortsep ...`` in a page's blocks of code, lines that a backslash folds put together."""
    block = False
    lines = iter(text.replace("\\\n", " ").splitlines())
    for line in lines:
        block = not block if line.startswith("```") else block
        if not (block or line.startswith("    ")):
            continue
        for part in re.split(r"\s[|;]\s|&&", re.sub(r"(^|\s)#.*", "", line)):
            found = re.match(r"\s*(?:\$ )?(?:\w+=\S+ )*(?:\.venv\S*/bin/|bin/)?ortsep (.*)", part)
            if found:
                yield re.sub(r"\s[<>]\s?\S+|\s2?>&?\S*", "", found[1]).strip()


ALL = [(page.name, line) for page in PAGES for line in commands(page.read_text(encoding="utf-8"))]


def test_commands_are_found() -> None:
    text = "    x=1 ortsep run a b \\\n  --json   # said\n```\n$ ortsep models | head\n```\nortsep in a sentence\n"
    assert [" ".join(line.split()) for line in commands(text)] == ["run a b --json", "models"] and len(ALL) > 60


@pytest.mark.parametrize(("page", "line"), sorted(set(ALL)))
def test_every_command_of_the_pages_can_be_typed(page: str, line: str) -> None:
    """Parsed as the command line parses it: the command is there, and so is each option, with a value of its kind."""
    words = shlex.split(line)
    if words[0] in ("--version", "--help") or set("[]…") & set(line) or "..." in line:
        return  # a synopsis
    command = COMMANDS.commands[words[0]]
    with contextlib.suppress(FileMissing):  # folders that a reader has
        if "--help" not in words:
            command.make_context(words[0], words[1:])


@pytest.mark.long
def test_the_first_minute_goes_as_it_is_told(tmp_path: Path) -> None:
    """All blocks of the tutorial in their order, but what needs the network."""
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    env = {**os.environ, "ORTSEP_MODELS": str(tmp_path / "models")}
    blocks = re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL)
    ran = 0
    for kind, code in blocks:
        if "pip install" in code or "htdemucs" in code:
            continue
        lines = [code] if kind == "python" else code.strip().splitlines()
        for line in lines:
            command = ["-c", line] if kind == "python" else ["-m", *shlex.split(line)]
            done = subprocess.run([sys.executable, *command], cwd=tmp_path, env=env, capture_output=True, text=True)
            assert done.returncode == 0, (line, done.stderr)
            ran += 1
    assert ran >= 7
    stems = {path.stem for path in (tmp_path / "separated" / "drums_mini" / "drums").glob("*.wav")}
    assert stems == {"kick", "snare", "toms", "hihat", "cymbals"}
    assert {path.name for path in (tmp_path / "some").rglob("*.flac")} == {"kick.flac", "snare.flac", "residual.flac"}


def test_the_site_has_every_page() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    named = {found[1] or found[0] for found in re.findall(r"^([\w ]+?)(?: <(\w+)>)?$", index, re.MULTILINE)}
    assert {page.stem for page in (ROOT / "docs").glob("*.md")} - {"index"} <= named
