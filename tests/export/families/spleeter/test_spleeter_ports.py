"""Spleeter's checkpoints as its ports to PyTorch keep them: the same model, and no code of the file's runs."""

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ortsep.base.errors import FileMissing, UsageError, WeightsError
from ortsep.export.exporter import export_model, open_named
from ortsep.export.families.spleeter.torch_files import read_stems, stem_files
from ortsep.export.families.spleeter.weights import random_variables
from ortsep.export.family import Choice
from ortsep.export.weights.numpy_pickle import holds_arrays, read_arrays

pytest.importorskip("onnx")
NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def ported(variables: Mapping[str, Any], stem: int) -> dict[str, Any]:
    """One stem's parameters as torch's modules name and lay them out."""

    def name(kind: str, index: int) -> str:
        return f"{kind}_{index}" if index else kind

    made = {}
    for i in range(6):
        layers = {f"down{i + 1}_conv.1": name("conv2d", 7 * stem + i)}
        layers |= {f"up{i + 1}.0": name("conv2d_transpose", 6 * stem + i)}
        layers |= {"up7.0": name("conv2d", 7 * stem + 6)} if i == 5 else {}
        for theirs, ours in layers.items():
            made[f"{theirs}.weight"] = np.ascontiguousarray(variables[f"{ours}/kernel"].transpose(3, 2, 0, 1))
            made[f"{theirs}.bias"] = variables[f"{ours}/bias"]
        for theirs, index in ((f"down{i + 1}_act.0", i), (f"up{i + 1}.3", 6 + i)):
            ours = name("batch_normalization", 12 * stem + index)
            made |= {f"{theirs}.{key}": variables[f"{ours}/{value}"] for key, value in NORM.items()}
    return made


def save(path: Path, held: Any, protocol: int = 2) -> Path:
    """As ``torch.save`` does for what has no tensors."""
    return write(path, pickle.dumps(held, protocol))


def write(path: Path, pickled: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{path.stem}/data.pkl", pickled)
        archive.writestr(f"{path.stem}/version", "3\n")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("port")
    variables = random_variables(2, 5)
    for stem in range(2):
        save(place / f"testcheckpoint{stem}.ckpt", ported(variables, stem), protocol=2 + 2 * stem)
    return place


def test_the_variables_are_tensorflows(folder: Path) -> None:
    expected = random_variables(2, 5)
    del expected["global_step"]
    read = read_stems(stem_files(folder))
    assert sorted(read) == sorted(expected)
    assert all(np.array_equal(read[name], expected[name]) for name in expected)


def test_torch_writes_what_is_read(tmp_path: Path) -> None:
    torch: Any = pytest.importorskip("torch")
    held = OrderedDict(a=np.float32([[1, 2], [3, 4]]), b=np.asfortranarray(np.arange(6.0).reshape(2, 3)))
    torch.save(held, tmp_path / "x0.ckpt")
    assert holds_arrays(tmp_path / "x0.ckpt")
    read = read_arrays(tmp_path / "x0.ckpt")
    assert all(np.array_equal(read[name], held[name]) and read[name].dtype == held[name].dtype for name in held)
    torch.save({"a": torch.zeros(2)}, tmp_path / "y0.ckpt")
    assert not holds_arrays(tmp_path / "y0.ckpt")


def test_it_exports_to_the_same_model(folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    path = folder / "testcheckpoint1.ckpt"
    made = export_model(str(path), Choice(), tmp_path / "ported", say=said.append)
    assert "of 2 files, a stem each: vocals, accompaniment" in said[0]
    assert any("your own" in line for line in said[1:])
    ours = export_model("spleeter:2stems", Choice(seed=5), tmp_path / "random")
    import onnx

    graphs = [onnx.load(str(e.folder / e.files[0][0])).graph for e in (made, ours)]
    assert graphs[0].SerializeToString() == graphs[1].SerializeToString()
    assert made.spec.stems == ("vocals", "accompaniment") and len(made.spec.weights.sha256.split()) == 2
    assert open_named("spleeter:2stems", Choice(path=folder)).spec.parameters == made.spec.parameters


class Runs:
    """A pickle of it runs a command."""

    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/ortsep-was-here",)


def raw(text: bytes) -> bytes:
    return b"\x80\x02" + text + b"."


@pytest.mark.parametrize(
    ("held", "said"),
    [
        (pickle.dumps({"a": Runs()}, 2), "asks for posix.system"),
        (pickle.dumps({"a": np.array([object()], dtype=object)}, 2), "asks for builtins.object|the type"),
        (pickle.dumps({"a": np.zeros(2, "M8[s]")}, 2), "the type 'M8'"),
        (pickle.dumps({"a": 3.0}, 2), "holds 'a', which is no array"),
        (pickle.dumps([np.zeros(2)], 2), "holds a list and not arrays by name"),
        (pickle.dumps({"a": np.zeros(3, np.float32)}, 2)[:-40], "without running what it asks for"),
        (raw(b"}U\x01acnumpy.core.multiarray\n_reconstruct\n)Rs"), "holds 'a', which is no array|text"),
        (raw(b"U\x01xQ"), "tensors that are not in it"),
        (b"", "without running what it asks for"),
    ],
)
def test_what_is_no_plain_array_is_refused(tmp_path: Path, held: bytes, said: str) -> None:
    with pytest.raises(WeightsError, match=said):
        read_arrays(write(tmp_path / "x0.ckpt", held))
    assert not Path("/tmp/ortsep-was-here").exists()


def test_an_array_larger_than_its_bytes_is_refused(tmp_path: Path) -> None:
    class Huge(np.ndarray):
        def __reduce__(self) -> Any:
            call, arguments, (version, _, *rest) = np.zeros(4, np.float32).__reduce__()
            return call, arguments, (version, (10**9, 10**9), *rest)

    with pytest.raises(WeightsError, match=r"an array of shape \(1000000000, 1000000000\) with 4 values"):
        read_arrays(save(tmp_path / "x0.ckpt", {"a": np.zeros(4, np.float32).view(Huge)}))


def test_a_zip_bomb_and_a_cut_file_are_refused(tmp_path: Path, folder: Path) -> None:
    bomb = tmp_path / "bomb0.ckpt"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(64 << 20))
    with pytest.raises(WeightsError, match="unpacks to 64 MB"):
        read_arrays(bomb)
    cut = tmp_path / "cut0.ckpt"
    cut.write_bytes((folder / "testcheckpoint0.ckpt").read_bytes()[:-1000])
    assert not holds_arrays(cut)
    damaged = bytearray((folder / "testcheckpoint0.ckpt").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    cut.write_bytes(damaged)
    with pytest.raises(WeightsError, match=r"is damaged .*; get a complete copy"):
        read_arrays(cut)


def test_files_that_are_not_all_there_or_not_spleeters(tmp_path: Path, folder: Path) -> None:
    one = tmp_path / "part1.ckpt"
    one.write_bytes((folder / "testcheckpoint1.ckpt").read_bytes())
    with pytest.raises(FileMissing, match=r"part0\.ckpt is not there"):
        stem_files(one)
    lone = tmp_path / "lone0.ckpt"
    lone.write_bytes(one.read_bytes())
    with pytest.raises(WeightsError, match="is one of 1 files of arrays"):
        open_named(str(lone), Choice())
    with pytest.raises(UsageError, match="leave --weights out"):
        open_named(str(folder / "testcheckpoint0.ckpt"), Choice(path=folder))
    assert stem_files(tmp_path / "nothing") == [] and stem_files(io.__file__ and Path(io.__file__)) == []
    held = ported(random_variables(1, 0), 0)
    for change, said in (
        ({"up7.0.bias": None}, "lacks up7.0.bias"),
        ({"up8.0.bias": np.zeros(2, np.float32)}, "has up8.0.bias, which Spleeter's network has not"),
        ({"up7.0.weight": np.zeros(2, np.float32)}, r"has up7.0.weight of shape \[2\]"),
        ({"down1_conv.1.weight": None}, "is no network of Spleeter"),
    ):
        path = save(tmp_path / "odd0.ckpt", {k: v for k, v in {**held, **change}.items() if v is not None})
        with pytest.raises(WeightsError, match=said):
            read_stems([path])
