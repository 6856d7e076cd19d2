"""What other people's files can be wrong in, each with its sentence, from loading to running."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from foreign import files  # noqa: E402

from ortsep.base.errors import FileMissing, ModelError, OrtsepError  # noqa: E402
from ortsep.graphs.adopt import adopt  # noqa: E402
from ortsep.graphs.model import load_model  # noqa: E402
from ortsep.models.contracts.contract import Wishes  # noqa: E402
from ortsep.separator import Separator  # noqa: E402

NAME = "UVR_MDXNET_9482.onnx"


def of_no_contract(folder: Path) -> Path:
    g = files.Writer()
    g.op("Identity", "image", name="logits")
    return g.save(folder / "a.onnx", {"image": ["N", 3, 224, 224]}, {"logits": ["N", 3, 224, 224]})


def without_its_weights(folder: Path) -> Path:
    path = files.demucs(folder / "htdemucs.onnx", "mixxx")
    model = onnx.load(str(path))
    onnx.save_model(model, str(path), save_as_external_data=True, location="dft.bin", size_threshold=0)
    (folder / "dft.bin").unlink()
    return path


def changed(folder: Path, change: Callable[[Any], None]) -> Path:
    path = files.mdx_net(folder / NAME)
    model = onnx.load(str(path))
    change(model)
    onnx.save(model, str(path))
    return path


def opset(model: Any) -> None:
    model.opset_import[0].version = 99


def version(model: Any) -> None:
    model.ir_version = 99


FAULTS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "nothing known": (
        of_no_contract,
        r"image \[N, 3, 224, 224\] -> logits .* no file that ortsep knows; the nearest are mdx-net: input",
    ),
    "an unknown key": (
        lambda folder: files.mdx_net(folder / "mine.onnx"),
        r"its key \w{32} and its name mine are in no table.*one of 4096, 5120, 6144, 8192, 16384; give --set n_fft=.*"
        r"\(these are options of: ortsep adopt .*mine\.onnx\)",
    ),
    "bins of no table": (
        lambda folder: files.mdx_net(folder / "mine.onnx", 1500),
        "no MDX-Net has 1500 bins: they have 2048, 2560, 3072",
    ),
    "another of that name": (
        lambda folder: files.mdx_net(folder / "Kim_Vocal_2.onnx"),
        "gives Kim_Vocal_2 3072 bins and the graph has 2048",
    ),
    "one of a pair": (
        lambda folder: files.spleeter(folder / "vocals.onnx", 1),
        "one of a pair, and accompaniment.onnx is not beside it",
    ),
    "no dft.bin": (without_its_weights, "keeps weights in dft.bin, which is not beside it; put it there"),
    "outputs that are no stems": (
        lambda folder: files.named(folder / "a.onnx", ["y"]),
        r"called y, which are no names of stems; name them .*--stems.*\(these are options of: ortsep adopt",
    ),
    "a newer opset": (
        lambda folder: changed(folder, opset),
        r"is of opset 99, and this onnxruntime reads up to \d+; upgrade",
    ),
    "a newer format": (
        lambda folder: changed(folder, version),
        r"is of IR version 99, and this onnxruntime reads up to \d+; upgrade",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_it_is_said_in_one_sentence(fault: str, tmp_path: Path) -> None:
    make, message = FAULTS[fault]
    path = make(tmp_path)
    with (
        pytest.raises((ModelError, FileMissing), match=message) as refused,
        Separator(path, provider="cpu") as separator,
    ):
        separator.separate(np.zeros((2, 1000), np.float32), 44100)
    assert "\n" not in str(refused.value) and "onnxruntime_src" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"n_fft": "6144", "primary": "Vocals", "compensate": "0"},
            "compensate can't be 0: it is a number from 0.9 to 1.2",
        ),
        (
            {"n_fft": "6144", "primary": "Vocals", "compensate": "1.75"},
            "compensate can't be 1.75: it is a number from 0.9",
        ),
        ({"n_fft": "2048", "primary": "Vocals", "compensate": "1"}, "an n_fft of 2048 has no 2048 bins; set another"),
        ({"bogus": "1"}, "bogus means nothing to UVR's MDX-Net: --set takes n_fft, primary, compensate, dim_t"),
    ],
)
def test_settings_out_of_range_are_refused_and_nothing_is_written(
    settings: dict[str, str], message: str, tmp_path: Path
) -> None:
    path = files.mdx_net(tmp_path / "mine.onnx")
    with pytest.raises(OrtsepError, match=message) as refused:
        adopt(path, Wishes(settings=settings))
    assert "options of: ortsep adopt" not in str(refused.value)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.onnx"]


def test_graphs_of_half_precision_and_of_whole_numbers_run(tmp_path: Path, snr: Callable[[Any, Any], float]) -> None:
    from onnx import TensorProto, numpy_helper
    from onnxruntime.quantization import quantize_dynamic

    exact = files.mdx_net(tmp_path / NAME)
    half, whole = tmp_path / "UVR_MDXNET_9482.fp16.onnx", tmp_path / "UVR_MDXNET_9482.int8.onnx"
    quantize_dynamic(str(exact), str(whole))
    model = onnx.load(str(exact))
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.save(model, str(half))
    mix = (0.1 * np.random.default_rng(0).standard_normal((2, 30_000))).astype(np.float32)
    stems = [Separator(path, provider="cpu").separate(mix, 44100)["vocals"] for path in (exact, half, whole)]
    assert snr(stems[0], stems[1]) >= 50.0 and snr(stems[0], stems[2]) >= 20.0


def test_whole_numbers_are_described_as_the_file_they_were_made_from(tmp_path: Path) -> None:
    assert load_model(files.mdx_net(tmp_path / "UVR_MDXNET_9482.int8.onnx")).stems == ("vocals", "instrumental")
