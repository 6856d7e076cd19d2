"""Open-Unmix graphs, and the way through a song, against the package ``openunmix``."""

import sys
import types

import numpy as np
import onnxruntime
import pytest

from ortsep.audio.sources import as_mixture, as_source, fit_channels
from ortsep.export.families.open_unmix.graph import Network, Shape, build_graph, random_network
from ortsep.export.family import Choice, load_original
from ortsep.models.catalogue import find_card
from ortsep.stems.masks import apply_filter

torch = pytest.importorskip("torch")
sys.modules.setdefault("torchaudio", types.ModuleType("torchaudio"))
model = pytest.importorskip("openunmix.model")
utils = pytest.importorskip("openunmix.utils")

SMALL = {
    "stereo": Shape(bins=129, heard=93, channels=2, hidden=32),
    "mono": Shape(bins=65, heard=65, channels=1, hidden=16, layers=2),
    "causal": Shape(bins=65, heard=40, channels=2, hidden=16, bidirectional=False),
}


def theirs(network: Network):
    """``openunmix.model.OpenUnmix`` with our network's parameters, strictly loaded."""
    s = network.shape
    built = model.OpenUnmix(s.bins, s.channels, s.hidden, s.layers, not s.bidirectional, max_bin=s.heard)
    built.load_state_dict(network.state_dict())
    return built.eval()


def run(graph, magnitude):
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"magnitude": magnitude})[0]


def noise(*shape):
    return np.abs(np.random.default_rng(1).standard_normal(shape)).astype(np.float32) * 5


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("frames", [1, 37, 100, 1291])
@pytest.mark.parametrize("batch", [1, 2])
def test_graph_equals_openunmix(snr, name, frames, batch):
    network = random_network(SMALL[name], 5)
    magnitude = noise(batch, network.shape.channels, network.shape.bins, frames)
    with torch.inference_mode():
        expected = theirs(network).double()(torch.from_numpy(magnitude).double()).numpy()
    assert 0.5 < (expected > 0).mean() < 1, "some masks are at rest, most are not"
    result = run(build_graph(network, "small"), magnitude)[:, 0]
    assert snr(expected, result) >= 130


@pytest.mark.parametrize(("name", "frames"), [("umxhq", 100), ("umxl", 37), ("umxse", 1291)])
def test_full_size_graphs(snr, name, frames):
    original = load_original(find_card(name), Choice(seed=2, stems=find_card(name).stems[:1]))
    (_, graph), network = next(original.graphs()), original.networks[0]
    magnitude = noise(1, network.shape.channels, network.shape.bins, frames)
    with torch.inference_mode():
        expected = theirs(network).double()(torch.from_numpy(magnitude).double()).numpy()
    assert snr(expected, original.network(0, {"magnitude": magnitude})["stem_magnitudes"][:, 0]) > 250
    assert snr(expected, run(graph, magnitude)[:, 0]) >= 130


def song(card):
    """Seven seconds of noise with a slow beat, no sample and no bin exactly zero."""
    rng = np.random.default_rng(4)
    samples = 7 * card.sample_rate
    beat = 0.1 + np.abs(np.sin(np.arange(samples) / card.sample_rate * 5))
    return (0.2 * beat * rng.standard_normal((card.channels, samples))).astype(np.float32)


@pytest.mark.parametrize("name", ["umxhq", "umxse"])
@pytest.mark.parametrize(("iterations", "residual", "gate"), [(0, False, 110), (1, False, 95), (2, True, 90)])
def test_a_song_equals_the_separator(snr, name, iterations, residual, gate):
    card = find_card(name)
    original = load_original(card, Choice(seed=3, stems=card.stems[:2]))
    spec, mix = original.spec, song(card)
    separator = model.Separator(
        {stem: theirs(n) for stem, n in zip(spec.stems, original.networks, strict=True)},
        niter=iterations,
        residual=residual,
        sample_rate=spec.sample_rate,
        n_fft=spec.stft.n_fft,
        n_hop=spec.stft.hop,
        nb_channels=spec.channels,
    )
    separator.freeze()
    with torch.inference_mode():
        expected = separator(torch.from_numpy(mix)[None])[0].numpy()

    spectrum = original.transform(mix)
    magnitude = np.abs(spectrum)[None]
    estimates = np.concatenate([run(graph, magnitude)[0] for _, graph in original.graphs()])
    options = type(spec.filter)("wiener", iterations=iterations, window=300)
    stems = apply_filter(options, spectrum, estimates, residual=residual)
    result = np.stack([original.inverse(stem, mix.shape[1]) for stem in stems])
    value = snr(expected, result)
    print(f"{name} {iterations=} {residual=}: {value:.1f} dB")
    assert value >= gate
    if (iterations, residual) == (1, False):
        assert snr(expected, original.separate(mix)) >= gate


@pytest.mark.parametrize(
    "shape", [(500,), (1, 500), (2, 500), (500, 2), (500, 1), (1, 2, 500), (3, 2, 500), (3, 500, 2), (2, 1, 500)]
)
def test_arrays_lie_as_openunmix_takes_them(shape):
    """``openunmix.utils.preprocess``: one channel or two, either way round, alone or in a batch."""
    given = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    expected = utils.preprocess(torch.from_numpy(given), 44100, 44100).numpy()
    songs = given if given.ndim == 3 else given[None]
    ours = np.stack([fit_channels(as_mixture(one)[0], 2) for one in songs])
    np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("channels", [3, 6, 8])
def test_of_many_channels_the_first_two_as_openunmix_says(channels):
    """What it says; what it does (1.3) is to cut the time to two samples, so its rule is tried on the two."""
    given = np.random.default_rng(0).standard_normal((1, channels, 500)).astype(np.float32)
    with pytest.warns(UserWarning, match="Only the first two channels"):
        assert utils.preprocess(torch.from_numpy(given), 44100, 44100).shape == (1, channels, 2)
    expected = utils.preprocess(torch.from_numpy(given[:, :2]), 44100, 44100).numpy()[0]
    with pytest.warns(UserWarning, match="the first two are separated"):
        source = as_source(given[0], 44100, 44100)
    np.testing.assert_array_equal(np.concatenate(list(source.blocks()), axis=1), expected)
