"""UVR's .pth files: recognised by their parameters, completed by key, name and settings, refused with a sentence."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from ortsep.base.errors import OrtsepError, UsageError, WeightsError  # noqa: E402
from ortsep.export.exporter import open_named  # noqa: E402
from ortsep.export.families.vr.architecture import Architecture  # noqa: E402
from ortsep.export.families.vr.network import made_network  # noqa: E402
from ortsep.export.family import Choice  # noqa: E402
from ortsep.models.bands import Bands  # noqa: E402
from ortsep.models.catalogue import catalogue  # noqa: E402
from ortsep.models.contracts.read import file_key  # noqa: E402
from ortsep.models.contracts.vr import ENTRIES, LAYOUTS, Entry, find_entry, vr_spec  # noqa: E402


def pth(folder: Path, name: str, arch: Architecture, **changes: Any) -> Path:
    state = {**made_network(arch).state_dict(), **changes}
    torch.save({k: v for k, v in state.items() if v is not None}, folder / name)
    return folder / name


OLD, NEW = Architecture("5", 4, 256), Architecture("5.1", 8, 672, lstm=16)
SET = {"model_param": "1band_sr44100_hl256", "primary": "Vocals"}


def bands_of(path: Path, settings: Mapping[str, str]) -> Bands:
    bands = open_named(str(path), Choice(settings=settings)).spec.bands
    assert bands is not None
    return bands


def test_the_network_is_read_off_the_parameters(tmp_path: Path) -> None:
    seven = pth(tmp_path, "a.pth", Architecture("5", 4, 256, 7))
    deep = pth(tmp_path, "b.pth", Architecture("5", 4, 256, 6, 5))
    assert (bands_of(seven, SET).context, bands_of(seven, SET).multiple) == (128, 16)
    assert bands_of(deep, SET).multiple == 32
    new = open_named(
        str(pth(tmp_path, "c.pth", NEW)), Choice(settings={"model_param": "4band_v3", "primary": "No Echo"})
    )
    assert new.spec.stems == ("no_echo", "echo")
    assert new.spec.bands is not None and new.spec.bands.context == 64 and not new.spec.bands.inverted


def test_a_file_of_a_known_name_needs_nothing(tmp_path: Path) -> None:
    found = open_named(str(pth(tmp_path, "UVR-De-Echo-Normal.pth", NEW)), Choice())
    assert found.spec.stems == ("no_echo", "echo")
    assert "found by the name UVR-De-Echo-Normal" in found.spec.notes[0]


def test_one_in_a_folder_of_models_is_exported_when_it_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ortsep.commands.make import export_first
    from ortsep.graphs.model import find_model, load_model

    (tmp_path / "VR_Models").mkdir()
    named = pth(tmp_path / "VR_Models", "5_HP-Karaoke-UVR.pth", Architecture("5", 4, 672))
    keyed = pth(tmp_path / "VR_Models", "renamed.pth", OLD)
    monkeypatch.setitem(ENTRIES, file_key(keyed), Entry("", "1band_sr44100_hl256", "Vocals"))
    monkeypatch.setenv("ORTSEP_MODELS", str(tmp_path))
    for name, file in (("5_HP-Karaoke-UVR", named), ("renamed", keyed)):
        export_first(name, "bar", quiet=True)
        assert find_model(name) == tmp_path / name
        spec = load_model(name).spec
        assert spec.weights.source == file.name and spec.bands is not None
        written = (tmp_path / name / f"{name}.onnx").stat().st_mtime_ns
        export_first(name, "bar", quiet=True)
        assert (tmp_path / name / f"{name}.onnx").stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("arch", "changes", "settings", "message"),
    [
        (OLD, {}, {}, r"are in no table.*--set model_param=.*the layouts are .*4band_44100"),
        (NEW, {}, {}, r"the layouts are 4band_v2, 4band_v2_sn, 4band_v3, 4band_v3_sn"),
        (OLD, {}, {"model_param": "5band", "primary": "Vocals"}, "there is no layout 5band"),
        (OLD, {}, {"model_param": "4band_44100_reverse", "primary": "Vocals"}, "from their end, which a stream can't"),
        (NEW, {}, {"model_param": "4band_44100", "primary": "Vocals"}, r"hears 672 bins and .* has 768; .*4band_v3"),
        (OLD, {"out.weight": None}, SET, "out.weight is missing"),
        (OLD, {"more.weight": torch.zeros(2)}, SET, "more.weight is unknown"),
        (OLD, {"stg2_bridge.conv.1.running_var": -torch.ones(2)}, SET, "negative variances"),
    ],
)
def test_what_is_wrong_is_said(
    arch: Architecture, changes: dict[str, Any], settings: dict[str, str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=message):
        open_named(str(pth(tmp_path, "mine.pth", arch, **changes)), Choice(settings=settings))


def test_settings_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"n_fft means nothing to .*--set takes model_param, primary"):
        open_named(str(pth(tmp_path, "mine.pth", OLD)), Choice(settings={"n_fft": "2048"}))
    with pytest.raises(UsageError, match="model_param, primary means nothing to drums_mini; leave --set out"):
        open_named("drums_mini", Choice(settings=SET))


def test_every_card_has_a_spec_and_says_what_the_table_says() -> None:
    cards = [card for card in catalogue().values() if card.family == "vr"]
    assert len(cards) == 29
    for card in cards:
        arguments = card.arguments
        arch = Architecture(bins=LAYOUTS[arguments["layout"]].bins, **arguments["sizes"])
        named = ENTRIES.get(arguments["key"])
        if named is not None:
            assert (named.file, named.layout, named.primary) == (card.name, arguments["layout"], arguments["primary"])
        entry, _ = find_entry("", None, {"model_param": arguments["layout"], "primary": arguments["primary"]}, ())
        spec = vr_spec(entry, arch.edition, card.name)
        assert (spec.stems, spec.sample_rate) == (card.stems, card.sample_rate)
        if card.sources[0].size:
            extra = card.sources[0].size - 4 * card.parameters
            assert 0 < extra < (8_000_000 if arch.branches == 7 else 460_000)  # names, counters, the seventh layer


def test_options_of_masks(tmp_path: Path) -> None:
    from ortsep.options import Options, refuse_options

    spec = vr_spec(ENTRIES["44c55d8b5d2e3edea98c2b2bf93071c7"], "5.1", "x")
    refuse_options(spec, Options(aggression=20, window=1024, tta=True, post_process=0.2, high_end=True))
    for wrong in ({"overlap": 0.5}, {"denoise": True}, {"niter": 2}, {"chunk": 3.0}, {"window": 500}, {"window": 128}):
        with pytest.raises(OrtsepError):
            refuse_options(spec, Options(**wrong))
    for outside in ({"aggression": 101}, {"aggression": 1.5}, {"post_process": 0.0}, {"window": 0}):
        with pytest.raises(UsageError):
            Options(**outside)
