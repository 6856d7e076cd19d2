"""MDX-Net as a family: the graph against torch in float64, checkpoints and UVR's files read, and what is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import onnx
import torch
from foreign import files, hosts

from ortsep.base.errors import UsageError, WeightsError
from ortsep.export.exporter import export_model, write_export
from ortsep.export.families.mdx_net.double import run_double
from ortsep.export.families.mdx_net.graph import build_graph
from ortsep.export.families.mdx_net.network import ConvTDFNet, Shape, load_network, read_shape
from ortsep.export.families.mdx_net.original import from_file, load
from ortsep.export.family import Choice, open_original
from ortsep.export.validate import validate_model
from ortsep.export.weights.frontdoor import open_checkpoint
from ortsep.export.weights.random_weights import randomise
from ortsep.graphs.session import Session
from ortsep.models.catalogue import catalogue, find_card
from ortsep.models.contracts.contract import Wishes
from ortsep.models.contracts.mdx_net import FILES

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore::DeprecationWarning")]
Snr = Callable[[Any, Any], float]
SHAPE = Shape(dim_f=512, growth=8, levels=3, layers=2, kernel=3, bottleneck=8, bias=False, batch_norm=True)
SETTINGS = {"dim_c": 4, "dim_f": 512, "dim_t": 32, "n_fft": 2048, "hop_length": 1024, "target_name": "vocals"}


def network(shape: Shape = SHAPE, seed: int = 1) -> ConvTDFNet:
    made = ConvTDFNet(shape)
    randomise(made, seed)
    made.eval()
    return made


def checkpoint(path: Path, shape: Shape = SHAPE, **changes: object) -> Path:
    state = network(shape).state_dict()
    state["window"], state["freq_pad"] = torch.ones(2048), torch.zeros(1, 4, 513, 32)
    torch.save({"state_dict": state, "hyper_parameters": {**SETTINGS, **changes}}, path)
    return path


SHAPES = [
    SHAPE,
    replace(SHAPE, bottleneck=0, bias=True),
    replace(SHAPE, bottleneck=None),
    replace(SHAPE, batch_norm=False),
    replace(SHAPE, kernel=5, layers=1, levels=2),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_graph_equals_torch(tmp_path: Path, snr: Snr, shape: Shape) -> None:
    original = network(shape)
    path = tmp_path / "graph.onnx"
    onnx.save(build_graph(original, 16, "mdx"), str(path))
    x = np.random.default_rng(0).normal(size=(2, 4, shape.dim_f, 16)).astype(np.float32)
    (result,) = Session(path, provider="cpu").run({"spectrum": x})
    with torch.inference_mode():
        reference = original.double()(torch.from_numpy(x).double()).numpy()
    assert snr(reference[:, None], result) >= 110
    if shape.bottleneck is not None:
        assert read_shape(original.state_dict(), "it") == shape


@pytest.mark.parametrize("shape", SHAPES[:2] + SHAPES[3:4], ids=str)
def test_a_file_of_torch_s_exporter_in_float64(tmp_path: Path, snr: Snr, shape: Shape) -> None:
    original = network(shape)
    x = torch.randn(1, 4, shape.dim_f, 16, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "theirs.onnx"
    torch.onnx.export(original, (x,), str(path), opset_version=13, input_names=["input"], dynamo=False)
    with torch.inference_mode():
        reference = original.double()(x.double())
    assert snr(reference, run_double(onnx.load(str(path)), x)) >= 120


def test_a_checkpoint_exports_and_runs_as_uvr(tmp_path: Path, snr: Snr) -> None:
    original = from_file(checkpoint(tmp_path / "Mine.ckpt"), Wishes())
    assert original.spec.names == ("vocals", "instrumental") and original.spec.gains == (1.0,)
    made = write_export(original, tmp_path / "out")
    assert (tmp_path / "out" / "stems.txt").read_text() == "vocals\ninstrumental\n"
    assert made.spec.parameters == sum(p.numel() for p in network().parameters())
    mix = np.random.default_rng(2).normal(size=(2, 50_001)).astype(np.float32) * 0.1
    double = network().double()

    def graph(x: Any) -> Any:
        with torch.inference_mode():
            return double(torch.from_numpy(x)).numpy()

    stem = hosts.uvr_mdx(mix.astype(np.float64), graph, 2048, 512, 32)
    assert snr(np.stack([stem, mix - stem]), original.separate(mix)) >= 120


def test_a_checkpoint_through_the_front_door(tmp_path: Path) -> None:
    opened = open_checkpoint(checkpoint(tmp_path / "Mine.ckpt"))
    assert opened.architecture.family == "mdx_net"
    original = open_original(opened, Choice(path=opened.path))
    assert original.spec.names == ("vocals", "instrumental") and "compensate" in original.spec.notes[-1]
    with pytest.raises(UsageError, match=r"instrumental of .*Mine\.ckpt is the mixture without vocals"):
        open_original(opened, Choice(path=opened.path, stems=("instrumental",)))


def test_an_export_is_validated(tmp_path: Path) -> None:
    """Which names the stems that the graph gives: the other one comes with them."""
    made = export_model(str(checkpoint(tmp_path / "Mine.ckpt")), Choice(), tmp_path / "out")
    report = validate_model(made.folder, choice=Choice(path=tmp_path / "Mine.ckpt"), seconds=0.5)
    assert report.ok and {f.stage.split(":")[0] for f in report.figures} == {"transform", "graph", "end to end"}
    card = find_card("UVR_MDXNET_9482")
    assert load(card, Choice(seed=0, stems=("vocals",))).spec.names == card.stems
    with pytest.raises(UsageError, match="instrumental of UVR_MDXNET_9482 is the mixture without vocals"):
        load(card, Choice(seed=0, stems=("instrumental",)))


def test_the_catalogue_has_all_of_uvr_s_files() -> None:
    cards = [card for card in catalogue().values() if card.family == "mdx_net"]
    assert tuple(card.name for card in cards) == FILES
    assert all(card.redistributable is None and len(card.stems) == 2 for card in cards)


def test_a_file_of_uvr_s_by_the_name_of_its_card(tmp_path: Path, snr: Snr) -> None:
    path = tmp_path / "copy.onnx"
    small = network(replace(SHAPE, dim_f=3072, growth=2, levels=1, layers=1))
    x = torch.zeros(1, 4, 3072, 256)
    names = {"input_names": ["input"], "output_names": ["output"], "dynamic_axes": {"input": {0: "batch_size"}}}
    torch.onnx.export(small, (x,), str(path), opset_version=13, dynamo=False, **names)
    original = load(find_card("Kim_Vocal_2"), Choice(path=path))
    assert original.spec.name == "Kim_Vocal_2" and original.spec.gains == (1.009,) and original.spec.weights.sha256
    ((name, model),) = original.graphs()
    assert name == "Kim_Vocal_2.onnx" and [v.name for v in model.graph.output] == ["stem_spectra"]
    x = {"spectrum": np.random.default_rng(0).normal(size=(1, 4, 3072, 256)).astype(np.float32)}
    onnx.save(model, str(tmp_path / name))
    (result,) = Session(tmp_path / name, provider="cpu").run(x)
    assert snr(original.network(0, x)["stem_spectra"], result) >= 110


def test_random_weights_of_a_card() -> None:
    original = load(find_card("UVR_MDXNET_9482"), Choice(seed=3))
    assert 4 * original.spec.parameters == 29_692_944  # the published files of this make
    with pytest.raises(UsageError, match="nobody says how large UVR_MDXNET_Main is"):
        load(find_card("UVR_MDXNET_Main"), Choice(seed=3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_fft": 1000}, "don't go together"),
        ({"dim_t": 31}, "don't go together"),
        ({"hop_length": 512}, "a hop of 512"),
        ({"target_name": None}, "doesn't say its n_fft, its dim_t and its stem"),
        ({"n_fft": "2048"}, "doesn't say its n_fft"),
    ],
)
def test_hyper_parameters_that_can_not_be(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        from_file(checkpoint(tmp_path / "x.ckpt", **changes), Wishes())


def test_parameters_that_are_not_its() -> None:
    state = network().state_dict()
    with pytest.raises(WeightsError, match=r"no ConvTDFNet: it has no 'first_conv\.0\.weight'"):
        load_network({"conv.weight": torch.zeros(1)}, "x")
    with pytest.raises(WeightsError, match=r"lacks us\.0\.1\.bias"):
        load_network({k: v for k, v in state.items() if k != "us.0.1.bias"}, "x")
    with pytest.raises(WeightsError, match="has also extra"):
        load_network({**state, "extra": torch.zeros(1)}, "x")
    with pytest.raises(WeightsError, match="holds NaN"):
        load_network({**state, "us.0.1.bias": state["us.0.1.bias"] * float("nan")}, "x")


def test_a_file_that_is_no_mdx_net(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is no MDX-Net: HTDemucs"):
        from_file(files.demucs(tmp_path / "x.onnx", "sevagh"), Wishes())
