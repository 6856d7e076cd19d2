"""Reading checkpoints: files in the layouts that exist, and files made to do harm."""

import io
import json
import os
import pickle
import random
import resource
import struct
import time
import zipfile
from collections.abc import Callable
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from demucs.hdemucs import HDemucs
from demucs.htdemucs import HTDemucs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from ortsep.base.errors import FileMissing, OrtsepError, WeightsError
from ortsep.export.families.demucs.package import bag_yaml, find_member, load_demucs_package
from ortsep.export.weights.checkpoints import file_sha256, load_state, plain_state

STATE = {"a.weight": torch.arange(6.0).view(2, 3) / 7, "a.bias": torch.tensor([1.5, -2.0]), "n": torch.tensor(3)}
KWARGS = {"sources": ["drums", "vocals"], "segment": Fraction(39, 5), "channels": 4, "multi_freqs": [], "norm": None}


def package(**changes: Any) -> dict[str, Any]:
    """What demucs.states.serialize_model returns, with the metrics that the released files have too."""
    half = {key: value.half() if value.is_floating_point() else value for key, value in STATE.items()}
    return {
        "klass": HTDemucs,
        "args": (),
        "kwargs": KWARGS,
        "state": half,
        "training_args": {"dset": {"segment": 11, "wav": None}, "optim": {"lr": 3e-4}, "weights": [1.0, 1.0]},
        "metrics": {"nsdr": np.float64(9.0), "valid": [{"loss": 0.1}], "when": np.float32(1)},
        **changes,
    }


def saved(path: Path, content: Any, legacy: bool = False) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


@pytest.mark.parametrize("suffix", [".th", ".pth", ".pt", ".ckpt"])
@pytest.mark.parametrize("legacy", [False, True])
def test_state_of_torch_files(tmp_path: Path, suffix: str, legacy: bool) -> None:
    state = load_state(saved(tmp_path / f"x{suffix}", {"state_dict": STATE, "epoch": 3, "lr": 0.1}, legacy))
    assert state["epoch"] == 3
    assert all(torch.equal(state["state_dict"][key], value) for key, value in STATE.items())
    assert plain_state(state, tmp_path).keys() == STATE.keys()


def test_state_of_safetensors(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "x.safetensors")
    state = load_state(tmp_path / "x.safetensors")
    assert all(torch.equal(state[key], value) for key, value in STATE.items())


def test_demucs_package(tmp_path: Path) -> None:
    path = saved(tmp_path / "955717e8.th", package())
    read = load_demucs_package(path)
    assert (read.network, read.args, read.kwargs) == ("HTDemucs", (), KWARGS)
    assert read.state["a.weight"].dtype == torch.float16 and torch.equal(read.state["n"], STATE["n"])
    assert read.sha256 == sha256(path.read_bytes()).hexdigest() == file_sha256(path)
    assert load_demucs_package(saved(path, package(klass=HDemucs))).network == "HDemucs"
    with pytest.raises(WeightsError, match="old format"):
        load_demucs_package(saved(path, package(), legacy=True))


def test_demucs_safetensors(tmp_path: Path) -> None:
    fraction = {"_type": "fraction", "numerator": 39, "denominator": 5}
    kwargs = json.dumps({**KWARGS, "segment": fraction})
    save_file(STATE, tmp_path / "x.safetensors", {"klass": "demucs.htdemucs.HTDemucs", "args": "[]", "kwargs": kwargs})
    read = load_demucs_package(tmp_path / "x.safetensors")
    assert (read.network, read.kwargs) == ("HTDemucs", KWARGS) and read.state.keys() == STATE.keys()


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"klass": "os.system", "args": '["touch x"]'}, "not laid out"),
        ({"klass": "HTDemucs", "kwargs": "{"}, "kwargs"),
        ({"klass": "HTDemucs", "kwargs": "[1]"}, "not laid out"),
        ({"klass": "HTDemucs", "kwargs": "[" * 100_000}, "kwargs"),
        ({"klass": "HTDemucs", "args": '[{"a": 1}]'}, "network with"),
        ({"klass": "HTDemucs", "kwargs": '{"s": {"_type": "fraction", "numerator": "1e9", "denominator": 1}}'}, "1e9"),
        ({"klass": "HTDemucs", "kwargs": '{"channels": 1000000000}'}, "1000000000"),
        ({"klass": "HTDemucs", "structure": "{}"}, "quantised"),
    ],
)
def test_hostile_metadata(tmp_path: Path, metadata: dict[str, str], words: str) -> None:
    save_file(STATE, tmp_path / "x.safetensors", metadata)
    with pytest.raises(WeightsError, match=words):
        load_demucs_package(tmp_path / "x.safetensors")


class _Runs:
    """A pickle of this calls a function when it is loaded."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("where", ["state", "training_args", "klass", "metrics", "whole"])
def test_code_is_refused_by_name_and_not_run(tmp_path: Path, where: str, legacy: bool) -> None:
    mark = tmp_path / "ran"
    evil = _Runs(os.mkdir, str(mark))
    content = {**package(), "klass": "HTDemucs", "kwargs": {}, where: evil}
    path = saved(tmp_path / "x.th", evil if where == "whole" else content, legacy)
    for load in (load_state, load_demucs_package):
        with pytest.raises(WeightsError, match=rf"asks for {os.mkdir.__module__}\.mkdir"):
            load(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("evil", "word"),
    [
        (_Runs(eval, "1"), "eval"),
        (_Runs(getattr, "text", "upper"), "getattr"),
        (_Runs(torch.hub.load, "a", "b"), "torch.hub.load"),
        (_Runs(Fraction, "1e999999999"), "1e999999999"),
        (random.Random(3), "random.Random"),
    ],
)
def test_other_pickles_are_refused(tmp_path: Path, evil: Any, word: str) -> None:
    with pytest.raises(WeightsError, match=word) as caught:
        load_demucs_package(saved(tmp_path / "x.th", package(training_args={"x": [evil]})))
    assert "weights_only" not in str(caught.value)


def test_a_network_class_is_never_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HTDemucs, "__init__", lambda *_, **__: pytest.fail("built while loading"))
    path = saved(tmp_path / "x.th", package(training_args=_Runs(HTDemucs, ["drums"], 2, 1 << 30)))
    assert load_demucs_package(path).network == "HTDemucs"


@pytest.mark.parametrize(
    "changes",
    [
        {"klass": "HTDemucs2"},
        {"klass": torch.float32},
        {"state": {}},
        {"state": {"a": 3}},
        {"state": None},
        {"kwargs": [1]},
        {"kwargs": {1: 2}},
        {"kwargs": {"channels": 10**12}},
        {"kwargs": {"channels": float("nan")}},
        {"kwargs": {"channels": {"a": 1}}},
        {"args": 3},
        {"args": ([[[[[1] * 65]]]],)},
        {"state": {"__quantized": True, "x": STATE["n"]}},
    ],
)
def test_other_layouts_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(WeightsError):
        load_demucs_package(saved(tmp_path / "x.th", package(**changes)))


def test_bare_state_dict(tmp_path: Path) -> None:
    read = load_demucs_package(saved(tmp_path / "x.pt", {"model_state_dict": STATE}))
    assert read.network is None and read.state.keys() == STATE.keys()


@pytest.mark.parametrize("held", [[1, 2], torch.ones(2), "text", {"a": 1}, {}])
def test_no_parameters(tmp_path: Path, held: Any) -> None:
    with pytest.raises(WeightsError):
        load_demucs_package(saved(tmp_path / "x.th", held))


@pytest.fixture
def memory() -> Any:
    """4 GiB more of address space than now, so that a bomb that goes off fails the test and not the machine."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    old = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + (4 << 30), old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, old)


def test_zip_bomb(tmp_path: Path, memory: None) -> None:
    source = saved(tmp_path / "x.th", {"a": torch.zeros(30_000_000)})
    bomb = tmp_path / "bomb.th"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert bomb.stat().st_size < 1_000_000
    start = time.monotonic()
    with pytest.raises(WeightsError, match="would unpack to"):
        load_state(bomb)
    assert time.monotonic() - start < 5


def test_a_zip_that_lies_about_sizes(tmp_path: Path, memory: None) -> None:
    data = bytearray(saved(tmp_path / "x.th", {"a": torch.zeros(100)}).read_bytes())
    end = data.rindex(b"PK\x05\x06")
    (entry,) = struct.unpack_from("<I", data, end + 16)
    while data[entry : entry + 4] == b"PK\x01\x02":
        struct.pack_into("<II", data, entry + 20, 0xFFFFFFF0, 0xFFFFFFF0)
        entry += 46 + sum(struct.unpack_from("<HHH", data, entry + 28))
    (tmp_path / "x.th").write_bytes(data)
    with pytest.raises(WeightsError):
        load_state(tmp_path / "x.th")


@pytest.mark.parametrize(("names", "taken"), [(3, True), (8, False)])
def test_tied_parameters_may_be_named_a_few_times(tmp_path: Path, names: int, taken: bool) -> None:
    """One tensor of 4 MB under several names: tied weights, or a file that describes far more than it holds."""
    tensor = torch.zeros(1 << 20)
    path = saved(tmp_path / "x.th", {f"w{k}": tensor for k in range(names)})
    assert path.stat().st_size < 5_000_000, "stored once"
    if taken:
        assert len(load_state(path)) == names
        return
    with pytest.raises(WeightsError, match="describes 33554432 bytes of tensors in a much smaller file"):
        load_state(path)


def test_a_tensor_larger_than_its_file(tmp_path: Path, memory: None) -> None:
    for tensor in (torch.zeros(1).expand(1 << 40), torch.zeros(1, dtype=torch.float16).expand(1 << 20, 1 << 20)):
        with pytest.raises(WeightsError, match="bytes of tensors"):
            load_state(saved(tmp_path / "x.th", {"a": {"b": [tensor]}}))
    tied = torch.zeros(400_000)
    assert load_state(saved(tmp_path / "x.th", {"a": tied, "b": tied}))["b"].numel() == 400_000


def _legacy_claiming(numel: int) -> bytes:
    """A legacy file whose storage says that it has ``numel`` elements, followed by none of them."""
    out = io.BytesIO()
    torch.save({"a": torch.zeros(77)}, out, _use_new_zipfile_serialization=False)
    data = out.getvalue()
    assert data.count(b"K\x4d") >= 2
    long = pickle.dumps(numel, 2)[2:-1]
    return data.replace(b"K\x4d", long)


@pytest.mark.parametrize("numel", [1 << 31, 1 << 36, 1 << 60, -5])
def test_a_legacy_file_that_claims_much(tmp_path: Path, numel: int, memory: None) -> None:
    (tmp_path / "x.th").write_bytes(_legacy_claiming(numel))
    start = time.monotonic()
    with pytest.raises(WeightsError):
        load_state(tmp_path / "x.th")
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("legacy", [False, True])
def test_damaged_files(tmp_path: Path, legacy: bool) -> None:
    data = saved(tmp_path / "x.th", package(), legacy).read_bytes()
    cuts = [1, 3, 10, 100, 300, len(data) // 2, len(data) - 30, len(data) - 1]
    for cut in cuts:
        (tmp_path / "x.th").write_bytes(data[:cut])
        with pytest.raises(WeightsError):
            load_demucs_package(tmp_path / "x.th")


@pytest.mark.parametrize(
    "content", [b"", b"hello\n" * 50, b"PK\x03\x04" + b"\0" * 100, b"\x80\x02.", b"<html>404</html>"]
)
@pytest.mark.parametrize("suffix", [".th", ".pt", ".safetensors"])
def test_no_checkpoint_at_all(tmp_path: Path, content: bytes, suffix: str) -> None:
    (tmp_path / f"x{suffix}").write_bytes(content)
    for load in (load_state, load_demucs_package):
        with pytest.raises(WeightsError) as caught:
            load(tmp_path / f"x{suffix}")
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_safetensors_with_absurd_headers(tmp_path: Path, memory: None) -> None:
    path = tmp_path / "x.safetensors"
    big = json.dumps({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    for header, length in ((b"{}", 1 << 62), (big, len(big)), (b"[" * 9000, 9000)):
        path.write_bytes(struct.pack("<Q", length) + header)
        with pytest.raises(WeightsError):
            load_state(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=6)), min_size=1, max_size=4),
    kind=st.sampled_from(["zip", "legacy", "safetensors"]),
)
def test_fuzzed_bytes_give_a_package_or_an_error(
    tmp_path: Path, edits: list[tuple[float, bytes]], kind: str, memory: None
) -> None:
    path = tmp_path / ("x.safetensors" if kind == "safetensors" else "x.th")
    if kind == "safetensors":
        save_file(STATE, path, {"klass": "demucs.htdemucs.HTDemucs", "kwargs": '{"channels": 4}'})
    else:
        saved(path, package(), kind == "legacy")
    data = bytearray(path.read_bytes())
    for place, new in edits:
        at = int(place * (len(data) - len(new)))
        data[at : at + len(new)] = new
    path.write_bytes(data)
    try:
        assert isinstance(load_demucs_package(path).state, dict)
    except OrtsepError as error:
        assert str(error)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    for call in (load_state, load_demucs_package, file_sha256, bag_yaml):
        with pytest.raises(FileMissing, match="no checkpoint at"):
            call(tmp_path / "none.th")
        with pytest.raises(FileMissing, match="is a folder"):
            call(tmp_path)


def _member(folder: Path, signature: str, **changes: Any) -> Path:
    path = saved(folder / "x.th", package(**changes))
    return path.rename(folder / f"{signature}-{file_sha256(path)[:8]}.th")


def test_bag(tmp_path: Path) -> None:
    first, second = _member(tmp_path, "aaaa0000"), saved(tmp_path / "bbbb1111.th", package())
    yaml = tmp_path / "bag.yaml"
    yaml.write_text("models: ['aaaa0000', 'bbbb1111']\nweights: [\n [1., 0.], [0, 1],\n]\nsegment: 44")
    bag = bag_yaml(yaml)
    assert (bag.files, bag.weights, bag.segment) == ((first, second), ((1.0, 0.0), (0.0, 1.0)), 44)
    yaml.write_text("models: ['aaaa0000']")
    assert bag_yaml(yaml) == type(bag)((first,), None, None)
    save_file(STATE, tmp_path / "cccc2222.safetensors")
    assert find_member(tmp_path, "cccc2222").suffix == ".safetensors"


def test_bag_with_a_damaged_or_missing_member(tmp_path: Path) -> None:
    path = _member(tmp_path, "aaaa0000")
    yaml = tmp_path / "bag.yaml"
    yaml.write_text("models: [aaaa0000]")
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(WeightsError, match=f"and not {path.stem[-8:]}"):
        bag_yaml(yaml)
    saved(tmp_path / "aaaa0000.th", package())
    with pytest.raises(WeightsError, match="keep one"):
        bag_yaml(yaml)
    yaml.write_text("models: [bbbb1111]")
    with pytest.raises(FileMissing, match="no bbbb1111-HASH"):
        bag_yaml(yaml)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "models: 3",
        "models: []",
        "models: ['../../etc/passwd']",
        "models: ['a b']",
        "models: [[1]]",
        "models: [aaaa0000]\nweights: [[1, x]]",
        "models: [aaaa0000]\nweights: [[.nan, 1]]",
        "models: [aaaa0000]\nweights: [[-1, 1]]",
        "models: [aaaa0000]\nweights: [[1, 1], [1, 1]]",
        "models: [aaaa0000]\nweights: 3",
        "models: [aaaa0000]\nsegment: -1",
        "models: [aaaa0000]\nsegment: [1]",
        "models: [aaaa0000]\nsegment: .inf",
        "models: !!python/object/apply:os.system ['true']",
        "models: [" + "[" * 3000,
        "a: &a [x, x]\nb: &b [*a, *a]\nmodels: *b",
        "models: \x00",
        "#" * 70_000,
    ],
)
def test_broken_bags(tmp_path: Path, text: str) -> None:
    saved(tmp_path / "aaaa0000.th", package())
    (tmp_path / "bag.yaml").write_text(text)
    with pytest.raises((WeightsError, FileMissing)):
        bag_yaml(tmp_path / "bag.yaml")
