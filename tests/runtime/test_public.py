"""The public face: whole, lazy, typed, and documented by examples that run."""

import doctest
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from places import ROOT

import ortsep

TYPED = """
from pathlib import Path
from typing import assert_type
import numpy as np
import ortsep

separator = ortsep.Separator("drums_mini", provider="cpu", threads=1)
assert_type(separator, ortsep.Separator)
assert_type(separator.stems, tuple[str, ...])
assert_type(separator.spec, ortsep.ModelSpec)
chain = ortsep.Chain(separator, separator)
assert_type(chain, ortsep.Chain)
report = ortsep.separate_file(chain, Path("x"), ortsep.Files(format="flac"), ortsep.Options(stems=("kick",)))
assert_type(report, ortsep.SongReport)
assert_type(report.stems, dict[str, str | None])
assert_type(report.outputs, tuple[ortsep.Stem, ...])
assert_type(ortsep.OutputError("x").status, int)
assert_type(ortsep.Cancel().cancelled, bool)
assert_type(ortsep.__version__, str)
assert_type(ortsep.adopt(Path("x"), ortsep.Wishes(stems=("a",))), ortsep.Adopted)
"""
WRONG = """
import ortsep
ortsep.Separator(3, nonsense=4)
ortsep.Separator("x").no_such_method()
ortsep.no_such_name
ortsep.separate_file("x", "y")
"""


def checked(tmp_path: Path, text: str) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("mypy")
    (tmp_path / "user.py").write_text(text)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "user.py"]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)


def test_a_type_checker_sees_every_public_name(tmp_path: Path) -> None:
    every = "".join(f"reveal_type(ortsep.{name})\n" for name in ortsep.__all__)
    done = checked(tmp_path, TYPED + every)
    assert done.returncode == 0, done.stdout
    revealed = re.findall(r'Revealed type is "(.*)"', done.stdout)
    assert len(revealed) == len(ortsep.__all__) and "Any" not in revealed and "object" not in revealed


def test_a_type_checker_sees_what_is_wrong(tmp_path: Path) -> None:
    told = checked(tmp_path, WRONG).stdout
    assert {int(line) for line in re.findall(r"user\.py:(\d+): error", told)} == {3, 4, 5, 6}


def test_every_public_name_is_there_and_listed() -> None:
    assert set(ortsep.__all__) <= set(dir(ortsep))
    for name in ortsep.__all__:
        assert getattr(ortsep, name) is not None
    errors = {name for name in ortsep.__all__ if isinstance(getattr(ortsep, name), type)} - {"OrtsepError"}
    from ortsep.base import errors as module

    own = {name for name, value in vars(module).items() if isinstance(value, type)}
    assert own - {"OrtsepError"} <= errors, "an error that can't be caught by its public name"
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = ortsep.nonsense  # type: ignore[attr-defined]


def test_the_import_alone_loads_nothing_heavy() -> None:
    code = "import ortsep, sys; print(*{m.split('.')[0] for m in sys.modules} & {'numpy', 'onnxruntime', 'soundfile'})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split() == []


def test_the_documentation_runs_and_names_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    for name in ortsep.__all__:
        assert re.search(rf"\b{name}\b", text) or name == "__version__", f"docs/python.md says nothing of {name}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ORTSEP_MODELS", raising=False)
    test = doctest.DocTestParser().get_doctest(text, {}, "python.md", None, 0)
    assert len(test.examples) > 20
    told: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL)
    runner.run(test, out=told.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(told)


def test_the_snippet_of_the_readme_works_as_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder with a song, with the bundled model in place of one that has to be exported."""
    import numpy as np
    import soundfile

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    snippet = re.search(r"From Python[^\n]*\n\n((?:    [^\n]*\n|\n)+)", text)
    assert snippet is not None
    code = "\n".join(line[4:] for line in snippet[1].splitlines()).replace("htdemucs", "drums_mini")
    code = code.replace("vocals", "kick")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ORTSEP_MODELS", raising=False)
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (22050, 2))
    soundfile.write("song.wav", x, 44100)
    given: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), given)
    assert (tmp_path / "stems").is_dir() and set(given["stems"]) == {"kick", "residual"}
