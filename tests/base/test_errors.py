"""Errors whose words depend on where ortsep runs."""

import sys

import pytest

from ortsep.base.errors import MissingDependency


def test_the_executable_without_python_sends_nobody_to_pip_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(MissingDependency("no x; pip install x")) == "no x; pip install x"
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert str(MissingDependency("no x; pip install x")).endswith(
        "pip install x; this executable takes nothing in: install ortsep for Python"
    )
