"""What public CI is told to run is there: make's targets, scripts, folders of tests, and each job's parts."""

import os
import re
import shlex

import pytest
from places import ROOT

TEXT = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
RUNS = re.findall(r"^ +- run: (.+)$", TEXT, re.MULTILINE)
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def missing(line: str) -> list[str]:
    """What a line of shell names and this repository has not."""
    words = [word for word in shlex.split(line) if not re.match(r"\w+=|sudo$", word)]
    if words[0] == "make":
        return [word for word in words[1:] if word not in TARGETS]
    named = [word for word in words if re.match(r"(tests|deploy|benchmarks|\.ci)/", word)]
    absent = [word for word in named if not (ROOT / word).exists()]
    runnable = words[0] not in named or os.access(ROOT / words[0], os.X_OK)
    return absent if runnable else [*absent, f"{words[0]} can't be run"]


def test_what_is_missing_would_be_seen() -> None:
    assert missing("make lint nothing") == ["nothing"] and missing("python -m pytest tests/none") == ["tests/none"]
    assert missing("sudo START_MS=1 deploy/none")[0] == "deploy/none" and missing("A=1 make test") == []
    assert missing("deploy/Dockerfile") == ["deploy/Dockerfile can't be run"]


@pytest.mark.parametrize("line", sorted(set(RUNS)))
def test_every_line_names_what_is_there(line: str) -> None:
    assert not missing(line)


def test_the_systems_and_the_macs_table_are_in_it() -> None:
    for system in ("ubuntu-24.04", "ubuntu-24.04-arm", "macos-15", "windows-2025"):
        assert system in TEXT
    versions = re.findall(r'"(3\.\d+)"', re.findall(r"python: \[(.*)\]", TEXT)[0])
    promised = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert versions == promised and len(promised) == 4
    assert any("provider_table.py coreml" in line for line in RUNS) and len(RUNS) > 12
