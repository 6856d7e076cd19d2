"""What a caller may say, and that nothing is ignored: it works, or one sentence tells what is wrong with it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fakes import WAVES, changed, faked, scaled, song
from places import GRAPHS

from ortsep.base.errors import AudioError, ModelError, OrtsepError, UsageError
from ortsep.chain import Chain
from ortsep.models.spec import Chunks, Derived
from ortsep.options import CHUNKED, FILTERED, Options
from ortsep.separator import Separator

CHANGED: dict[str, Any] = {
    "overlap": 0.5,
    "shifts": 1,
    "seed": 1,
    "tta": True,
    "denoise": True,
    "compensate": "residual",
    "niter": 0,
    "softmask": False,
    "alpha": 1.0,
    "wiener_window": 300,
    "exponent": 2.0,
    "mask_extension": "zeros",
    "wiener": False,
    "rest": True,
}


def test_the_two_groups_are_all_tuning_options() -> None:
    assert set(CHANGED) == {*CHUNKED, *FILTERED}


@pytest.mark.parametrize("name", CHUNKED)
@pytest.mark.parametrize("model", ["masks", "ratio", "wiener"])
def test_options_of_chunks_are_refused_by_masks(model: str, name: str) -> None:
    with pytest.raises(UsageError, match=f"^{name} is an option of models of chunks.* and {model} is none"):
        Separator(GRAPHS / model).separate(song(100), **{name: CHANGED[name]})


@pytest.mark.parametrize("name", FILTERED)
@pytest.mark.parametrize("model", ["waves", "hybrid", "complex", "plain"])
def test_options_of_filters_are_refused_by_chunks(model: str, name: str) -> None:
    with pytest.raises(UsageError, match=f"^{name} is an option of magnitude models and {model} is none"):
        Separator(GRAPHS / model).separate(song(100), **{name: CHANGED[name]})


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("waves", {"seed": 3}, "seed is of the shifts and there are none"),
        ("complex", {"shifts": 1}, "not made for shifts"),
        ("waves", {"downmix": True}, "downmix is for models of one channel"),
        (
            "waves",
            {"compensate": "residual"},
            "compensate is of models of a stem with a gain and of a rest, unlike waves",
        ),
        ("waves", {"compensate": "both"}, "compensate 'both' is not stem or residual"),
        ("waves", {"tta": True, "denoise": True}, "leave one of them out"),
        ("wiener", {"alpha": 1.0}, "alpha means nothing to the wiener filter of wiener without a softmask"),
        ("wiener", {"niter": 0, "wiener_window": 50}, r"wiener_window means nothing .* without iterations"),
        ("wiener", {"niter": 0, "rest": True}, r"rest means nothing .* without iterations"),
        ("masks", {"rest": True}, "rest means nothing to the mask filter"),
        ("masks", {"niter": 2}, "niter means nothing to the mask filter"),
    ],
)
def test_what_means_nothing_is_refused(model: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Separator(GRAPHS / model).separate(song(100), **options)


@pytest.mark.parametrize(
    "options",
    [
        {"overlap": "0.5"},
        {"overlap": float("nan")},
        {"overlap": True},
        {"overlap": 1},
        {"shifts": 1.5},
        {"shifts": "1"},
        {"shifts": None, "niter": -1},
        {"niter": 65},
        {"alpha": 0},
        {"alpha": float("inf")},
        {"wiener_window": 0},
        {"chunk": 0},
        {"chunk": -1.0},
        {"chunk": float("inf")},
        {"chunk": 1e300},
        {"chunk": [3]},
        {"exponent": 0.0},
        {"mask_extension": "mirror"},
        {"stems": 3},
        {"stems": (1, 2)},
        {"stems": {"drums": 1, 2: 3}},
        {"two_stems": 3},
        {"residual": "yes"},
        {"tta": 2},
        {"softmask": "no"},
        {"no such option": 1},
    ],
)
def test_values_that_are_none(options: dict[str, Any]) -> None:
    separator = Separator(GRAPHS / "waves")
    with pytest.raises(UsageError):
        separator.separate(song(100), **options)
    with pytest.raises(UsageError):
        separator.separate(song(100), options=options)


@pytest.mark.parametrize("options", [3, "drums", ["stems"], Options])
def test_options_that_are_none(options: Any) -> None:
    with pytest.raises(UsageError, match="are not Options"):
        Separator(GRAPHS / "waves").separate(song(100), options=options)


def test_a_name_a_list_a_dict_and_numpy_numbers_work() -> None:
    separator, x = Separator(GRAPHS / "waves"), song(5000)
    expected = separator.separate(x, stems=("drums",), shifts=2, seed=3, overlap=0.5)
    for options in (
        {"stems": "drums", "shifts": 2.0, "seed": np.int64(3), "overlap": np.float32(0.5)},
        {"stems": ["drums"], "shifts": np.int32(2), "seed": 3, "overlap": 0.5},
    ):
        for given in (separator.separate(x, options=options), separator.separate(x, **options)):
            assert list(given) == ["drums"]
            np.testing.assert_array_equal(given["drums"], expected["drums"])
    assert list(separator.separate(x, options=Options(residual=True), stems="vocals")) == ["vocals", "residual"]


@pytest.mark.parametrize(
    "rate", [-1, 0, 999, "44100", 44100.5, float("nan"), float("inf"), True, None.__class__, 1 << 40]
)
def test_sample_rates_that_are_none(rate: Any) -> None:
    with pytest.raises(UsageError, match="sample rate of"):
        Separator(GRAPHS / "waves").separate(song(100), rate)
    with pytest.raises(UsageError, match="sample rate of"):
        Separator(GRAPHS / "waves", sample_rate=rate)


def test_a_rate_may_be_a_float_or_numpy() -> None:
    separator, x = Separator(GRAPHS / "waves"), song(5000)
    for rate in (11025.0, np.int64(11025), np.float32(11025)):
        np.testing.assert_array_equal(separator.separate(x, rate)["drums"], separator.separate(x, 11025)["drums"])


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", True])
def test_threads_that_are_none(threads: Any) -> None:
    with pytest.raises(UsageError, match="threads"):
        Separator(GRAPHS / "waves", threads=threads)


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        ([[0.1, 0.2], [0.1]], "channels of one length"),
        (np.zeros((2, 100), np.int64), "no agreed full scale"),
        (np.zeros((2, 100), np.uint64), "no agreed full scale"),
        (np.full((2, 100), 1e30, np.float32), "peak is 1e\\+30"),
        (np.full((2, 100), 1e300), "peak is 1e\\+300"),
        (np.zeros((2, 100), bool), "not audio"),
        (np.zeros((0, 2, 100), np.float32), "no songs"),
        (None, "not audio"),
        ("song.wav", "not audio"),
    ],
)
def test_arrays_that_are_none(mix: Any, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        Separator(GRAPHS / "waves").separate(mix)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_does_not_come_out(value: float) -> None:
    def broken(mix: np.ndarray) -> np.ndarray:
        stems = scaled(0.5, 0.25)(mix)
        stems[0, 1, 0, 500] = value
        return stems

    separator, _ = faked(WAVES, broken)
    with pytest.raises(ModelError, match=r"fake gave values that are not finite, 0\.0 s into the song"):
        separator.separate(song(5000))
    with pytest.raises(ModelError, match="not finite"):
        separator.separate(song(5000), stems="b", residual=True)


def test_a_batch_is_its_songs() -> None:
    separator = Separator(GRAPHS / "waves")
    songs = np.stack([song(3000, seed=k) for k in range(3)])
    stems = separator.separate(songs, residual=True)
    for name, stem in stems.items():
        assert stem.shape == songs.shape
        for k in range(3):
            np.testing.assert_array_equal(stem[k], separator.separate(songs[k], residual=True)[name])


def test_a_repr_and_a_with() -> None:
    with Separator(GRAPHS / "waves") as separator:
        assert repr(separator) == "<Separator waves: drums, vocals; 8000 Hz; not loaded>"
        separator.separate(song(100))
        assert repr(separator) == "<Separator waves: drums, vocals; 8000 Hz; on cpu>"
    assert not separator._graphs.loaded


def test_mps_is_coreml_in_python_too() -> None:
    with pytest.raises(OrtsepError, match="coreml"):
        Separator(GRAPHS / "waves", provider="mps").separate(song(100))


def test_a_chain_takes_what_one_of_its_models_can_use() -> None:
    first, second = Separator(GRAPHS / "waves"), Separator(GRAPHS / "wiener")
    second.model = replace(second.model, spec=second.spec.renamed(("c", "d")))
    second._graphs = second._new_graphs()
    chain, x = Chain(first, second, "drums"), song(9000)

    def stems(**options: Any) -> dict[str, np.ndarray]:
        chosen = Options(**options)
        from ortsep.audio.sources import ArraySource

        blocks = list(chain.stream(ArraySource(x, 8000), chosen))
        return dict(zip(chain.names(chosen), np.concatenate(blocks, axis=-1), strict=True))

    plain, tuned = stems(), stems(shifts=1, niter=0)
    assert np.abs(plain["c"] - tuned["c"]).max() > 1e-3, "niter reached the second"
    np.testing.assert_allclose(plain["vocals"], tuned["vocals"], atol=1e-6)
    two = Chain(first, faked(replace(WAVES, name="other"), scaled(0.5, 0.25))[0], "drums")
    with pytest.raises(UsageError, match="niter is an option that no model of"):
        two.stream(x, {"niter": 1})
    with pytest.raises(UsageError, match="chunk is an option that no model"):
        two.stream(x, {"chunk": 3.0})


def test_three_models_one_behind_the_other() -> None:
    def model(name: str, stems: tuple[str, ...], *factors: float) -> Separator:
        return faked(changed(name=name, stems=stems), scaled(*factors))[0]

    chain = Chain.of(
        [model("x", ("a", "b"), 0.5, 0.25), model("y", ("c", "d"), 0.5, 0.1), model("z", ("e", "f"), 0.5, 0.25)],
        ["a", "d"],
    )
    assert chain.stems == ("b", "c", "e", "f")
    x = song(20_000)
    stems = np.concatenate(list(chain.stream(x)), axis=-1)
    for stem, factor in zip(stems, (0.25, 0.25, 0.025, 0.0125), strict=True):
        np.testing.assert_allclose(stem, factor * x, atol=1e-6)
    some = np.concatenate(list(chain.stream(x, {"stems": ("f", "b"), "residual": True})), axis=-1)
    np.testing.assert_allclose(some[0], 0.0125 * x, atol=1e-6)
    np.testing.assert_allclose(some.sum(axis=0), x, atol=1e-6)
    assert len(str(chain.plan(20_000, 8000)).split("\n\n")) == 3


def test_a_derived_stem_is_a_stem_like_the_others() -> None:
    spec = changed(gains=(1.5, 1.0), derived=(Derived("no a", ("a",), 0.5), Derived("rest", ("b", "a"))))
    separator, _ = faked(spec, scaled(0.4, 0.1))
    x = song(7000)
    expected = {"a": 0.6 * x, "b": 0.1 * x, "no a": x - 0.5 * 0.6 * x, "rest": 0.3 * x}
    assert separator.stems == ("a", "b", "no a", "rest")
    choices = [(), ("rest",), ("no a", "a"), ("b", "no a"), ("rest", "no a", "b", "a")]
    for stems in choices:
        found = separator.separate(x, stems=stems, residual=True)
        assert list(found) == [*(stems or separator.stems), "residual"]
        for name in stems or separator.stems:
            np.testing.assert_allclose(found[name], expected[name], atol=1e-6)
        np.testing.assert_allclose(sum(found.values()), x, atol=2e-6)
    two = separator.separate(x, two_stems="no a")
    np.testing.assert_allclose(two["no a"], expected["no a"], atol=1e-6)
    np.testing.assert_allclose(two["no_no a"], x - expected["no a"], atol=1e-6)
    mono = separator.separate(x[0], stems="no a")["no a"]
    np.testing.assert_allclose(mono, x[0] - 0.3 * x[0], atol=1e-6)
    resampled = separator.separate(x, 11025)
    np.testing.assert_allclose(resampled["no a"] + 0.5 * resampled["a"], x, atol=1e-5)


def test_only_the_graph_stems_that_are_needed_are_asked_for() -> None:
    separator, _ = faked(changed(derived=(Derived("c", ("b",)),)), scaled(0.4, 0.1))
    assert separator._rows(Options(stems=("c",))) == ([1], [separator._rows(Options(stems=("c",)))[1][0]])
    assert separator.plan(5000, 8000, Options(stems=("c",))).rows == (1,)


def test_tta_and_denoise_are_means_of_runs() -> None:
    """A network that hears channels and signs apart: the definitions, run by hand."""

    def network(mix: np.ndarray) -> np.ndarray:
        y = np.stack([np.abs(mix) * 0.3 + 0.5 * mix, mix**2], axis=1)
        y[:, :, 1] += 0.1 * mix[:, None, 0]
        return y

    separator, session = faked(changed(chunks=Chunks(1000, overlap=0.0)), network)
    x = song(1000)
    f = lambda given: network(given[None])[0].astype(np.float64)  # noqa: E731
    swapped = f(x[::-1])[:, ::-1]
    for options, expected, runs in (
        ({"tta": True}, (f(x) + swapped - f(-x)) / 3, 3),
        ({"denoise": True}, 0.5 * f(x) - 0.5 * f(-x), 2),
    ):
        session.heard.clear()
        stems = separator.separate(x, **options)
        assert len(session.heard) == runs == separator.plan(1000, 8000, Options(**options)).runs
        np.testing.assert_allclose(np.stack(list(stems.values())), expected, atol=1e-6)


def test_a_model_of_one_channel_hears_each() -> None:
    separator, _ = faked(changed(channels=1), lambda mix: np.stack([mix**2, 0.5 * mix], axis=1))
    x = song(5000)
    x[1] = -x[0]
    stems = separator.separate(x, residual=True)
    np.testing.assert_allclose(stems["a"], x**2, atol=1e-6)
    np.testing.assert_allclose(stems["b"], 0.5 * x, atol=1e-6)
    np.testing.assert_allclose(stems["residual"], x - x**2 - 0.5 * x, atol=1e-6)
    mono = separator.separate(x + np.float32(0.1), downmix=True)
    assert separator.channels(2, Options(downmix=True)) == 1
    np.testing.assert_allclose(mono["b"], np.full((1, 5000), 0.05), atol=1e-6)
    assert separator.separate(x[0])["b"].shape == (5000,)
    progress: list[tuple[int, int]] = []
    separator.separate(x, progress=lambda *told: progress.append(told))
    assert progress[-1] == (5000, 5000) and progress == sorted(progress)


def test_the_alpha_wiener_filter_has_an_alpha_of_one_unless_told() -> None:
    separator, x = Separator(GRAPHS / "masks"), song(9000)
    plain, told = separator.separate(x, wiener=True), separator.separate(x, wiener=True, alpha=1.0)
    other = separator.separate(x, wiener=True, alpha=2.0)
    for stem in separator.stems:
        np.testing.assert_array_equal(plain[stem], told[stem])
        assert np.abs(plain[stem] - other[stem]).max() > 1e-3
