"""LarsNet's checkpoints, its config.yaml, the spec, and the kernels that stand in for others."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from ortsep.base.errors import DownloadError, FileMissing, OrtsepError, UsageError, WeightsError
from ortsep.export.families.larsnet.graph import UNet, build_graph, load_network, phases_of, tiled_mask_kernel
from ortsep.export.families.larsnet.original import LarsNet, load
from ortsep.export.family import Choice, load_original
from ortsep.models.catalogue import find_card
from ortsep.models.spec import from_json

CARD = find_card("larsnet")
STEMS = ("kick", "snare", "toms", "hihat", "cymbals")


def write(file: Path, bins: int = 2048, **more: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    network = UNet(bins)
    with torch.no_grad():
        network.input_norm.bias.normal_()
    torch.save({"model_state_dict": network.state_dict(), **more}, file)
    return file


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file as training left it: optimiser state and all."""
    moments = {0: {"step": torch.tensor(7.0), "exp_avg": torch.zeros(3)}}
    optimiser = {"state": moments, "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.999), "params": [0]}]}
    return write(tmp_path_factory.mktemp("larsnet") / "one.pth", optimizer_state_dict=optimiser, epoch=22)


def folder(home: Path, checkpoint: Path, stems: tuple[str, ...] = STEMS) -> Path:
    for stem in stems:
        file = home / stem / f"pretrained_{stem}_unet.pth"
        file.parent.mkdir(parents=True, exist_ok=True)
        os.link(checkpoint, file)
    return home


def test_the_network_has_the_published_size() -> None:
    network = UNet(2048)
    assert len(network.state_dict()) == 91
    assert sum(p.numel() for p in network.parameters()) == 9_828_680
    assert CARD.parameters == 5 * 9_828_680


def test_the_official_folder(tmp_path: Path, checkpoint: Path) -> None:
    original = load_original(CARD, Choice(path=folder(tmp_path, checkpoint)))
    assert isinstance(original, LarsNet)
    spec = original.spec
    assert spec.stems == STEMS and [m.file for m in spec.bag] == [f"{s}.onnx" for s in STEMS]
    assert [m.weights.index(1.0) for m in spec.bag] == [0, 1, 2, 3, 4] == [m.rows[0] for m in spec.bag]
    assert spec.stft and (spec.stft.n_fft, spec.stft.hop, spec.stft.bins, spec.stft.extend) == (4096, 1024, 2048, "hop")
    assert spec.blocks and (spec.blocks.frames, spec.blocks.padded) == (512, True)
    assert spec.content == "drums" and "BY-NC" in spec.weights.licence and spec.weights.redistributable is None
    assert spec.parameters == CARD.parameters and not spec.weights.random
    assert from_json(spec.to_json()) == spec
    saved = torch.load(checkpoint, weights_only=True)["model_state_dict"]
    for network in original.networks:
        assert all(torch.equal(value, saved[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model."])
@pytest.mark.parametrize("key", ["model_state_dict", "state_dict", ""])
def test_whatever_a_framework_put_round_the_parameters(tmp_path: Path, prefix: str, key: str) -> None:
    state = UNet(64).state_dict()
    named = {f"{prefix}{name}": value for name, value in state.items()}
    (tmp_path / "config.yaml").write_text("inference_models: {kick: x/kick.pth}\nkick: {F: 64, T: 64}\n")
    (tmp_path / "x").mkdir()
    torch.save({key: named, "epoch": 3} if key else named, tmp_path / "x" / "kick.pth")
    (network,) = load(CARD, Choice(path=tmp_path)).networks
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_a_partial_folder_says_what_is_missing_and_gives_what_is_there(tmp_path: Path, checkpoint: Path) -> None:
    home = folder(tmp_path, checkpoint, ("kick", "hihat"))
    with pytest.raises(WeightsError) as caught:
        load(CARD, Choice(path=home))
    message = str(caught.value)
    for stem in ("snare", "toms", "cymbals"):
        assert str(Path(stem) / f"pretrained_{stem}_unet.pth") in message
    assert "<stem>/pretrained_<stem>_unet.pth" in message and "--stems kick,hihat" in message
    original = load(CARD, Choice(path=home, stems=("hihat", "kick")))
    assert original.spec.stems == ("kick", "hihat") and len(original.networks) == 2
    with pytest.raises(WeightsError, match="snare") as caught:
        load(CARD, Choice(path=home, stems=("snare",)))
    assert "--stems" not in str(caught.value)


def test_stems_that_are_not_there(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(UsageError, match="no stem cowbell"):
        load(CARD, Choice(path=folder(tmp_path, checkpoint), stems=("kick", "cowbell")))
    with pytest.raises(UsageError, match="no stem vocals"):
        load(CARD, Choice(seed=0, stems=("vocals",)))


@pytest.mark.parametrize("inside", [False, True])
def test_config_settles_stems_order_files_size_and_rate(tmp_path: Path, inside: bool) -> None:
    weights = tmp_path / "models"
    for name in ("a", "b"):
        write(weights / name / "mine.pth", bins=64)
    config = (
        "global: {sr: 48000, segment: 11.85}\n"
        "inference_models: {hihat: models/b/mine.pth, kick: models/a/mine.pth}\n"
        "kick: {F: 64, T: 128, learning_rate: 1e-4}\nhihat: {F: 64, T: 128}\nsnare: {F: 2048, T: 512}\n"
    )
    (weights if inside else tmp_path).joinpath("config.yaml").write_text(config)
    original = load(CARD, Choice(path=weights))
    assert original.spec.stems == ("hihat", "kick") and original.spec.sample_rate == 48000
    assert original.spec.stft and original.spec.stft.bins == 64
    assert original.spec.blocks and original.spec.blocks.frames == 128
    saved = torch.load(weights / "b" / "mine.pth", weights_only=True)["model_state_dict"]
    assert torch.equal(original.networks[0].input_norm.bias, saved["input_norm.bias"])
    assert original.example(0, np.ones((1, 5000), np.float32))["magnitude"].shape == (1, 2, 64, 128)


def test_the_repository_itself_as_the_folder(tmp_path: Path, checkpoint: Path) -> None:
    folder(tmp_path / "pretrained_larsnet_models", checkpoint)
    assert load(CARD, Choice(path=tmp_path)).spec.stems == STEMS


@pytest.mark.parametrize(
    "config",
    [
        "inference_models: [kick]",
        "inference_models: {}",
        "inference_models: {kick: 3}",
        "inference_models: {../kick: a.pth}",
        "inference_models: {kick: a.pth}\nkick: {F: 100, T: 512}",
        "inference_models: {kick: a.pth}\nkick: {F: 2048, T: 1e9}",
        "inference_models: {kick: a.pth}\nkick: 3",
        "inference_models: {kick: a.pth}\nglobal: {sr: fast}",
        "nothing: here",
        "{",
        "",
        "!!python/object/apply:os.system [echo]",
    ],
)
def test_a_config_that_is_not_one(tmp_path: Path, config: str) -> None:
    (tmp_path / "config.yaml").write_text(config)
    with pytest.raises(WeightsError, match=r"config\.yaml"):
        load(CARD, Choice(path=tmp_path))


def test_sizes_that_disagree(tmp_path: Path) -> None:
    for stem in ("kick", "snare"):
        write(tmp_path / stem / f"pretrained_{stem}_unet.pth", bins=64)
    paths = "inference_models: {kick: kick/pretrained_kick_unet.pth, snare: snare/pretrained_snare_unet.pth}\n"
    config = tmp_path / "own.yaml"
    config.write_text(paths + "kick: {F: 64, T: 64}\nsnare: {F: 64, T: 128}\n")
    with pytest.raises(WeightsError, match="different F and T"):
        load(CARD, Choice(path=tmp_path, config=config))
    assert load(CARD, Choice(path=tmp_path, config=config, stems=("kick",))).spec.stems == ("kick",)
    config.write_text(paths + "kick: {F: 128}\nsnare: {F: 128}\n")
    with pytest.raises(WeightsError, match="64 bins, not 128"):
        load(CARD, Choice(path=tmp_path, config=config))


def test_another_network_is_refused() -> None:
    good = UNet(64).state_dict()
    bad: list[dict[str, Any]] = [
        {},
        {k: v for k, v in good.items() if k != "dec3.bn.bias"},
        {**good, "enc7.conv.bias": torch.zeros(3)},
        {**good, "enc2.conv.weight": torch.zeros(32, 16, 3, 3)},
        {**good, "enc2.conv.weight": 3},
        {**good, "mask_layer.0.bias": torch.tensor([float("nan"), 0.0])},
        {**good, "dec1.bn.running_var": -torch.ones(256)},
    ]
    for state in bad:
        with pytest.raises(WeightsError, match="some file"):
            load_network(state, "some file")


class _Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("plain", [False, True])
def test_no_code_of_a_checkpoint_runs(tmp_path: Path, plain: bool) -> None:
    mark, file = tmp_path / "it-ran", tmp_path / "kick" / "pretrained_kick_unet.pth"
    file.parent.mkdir()
    held = {"model_state_dict": {}, "epoch": _Bomb(mark)}
    if plain:
        file.write_bytes(pickle.dumps(held))
    else:
        torch.save(held, file)
    with pytest.raises(OrtsepError):
        load(CARD, Choice(path=tmp_path, stems=("kick",)))
    assert not mark.exists()


def test_what_can_not_be_fetched_and_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"1U8-5924B1ii1cjv9p0MTPzayb00P4qoL.*--weights"):
        load(CARD, Choice())
    with pytest.raises(FileMissing, match="does not exist"):
        load(CARD, Choice(path=tmp_path / "no"))
    (tmp_path / "file").touch()
    with pytest.raises(FileMissing, match="is a file"):
        load(CARD, Choice(path=tmp_path / "file"))


def test_random_networks_are_seeded_and_differ() -> None:
    one, again = (load(CARD, Choice(seed=3, stems=("snare", "toms"))) for _ in range(2))
    alone = load(CARD, Choice(seed=3, stems=("toms",)))
    weight = [n.mask_layer[0].weight for n in (*one.networks, *again.networks, *alone.networks)]
    assert torch.equal(weight[0], weight[2]) and not torch.equal(weight[0], weight[1])
    assert torch.equal(weight[1], weight[4]), "a stem's network depends on which others are exported"
    assert one.spec.weights.random and one.spec.weights.source == "random:3"


def test_the_protocols_arrays(tmp_path: Path) -> None:
    write(tmp_path / "kick" / "mine.pth", bins=64)
    (tmp_path / "config.yaml").write_text("inference_models: {kick: kick/mine.pth}\nkick: {F: 64, T: 64}\n")
    original = load(CARD, Choice(path=tmp_path))
    mix = np.random.default_rng(1).standard_normal((2, 70_000)).astype(np.float32)
    spectrum = original.transform(mix)
    assert spectrum is not None and spectrum.shape == (2, 64, 70)
    back = original.inverse(spectrum, 70_000)
    assert back is not None and back.shape == mix.shape
    inputs = original.example(0, mix)
    np.testing.assert_allclose(inputs["magnitude"][0], np.abs(spectrum[..., :64]), rtol=1e-6)
    assert original.network(0, inputs)["masks"].shape == (1, 1, 2, 64, 64)
    assert original.separate(mix).shape == (1, 2, 70_000)
    mono = original.separate(mix[:1])
    np.testing.assert_array_equal(mono, original.separate(np.repeat(mix[:1], 2, axis=0)))


def test_graphs_are_standard_and_always_the_same(tmp_path: Path) -> None:
    network = UNet(64).eval()
    model = build_graph(network, 64, "larsnet:kick")
    assert {node.domain for node in model.graph.node} == {""}
    assert build_graph(network, 64, "larsnet:kick").SerializeToString() == model.SerializeToString()
    shapes = {
        v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {"magnitude": ["B", 2, 64, 64], "masks": ["B", 1, 2, 64, 64]}
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    assert len(inferred.graph.node) == len(model.graph.node)


@pytest.mark.parametrize(
    ("rows", "columns"), [(r, c) for r in ([0], [1], range(2), range(4)) for c in ([0], [1], range(2))]
)
def test_phases_of_a_transposed_convolution(rows: Any, columns: Any) -> None:
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(2, 3, 8, 6, generator=generator, dtype=torch.float64)
    weight = torch.randn(3, 5, 5, 5, generator=generator, dtype=torch.float64)
    expected = torch.nn.functional.conv_transpose2d(x, weight, stride=2, padding=2, output_padding=1)
    kernel, (top, left, bottom, right) = phases_of(weight.numpy(), rows, columns)
    steps = (max(1, len(rows) // 2), max(1, len(columns) // 2))
    padded = torch.nn.functional.pad(x, (left, right, top, bottom))
    got = torch.nn.functional.conv2d(padded, torch.from_numpy(kernel), stride=steps)
    got = got.reshape(2, 5, len(rows), len(columns), *got.shape[-2:])
    for a, row in enumerate(rows):
        for b, column in enumerate(columns):
            torch.testing.assert_close(got[:, :, a, b], expected[:, :, row :: 2 * steps[0], column :: 2 * steps[1]])


def test_the_mask_convolution_on_tiles() -> None:
    generator = torch.Generator().manual_seed(6)
    x = torch.randn(1, 2, 16, 12, generator=generator, dtype=torch.float64)
    weight = torch.randn(2, 2, 4, 4, generator=generator, dtype=torch.float64)
    expected = torch.nn.functional.conv2d(x, weight, dilation=2, padding=3)

    def tiles(image: torch.Tensor) -> torch.Tensor:
        return image.reshape(1, 2, 4, 4, 6, 2).permute(0, 1, 3, 5, 2, 4).reshape(1, 16, 4, 6)

    kernel, (top, left, bottom, right) = tiled_mask_kernel(weight.numpy())
    padded = torch.nn.functional.pad(tiles(x), (left, right, top, bottom))
    torch.testing.assert_close(torch.nn.functional.conv2d(padded, torch.from_numpy(kernel)), tiles(expected))
