"""Small Demucs models through every door: random, .th, .safetensors, bag, folder; and the original's own arithmetic."""

import json
import sys
import types
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from demucs.apply import BagOfModels, apply_model
from demucs.demucs import Demucs
from demucs.hdemucs import HDemucs
from demucs.htdemucs import HTDemucs
from demucs.states import load_model
from safetensors.torch import save_file

from ortsep.base.errors import FileMissing, UsageError, WeightsError
from ortsep.export.families.demucs import bag
from ortsep.export.families.demucs import original as demucs
from ortsep.export.families.demucs.bag import DemucsOriginal, narrow
from ortsep.export.families.demucs.original import load
from ortsep.export.family import Choice
from ortsep.models.catalogue import Card, Source, catalogue

pytestmark = pytest.mark.usefixtures("one_thread")

STEMS = ("drums", "bass", "vocals")
CONFIG = {"channels": 8, "depth": 4, "t_layers": 1, "t_heads": 2, "bottom_channels": 16, "segment": "3/10"}
KWARGS: dict[str, Any] = {"sources": list(STEMS), **CONFIG, "segment": Fraction(3, 10)}
LENGTH = 13230


def make_card(files: int = 1, network: str = "HTDemucs", **arguments: Any) -> Card:
    sources = tuple(Source(f"https://example.org/sig{k}-00000000.th", "0" * 8) for k in range(files))
    arguments = {"networks": [network] * files, "config": CONFIG, **arguments}
    return Card(
        "small", "demucs", "", STEMS, 44100, 2, "of the card", None, 0, 0, "", sources=sources, arguments=arguments
    )


CARD = make_card()
ONE_HOT = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def sizeable(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Every parameter away from zero, so that no branch hides."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            fan = parameter[0].numel() if parameter.ndim > 1 else 4
            noise = torch.randn(parameter.shape, generator=generator) / fan**0.5
            parameter.copy_(noise + (0.5 if parameter.ndim == 1 else 0))
    return model.eval()


@pytest.fixture(autouse=True)
def random_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module of that name is tested elsewhere; here any seeded parameters do."""
    module = types.ModuleType("ortsep.export.weights.random_weights")
    module.randomise = sizeable  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)


def write(path: Path, model: torch.nn.Module, kwargs: dict[str, Any] | None = None, half: bool = True) -> Path:
    """As demucs.states.serialize_model and save_with_checksum: float16, the hash in the name."""
    state = {k: v.half() if half else v for k, v in model.state_dict().items()}
    training = {"optim": {"lr": 3e-4}, "dset": {"sources": list(STEMS)}}
    kwargs = KWARGS if kwargs is None else kwargs
    content = {"klass": type(model), "args": (), "kwargs": kwargs, "state": state, "training_args": training}
    torch.save(content, path)
    return path.rename(path.with_name(f"{path.stem}-{sha256(path.read_bytes()).hexdigest()[:8]}.th"))


@pytest.fixture(scope="module")
def members() -> list[torch.nn.Module]:
    return [sizeable(HTDemucs(**KWARGS), seed) for seed in range(3)]


@pytest.fixture
def folder(tmp_path: Path, members: list[torch.nn.Module]) -> Path:
    for k, member in enumerate(members):
        write(tmp_path / f"sig{k}.th", member)
    (tmp_path / "small.yaml").write_text(f"models: [sig0, sig1, sig2]\nweights: {ONE_HOT}")
    return tmp_path


@pytest.fixture(scope="module")
def mix() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.standard_normal((2, LENGTH + 777)) * 0.1 + 0.02).astype(np.float32)


def theirs(model: Any, mix: np.ndarray) -> np.ndarray:
    """The package's own arithmetic, as demucs.api.Separator.separate_tensor."""
    wav = torch.from_numpy(mix)
    ref = wav.mean(0)
    std = ref.std() + 1e-8
    with torch.no_grad():
        out = apply_model(model, ((wav - ref.mean()) / std)[None], shifts=0)[0] * std + ref.mean()
    return out.numpy()


def test_th_is_what_the_package_loads(
    tmp_path: Path, members: list[torch.nn.Module], mix: np.ndarray, snr: Any
) -> None:
    path = write(tmp_path / "x.th", members[0])
    original = load(CARD, Choice(path=path))
    model = load_model(path)
    ours = original._full(0)
    assert all(v.dtype == torch.float32 and torch.equal(v, model.state_dict()[k]) for k, v in ours.state_dict().items())
    assert snr(theirs(model, mix), original.separate(mix)) > 120


def test_spec(tmp_path: Path, members: list[torch.nn.Module]) -> None:
    path = write(tmp_path / "x.th", members[0])
    spec = load(CARD, Choice(path=path)).spec
    assert (spec.stems, spec.domain, spec.output, spec.sample_rate) == (STEMS, "hybrid", "hybrid", 44100)
    assert spec.stft is not None and spec.chunks is not None
    assert (spec.stft.n_fft, spec.stft.hop, spec.stft.bins, spec.stft.pad_left) == (4096, 1024, 2048, 1536)
    assert (spec.chunks.length, spec.chunks.overlap, spec.chunks.max_shift) == (LENGTH, 0.25, 22050)
    assert spec.parameters == sum(p.numel() for p in members[0].parameters()) and spec.bag == ()
    assert spec.weights.source == path.name and spec.weights.sha256.startswith(path.stem[-8:])
    assert not spec.weights.random and spec.weights.licence.startswith("unknown")


def test_official_licence_needs_the_official_file(tmp_path: Path, members: list[torch.nn.Module]) -> None:
    path = write(tmp_path / "x.th", members[0])
    digest = sha256(path.read_bytes()).hexdigest()
    card = replace(CARD, sources=(Source("https://example.org/x.th", digest[:8]),))
    assert load(card, Choice(path=path)).spec.weights.licence == "of the card"


def test_official_file_comes_through_fetch(
    tmp_path: Path, members: list[torch.nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def fetch(source: Source, progress: object, offline: bool) -> Path:
        asked.append(source.url)
        return write(tmp_path / f"got{len(asked)}.th", members[0])

    monkeypatch.setattr(demucs, "fetch", fetch)
    card = make_card(3, weights=ONE_HOT)
    spec = load(card, Choice()).spec
    assert asked == [s.url for s in card.sources] and spec.weights.source == " ".join(asked)
    asked.clear()
    assert load(card, Choice(stems=("bass",))).spec.stems == ("bass",)
    assert asked == [card.sources[1].url]


def test_random_is_seeded_and_says_so(mix: np.ndarray, snr: Any) -> None:
    first, again, other = (load(CARD, Choice(seed=seed)) for seed in (3, 3, 4))
    assert first.spec.weights.random and first.spec.weights.source == "random:3"
    short = mix[:, : LENGTH // 2]
    assert snr(first.separate(short), again.separate(short)) > 120
    assert snr(first.separate(short), other.separate(short)) < 20


def test_safetensors_and_bare_state(tmp_path: Path, members: list[torch.nn.Module], mix: np.ndarray, snr: Any) -> None:
    state = {k: v.contiguous() for k, v in members[0].state_dict().items()}
    kwargs = json.dumps({**KWARGS, "segment": {"_type": "fraction", "numerator": 3, "denominator": 10}})
    metadata = {"klass": "demucs.htdemucs.HTDemucs", "args": "[]", "kwargs": kwargs}
    save_file(state, tmp_path / "sig0.safetensors", metadata)
    torch.save({"state_dict": state}, tmp_path / "bare.pt")
    expected = theirs(members[0], mix)
    for name in ("sig0.safetensors", "bare.pt", ""):
        assert snr(expected, load(CARD, Choice(path=tmp_path / name)).separate(mix)) > 120


@pytest.mark.parametrize("name", ["", "small.yaml"])
def test_bag(folder: Path, mix: np.ndarray, name: str, snr: Any) -> None:
    original = load(make_card(3, weights=ONE_HOT), Choice(path=folder / name))
    bag = original.spec.bag
    assert [m.file for m in bag] == ["small-drums.onnx", "small-bass.onnx", "small-vocals.onnx"]
    assert [m.weights for m in bag] == [(1, 0, 0), (0, 1, 0), (0, 0, 1)] and [m.rows for m in bag] == [(0,), (1,), (2,)]
    models = [load_model(p) for p in sorted(folder.glob("*.th"))]
    assert snr(theirs(BagOfModels(models, ONE_HOT), mix), original.separate(mix)) > 120


def test_bag_without_yaml_or_weights(folder: Path, mix: np.ndarray, snr: Any) -> None:
    (folder / "small.yaml").unlink()
    original = load(make_card(3), Choice(path=folder))
    assert [m.file for m in original.spec.bag] == ["small-1.onnx", "small-2.onnx", "small-3.onnx"]
    assert all(m.rows == (0, 1, 2) and m.weights == (1, 1, 1) for m in original.spec.bag)
    models = [load_model(p) for p in sorted(folder.glob("*.th"))]
    assert snr(theirs(BagOfModels(models), mix), original.separate(mix)) > 120


def test_a_subset_of_stems_needs_only_its_members(folder: Path, mix: np.ndarray, snr: Any) -> None:
    card = make_card(3, weights=ONE_HOT)
    whole = load(card, Choice(path=folder)).separate(mix)
    one = load(card, Choice(path=folder, stems=("vocals",)))
    assert one.spec.bag == () and one.spec.stems == ("vocals",) and len(one._parts) == 1
    assert snr(whole[2:], one.separate(mix)) > 120
    two = load(card, Choice(path=folder, stems=("vocals", "drums")))
    assert two.spec.stems == ("drums", "vocals")
    assert [(m.file, m.weights, m.rows) for m in two.spec.bag] == [
        ("small-drums.onnx", (1, 0), (0,)),
        ("small-vocals.onnx", (0, 1), (1,)),
    ]
    assert snr(whole[[0, 2]], two.separate(mix)) > 120
    with pytest.raises(UsageError, match="no stem piano"):
        load(card, Choice(path=folder, stems=("piano",)))


def _joined(original: DemucsOriginal, member: int, inputs: dict[str, Any]) -> np.ndarray:
    out = original.network(member, inputs)
    spectra = out["stem_spectra"].astype(np.float32)[0]
    complex_spectra = spectra[:, 0::2] + 1j * spectra[:, 1::2]
    waves = [original.inverse(s.astype(np.complex64), LENGTH) for s in complex_spectra]
    return out["stems"][0] + np.stack(waves)  # type: ignore[arg-type]


def test_network_is_the_original_forward_in_float64(snr: Any, mix: np.ndarray) -> None:
    original = load(CARD, Choice(seed=1))
    inputs = original.example(0, mix)
    assert inputs["mix"].shape == (1, 2, LENGTH) and inputs["spectrum"].shape == (1, 4, 2048, 13)
    spectrum = original.transform(inputs["mix"][0])
    assert spectrum is not None
    np.testing.assert_array_equal(inputs["spectrum"][0, 0::2], spectrum.real)
    np.testing.assert_array_equal(inputs["spectrum"][0, 1::2], spectrum.imag)
    assert original.network(0, inputs)["stems"].dtype == np.float64
    with torch.no_grad():
        whole = original._full(0).double()(torch.from_numpy(inputs["mix"]).double())[0].numpy()
    assert snr(whole, _joined(original, 0, inputs)) > 110
    # another chunk than the first, so that nothing of an earlier call is left
    other = original.example(0, mix[:, LENGTH // 2 :])
    assert not np.array_equal(original.network(0, other)["stem_spectra"], original.network(0, inputs)["stem_spectra"])


def test_members_give_only_their_stems(folder: Path, snr: Any, mix: np.ndarray) -> None:
    card = make_card(3, weights=ONE_HOT)
    original = load(card, Choice(path=folder))
    inputs = original.example(1, mix)
    out = original.network(1, inputs)
    assert out["stems"].shape == (1, 1, 2, LENGTH) and out["stem_spectra"].shape == (1, 1, 4, 2048, 13)
    with torch.no_grad():
        whole = original._full(1).double()(torch.from_numpy(inputs["mix"]).double())[0].numpy()
    assert snr(whole[1:2], _joined(original, 1, inputs)) > 110


@pytest.mark.parametrize(
    ("network", "kwargs"),
    [
        (HTDemucs, {**CONFIG, "segment": Fraction(3, 10)}),
        (HDemucs, {"channels": 4}),
        (HDemucs, {"channels": 4, "multi_freqs": [0.25, 0.5]}),
        (Demucs, {"channels": 4}),
    ],
)
def test_narrowing_any_network(network: Any, kwargs: dict[str, Any], snr: Any) -> None:
    wave = torch.randn(1, 2, LENGTH, generator=torch.Generator().manual_seed(1))
    whole = sizeable(network(sources=list(STEMS), **kwargs), 5)
    with torch.no_grad():
        expected = whole(wave)[:, [0, 2]]
        got = narrow(whole, (0, 2))(wave)
    assert snr(expected.numpy(), got.numpy()) > 110


def test_transform_is_the_stft_that_the_spec_describes(snr: Any, mix: np.ndarray) -> None:
    original = load(CARD, Choice(seed=0))
    stft = original.spec.stft
    assert stft is not None
    wave = mix[:, :10_001]
    frames = -(-wave.shape[1] // stft.hop)
    right = stft.pad_right + frames * stft.hop - wave.shape[1]
    padded = np.pad(wave.astype(np.float64), ((0, 0), (stft.pad_left, right)), mode=stft.pad_mode)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(stft.n_fft) / stft.n_fft)
    cut = np.stack([padded[:, t * stft.hop : t * stft.hop + stft.n_fft] for t in range(frames)], axis=-2)
    assert (padded.shape[1] - stft.n_fft) // stft.hop + 1 == frames
    expected = np.fft.rfft(cut * window)[..., : stft.bins].swapaxes(1, 2) / np.sqrt(stft.n_fft)
    got = original.transform(wave)
    assert got is not None and snr(expected, got) > 120
    back = original.inverse(got, wave.shape[1])
    frames_back = np.fft.irfft(np.pad(got, ((0, 0), (0, 1), (0, 0))).swapaxes(1, 2), n=stft.n_fft) * window
    joined = np.zeros_like(padded)
    for t in range(frames):
        joined[:, t * stft.hop : t * stft.hop + stft.n_fft] += frames_back[:, t] * np.sqrt(stft.n_fft)
    constant = np.sum(window**2) / stft.hop
    inside = joined[:, stft.pad_left :][:, : wave.shape[1]] / constant
    assert snr(inside, back) > 120


@pytest.mark.parametrize(("network", "length"), [(HDemucs, 44 * 44100), (Demucs, 44 * 44100)])
def test_version_3_loads(tmp_path: Path, network: Any, length: int, mix: np.ndarray, snr: Any) -> None:
    kwargs = {"sources": list(STEMS), "channels": 4}
    path = write(tmp_path / "x.th", sizeable(network(**kwargs), 2), kwargs)
    original = load(make_card(1, network.__name__, segment=44, config={"channels": 4}), Choice(path=path))
    assert original.spec.chunks is not None and original.spec.chunks.length == length
    assert original.spec.domain == ("waveform" if network is Demucs else "hybrid")
    assert snr(theirs(load_model(path), mix), original.separate(mix)) > 120
    if network is Demucs:
        assert original.transform(mix) is None and original.spec.stft is None
        assert original.network(0, {"mix": mix[None]})["stems"].shape == (1, 3, *mix.shape)


def test_a_bag_has_a_graph_for_each_stem(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    built: list[Any] = []

    def build(model: Any, *, portable: bool, rows: bool) -> onnx.ModelProto:
        assert not rows
        built.append((model, portable))
        return onnx.ModelProto()

    monkeypatch.setattr(bag, "htdemucs_graph", build)
    made: Iterator[Any] = load(make_card(3, weights=ONE_HOT), Choice(path=folder)).graphs(portable=True)
    assert [file for file, _ in made] == ["small-drums.onnx", "small-bass.onnx", "small-vocals.onnx"]
    assert [(m.sources, portable) for m, portable in built] == [([s], True) for s in STEMS]


def _refused(card: Card, path: Path, words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        load(card, Choice(path=path))


def test_another_architecture_is_named(tmp_path: Path, members: list[torch.nn.Module]) -> None:
    kwargs = {"sources": list(STEMS), "channels": 4}
    path = write(tmp_path / "h.th", HDemucs(**kwargs), kwargs)
    _refused(CARD, path, "holds a HDemucs and small is made of HTDemucs")
    _refused(make_card(3), path, "one file and small is a bag of 3")
    _refused(CARD, write(tmp_path / "other.th", members[0], {**KWARGS, "depth": 3}), "does not fit its HTDemucs")
    for odd in ({"channels": 10**5, "depth": 12}, {"t_layers": 10**5}, {"channels": "8"}, {"depth": -1}, {"nfft": 3}):
        _refused(CARD, write(tmp_path / "odd.th", members[0], {**KWARGS, **odd}), "HTDemucs")


def test_parameters_that_are_not_numbers(tmp_path: Path) -> None:
    model = sizeable(HTDemucs(**KWARGS), 0)
    name, parameter = next(iter(model.named_parameters()))
    parameter.data.view(-1)[0] = float("nan")
    _refused(CARD, write(tmp_path / "x.th", model), f"not numbers in {name}")


@pytest.mark.parametrize("odd", [{"hybrid": False}, {"norm_starts": 0, "norm_groups": 2}])
def test_old_experiments_are_refused(tmp_path: Path, odd: dict[str, Any]) -> None:
    kwargs = {"sources": list(STEMS), "channels": 4, "nfft": 4096, **odd}
    path = write(tmp_path / "x.th", HDemucs(**kwargs), kwargs)
    _refused(make_card(1, "HDemucs"), path, "can't be exported")


def test_bags_that_do_not_fit_together(tmp_path: Path, members: list[torch.nn.Module]) -> None:
    write(tmp_path / "sig0.th", members[0])
    other = {**KWARGS, "segment": Fraction(1, 2)}
    write(tmp_path / "sig1.th", HTDemucs(**other), other)
    yaml = tmp_path / "bag.yaml"
    yaml.write_text("models: [sig0, sig1]")
    _refused(CARD, yaml, "differ in chunk length")
    yaml.write_text("models: [sig0, sig0]\nweights: [[1, 0, 0], [1, 0, 0]]")
    _refused(CARD, yaml, "to no model at all")
    yaml.write_text("models: [sig0, sig0]\nweights: [[1, 0], [1, 0]]")
    _refused(CARD, yaml, "3 stems")


def test_missing(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "no.th", "no checkpoint at"), (tmp_path, "holds no Demucs model")):
        with pytest.raises(FileMissing, match=words):
            load(CARD, Choice(path=path))
    with pytest.raises(WeightsError, match="--weights PATH"):
        load(replace(CARD, arguments={}), Choice(seed=0))


@pytest.mark.parametrize("name", ["htdemucs", "htdemucs_6s", "htdemucs_ft", "hdemucs_mmi", "mdx", "mdx_extra"])
def test_cards_describe_the_true_networks(name: str) -> None:
    card = catalogue()[name]
    spec = load(card, Choice(seed=0)).spec
    assert spec.parameters == card.parameters and spec.stems == card.stems
    assert spec.chunks is not None and spec.chunks.length == (343980 if name.startswith("ht") else 44 * 44100)
    assert abs(4 * spec.parameters / 1e6 - card.size_mb) < 1


def test_cards_agree_with_the_package() -> None:
    import yaml
    from demucs.pretrained import REMOTE_ROOT, _parse_remote_files

    urls = _parse_remote_files(REMOTE_ROOT / "files.txt")
    cards = [card for card in catalogue().values() if card.family == "demucs" and "yaml" not in card.arguments]
    assert len(cards) >= 6
    for card in cards:
        bag = yaml.safe_load((REMOTE_ROOT / f"{card.name}.yaml").read_text())
        assert [urls[signature] for signature in bag["models"]] == [source.url for source in card.sources]
        assert all(bag.get(key) == card.arguments.get(key) for key in ("weights", "segment"))
        assert all(s.sha256.startswith(s.url[-11:-3]) and len(s.sha256) == 64 for s in card.sources)
