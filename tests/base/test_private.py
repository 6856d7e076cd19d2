"""No telemetry: the commands switch onnxruntime's off before anything imports it; a user's own word stands."""

import os
import subprocess
import sys

import pytest

CODE = """
import os, sys
from ortsep.commands import ending
assert "onnxruntime" not in sys.modules
ending.run_to_end(lambda: print(os.environ["ORT_DISABLE_TELEMETRY"], flush=True))
"""


@pytest.mark.parametrize(("given", "told"), [(None, "1"), ("0", "0")])
def test_telemetry_is_off_before_onnxruntime_is_imported(given: str | None, told: str) -> None:
    env = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    env |= {} if given is None else {"ORT_DISABLE_TELEMETRY": given}
    done = subprocess.run([sys.executable, "-c", CODE], env=env, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == told, done.stderr


def test_the_library_leaves_the_environment_alone() -> None:
    code = "import os; before = dict(os.environ); import ortsep; ortsep.Separator; print(before == dict(os.environ))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "True", done.stderr


@pytest.mark.parametrize(("given", "told"), [(None, "0"), ("1", "1")])
def test_ray_is_told_not_to_tell(monkeypatch: pytest.MonkeyPatch, given: str | None, told: str) -> None:
    """Before it is imported: Ray sends usage statistics of a cluster unless its environment forbids it."""
    from ortsep.base.errors import MissingDependency
    from ortsep.fleet import onray

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "")  # so that it is put back as it was
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED")
    if given is not None:
        monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", given)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependency):
        onray._joined(onray.Cluster())
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == told
