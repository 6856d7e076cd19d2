"""Loading Open-Unmix models: official, random, and users' folders as openunmix's training leaves them."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ortsep.base.errors import FileMissing, UsageError, WeightsError  # noqa: E402
from ortsep.export.families.open_unmix.graph import Shape, random_network  # noqa: E402
from ortsep.export.family import Choice, load_original  # noqa: E402
from ortsep.models.catalogue import find_card  # noqa: E402
from ortsep.models.spec import from_json  # noqa: E402

SMALL = Shape(bins=65, heard=40, channels=1, hidden=8)
CARD = find_card("umxhq")


def save(path, seed=0, shape=SMALL, **changes):
    """A checkpoint with the leftovers that the published ones have."""
    state = random_network(shape, seed).state_dict()
    state |= {"sample_rate": torch.tensor(44100.0), "stft.window": torch.ones(4), "transform.0.window": torch.ones(4)}
    torch.save({**state, **changes}, path)
    return state


@pytest.fixture
def folder(tmp_path):
    """Two targets of three, one of them none of the card's, with the training's json."""
    save(tmp_path / "piano.pth", 1)
    save(tmp_path / "vocals-0123abcd.pth", 2)
    settings = {"nfft": 128, "nhop": 32, "sample_rate": 22050.0, "nb_channels": 1}
    (tmp_path / "separator.json").write_text(json.dumps(settings))
    (tmp_path / "vocals.json").write_text(json.dumps({"args": {"nfft": 128, "nhop": 32, "hidden_size": 8}}))
    return tmp_path


@pytest.mark.parametrize("name", ["umx", "umxhq", "umxl", "umxse"])
def test_cards_and_random_weights_agree(name):
    card = find_card(name)
    original = load_original(card, Choice(seed=7, stems=card.stems[-1:]))
    spec = original.spec
    assert spec.parameters * len(card.stems) == card.parameters
    assert len(card.sources) == len(card.stems)
    assert all(
        s.sha256.startswith(s.url[-12:-4]) and f"/{t}" in s.url for t, s in zip(card.stems, card.sources, strict=True)
    )
    assert (spec.stft.n_fft, spec.stft.hop) == (card.arguments["n_fft"], card.arguments["hop"])
    assert (spec.sample_rate, spec.channels) == (card.sample_rate, card.channels)
    assert spec.weights.random and spec.weights.source == "random:7"
    assert from_json(spec.to_json()) == spec


def test_random_weights_depend_on_seed_and_target_only():
    card = find_card("umxse")
    both, noise = load_original(card, Choice(seed=1)), load_original(card, Choice(seed=1, stems=("noise",)))
    same = [
        torch.equal(a, b) for a, b in zip(both.networks[1].parameters(), noise.networks[0].parameters(), strict=True)
    ]
    assert all(same)
    assert not torch.equal(both.networks[0].fc1.weight, both.networks[1].fc1.weight)


def test_a_bag_has_one_file_for_each_stem():
    original = load_original(find_card("umxse"), Choice(seed=1))
    assert [m.file for m in original.spec.bag] == ["speech.onnx", "noise.onnx"]
    assert [m.weights for m in original.spec.bag] == [(1.0, 0.0), (0.0, 1.0)]
    assert [m.rows for m in original.spec.bag] == [(0,), (1,)]
    names = []
    for name, graph in original.graphs():
        names.append(name)
        (inputs,), (outputs,) = graph.graph.input, graph.graph.output
        dims = [d.dim_param or d.dim_value for d in outputs.type.tensor_type.shape.dim]
        assert (inputs.name, outputs.name) == ("magnitude", "stem_magnitudes")
        assert dims == ["batch", 1, 1, 513, "frames"]
    assert names == ["speech.onnx", "noise.onnx"]


def test_a_users_folder(folder):
    original = load_original(CARD, Choice(path=folder))
    spec = original.spec
    assert spec.stems == ("vocals", "piano"), "the card's targets first"
    assert (spec.sample_rate, spec.channels) == (22050, 1)
    assert (spec.stft.n_fft, spec.stft.hop, spec.stft.bins, spec.stft.pad_left) == (128, 32, 65, 64)
    assert spec.weights.source == "vocals-0123abcd.pth piano.pth"
    assert len(spec.weights.sha256.split()) == 2
    assert spec.weights.licence == "" and spec.weights.redistributable is None
    saved = torch.load(folder / "piano.pth", weights_only=True)
    assert torch.equal(original.networks[1].fc3.weight, saved["fc3.weight"])
    assert load_original(CARD, Choice(path=folder, stems=("piano",))).spec.stems == ("piano",)
    assert load_original(CARD, Choice(path=folder / "piano.pth")).spec.stems == ("piano",)


def test_official_files_are_fetched_only_for_wanted_stems(tmp_path, monkeypatch):
    card, fetched = find_card("umxse"), []

    def fetch(source, progress, offline):
        fetched.append(source.url)
        path = tmp_path / source.url.rsplit("/", 1)[-1]
        save(path, shape=Shape(513, 513, 1, 256))
        return path

    monkeypatch.setattr("ortsep.export.weights.download.fetch", fetch)
    spec = load_original(card, Choice(stems=("noise",))).spec
    assert fetched == [card.sources[1].url]
    assert spec.stems == ("noise",)
    assert spec.weights.source == card.sources[1].url
    assert spec.weights.licence == card.licence and not spec.weights.random


def test_the_transform_is_its_own_inverse(snr):
    original = load_original(find_card("umxse"), Choice(seed=1))
    mix = np.random.default_rng(0).standard_normal((1, 5000)).astype(np.float32)
    assert snr(mix, original.inverse(original.transform(mix), 5000)) > 120
    assert original.example(0, mix)["magnitude"].shape == (1, 1, 513, 10)


def broken(folder, kind):
    path = folder / "vocals-0123abcd.pth"
    state = torch.load(path, weights_only=True)
    if kind == "missing parameter":
        state.pop("bn2.weight")
    elif kind == "no parameters":
        state = {"state": {"x": torch.ones(3)}}
    elif kind == "extra parameter":
        state["fc4.weight"] = torch.ones(3)
    elif kind == "wrong shape":
        state["fc2.weight"] = torch.ones(3, 3)
    elif kind == "not finite":
        state["bn1.bias"][0] = float("nan")
    elif kind == "other bins":
        state = random_network(Shape(33, 20, 1, 8), 0).state_dict()
    torch.save(state, path)
    if kind == "two files":
        save(folder / "vocals.pth")
    elif kind == "other json":
        (folder / "separator.json").write_text('{"nfft": 4096}')
    elif kind == "no json":
        (folder / "vocals.json").write_text("nfft = 4096")
    elif kind == "negative":
        (folder / "separator.json").write_text('{"sample_rate": -1}')


@pytest.mark.parametrize(
    "kind",
    [
        "missing parameter",
        "no parameters",
        "extra parameter",
        "wrong shape",
        "not finite",
        "other bins",
        "two files",
        "other json",
        "no json",
        "negative",
    ],
)
def test_broken_folders_are_refused(folder, kind):
    broken(folder, kind)
    with pytest.raises(WeightsError) as caught:
        load_original(CARD, Choice(path=folder))
    assert "\n" not in str(caught.value)


def test_what_is_not_there(folder, tmp_path):
    with pytest.raises(FileMissing, match="nowhere"):
        load_original(CARD, Choice(path=folder / "nowhere"))
    (folder / "empty").mkdir()
    with pytest.raises(WeightsError, match="empty"):
        load_original(CARD, Choice(path=folder / "empty"))
    with pytest.raises(UsageError, match=r"no stem drums.*vocals, piano"):
        load_original(CARD, Choice(path=folder, stems=("drums",)))


def test_a_configuration_of_ones_own(folder, tmp_path):
    """``--config`` in place of what lies beside the checkpoints; openunmix's own names."""
    config = tmp_path / "elsewhere" / "run.json"
    config.parent.mkdir()
    config.write_text(json.dumps({"args": {"nfft": 128, "nhop": 16, "nb_channels": 1, "hidden_size": 8}, "losses": []}))
    spec = load_original(CARD, Choice(path=folder, config=config)).spec
    assert (spec.stft.hop, spec.sample_rate) == (16, 44100)
    for wrong, words in (
        ({"nfft": 256}, "says nfft 256 and the checkpoint has 128"),
        ({"nb_channels": 2}, "says nb_channels 2 and the checkpoint has 1"),
        ({"hidden_size": 16}, "says hidden_size 16 and the checkpoint has 8"),
        ({"nhop": 1e999}, "nhop: inf"),
        ({"nhop": "32"}, "nhop: 32"),
    ):
        config.write_text(json.dumps(wrong))
        with pytest.raises(WeightsError, match=words):
            load_original(CARD, Choice(path=folder, config=config))
    config.write_text("[" * 100_000)
    with pytest.raises(WeightsError, match="is not what openunmix's training writes"):
        load_original(CARD, Choice(path=folder, config=config))
    with pytest.raises(UsageError, match="official weights of umxhq need no configuration"):
        load_original(CARD, Choice(config=config))


def wrapped(kind, state):
    """What frameworks put round a network's parameters."""
    last = {name: value + 1 if value.is_floating_point() else value for name, value in state.items()}
    return {
        "chkpnt": {"epoch": 3, "state_dict": state, "best_loss": 0.1, "optimizer": {"state": {}}, "scheduler": {}},
        "module.": {f"module.{name}": value for name, value in state.items()},
        "_orig_mod.": {f"_orig_mod.{name}": value for name, value in state.items()},
        "lightning": {"state_dict": {f"model.{name}": value for name, value in state.items()}, "epoch": 1},
        "averaged": {"state_dict": {f"model.{k}": v for k, v in state.items()}, "current_model_state": last},
        "best": {"state": last, "best_state": state, "history": []},
        "separator": {f"target_models.{t}.{k}": v for t, s in (("a", state), ("b", last)) for k, v in s.items()},
    }[kind]


@pytest.mark.parametrize("kind", ["chkpnt", "module.", "_orig_mod.", "lightning", "averaged", "best"])
def test_whatever_a_framework_put_round_the_parameters(tmp_path, kind):
    state = save(tmp_path / "piano.pth", 1)
    torch.save(wrapped(kind, state), tmp_path / "piano.pth")
    (network,) = load_original(CARD, Choice(path=tmp_path / "piano.pth")).networks
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_several_networks_in_one_file_are_told(tmp_path):
    state = save(tmp_path / "piano.pth", 1)
    torch.save(wrapped("separator", state), tmp_path / "piano.pth")
    with pytest.raises(WeightsError, match=r"holds 2 different networks, under 'target_models\."):
        load_original(CARD, Choice(path=tmp_path / "piano.pth"))
