"""VR networks end to end against python-audio-separator's own code: the masked spectra, and the waveforms.

$ORTSEP_AUDIO_SEPARATOR is a folder that holds the package (a wheel unpacked, with samplerate and pydub beside it);
without it these tests are skipped. Between the bands it resamples with libsamplerate on Linux and with scipy's
polyphase filter on Apple silicon.
"""

import logging
import os
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import soundfile
import torch
from vr_cases import song, tiny

from ortsep.engine import by_band
from ortsep.engine.bands import BandSynthesiser, band_wave
from ortsep.export.exporter import write_export
from ortsep.export.families.vr.original import Vr
from ortsep.separator import Separator

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.long]
Snr = Callable[[Any, Any], float]
PRIMARY = {"instrumental": "Instrumental", "vocals": "Vocals", "no_echo": "No Echo"}


@pytest.fixture(scope="module")
def theirs() -> Any:
    """python-audio-separator's modules."""
    home = os.environ.get("ORTSEP_AUDIO_SEPARATOR") or "/nowhere"
    if not (Path(home) / "audio_separator").is_dir():
        pytest.skip("no python-audio-separator in $ORTSEP_AUDIO_SEPARATOR")
    sys.path.insert(0, home)
    from audio_separator.separator.architectures import vr_separator  # type: ignore[import-not-found]
    from audio_separator.separator.uvr_lib_v5 import spec_utils  # type: ignore[import-not-found]
    from audio_separator.separator.uvr_lib_v5.vr_network import (  # type: ignore[import-not-found]
        model_param_init,
        nets,
        nets_new,
    )

    return SimpleNamespace(vr=vr_separator, utils=spec_utils, params=model_param_init, old=nets, new=nets_new)


def network_of(theirs: Any, original: Vr) -> Any:
    arch, bins = original.arch, 2 * original.arch.bins
    if arch.edition == "5.1":
        network = theirs.new.CascadedNet(bins, nout=arch.channels, nout_lstm=arch.lstm)
    else:
        c = arch.channels
        sizes = [(2, c), (2, c), (c + 2, c // 2, 1, 1, 0), (c // 2, c), (2 * c + 2, c, 1, 1, 0), (c, 2 * c)]
        sizes += [(2 * c, 2, 1), (c, 2, 1), (c, 2, 1)]
        network = theirs.old.CascadedASPPNet(bins, sizes, {5: 123821, 6: 129605, 7: 537238}[arch.branches])
    network.load_state_dict(original.net.state_dict())
    return network.eval()


def separated(theirs: Any, original: Vr, path: Path, **changes: Any) -> tuple[Any, Any, Any]:
    """Its two masked spectra [2, 2, bins, T], and its two waves with the resampler that is set."""
    bands = original.spec.bands
    assert bands is not None
    folder = Path(theirs.params.__file__).parent / "modelparams"
    params = theirs.params.ModelParameters(str(folder / f"{bands.layout}.json"))
    it = theirs.vr.VRSeparator.__new__(theirs.vr.VRSeparator)
    given = {"enable_tta": False, "enable_post_process": False, "post_process_threshold": 0.2, "window_size": 512}
    given |= {"high_end_process": False, "aggression": 0.05, **changes}
    vars(it).update(
        given, logger=logging.getLogger("oracle"), model_params=params, batch_size=1, audio_file_path=str(path)
    )
    vars(it).update(torch_device_mps=None, is_vr_51_model=original.arch.edition == "5.1", wav_subtype="FLOAT")
    vars(it).update(input_high_end=None, input_high_end_h=None, model_run=network_of(theirs, original))
    it.primary_stem_name = PRIMARY[original.spec.stems[0]]
    strength = {"value": it.aggression, "split_bin": params.param["band"][1]["crop_stop"], "aggr_correction": None}
    spectra = it.inference_vr(it.loading_mix(), torch.device("cpu"), strength)
    waves = np.stack([it.spec_to_wav(np.array(spectrum)) for spectrum in spectra])
    return np.stack(spectra)[:, :, : bands.bins], waves, it


class Masked(BandSynthesiser):
    """Keeps the masked spectra [2, 2, bins, t] that a run makes waves of."""

    taken: ClassVar[list[Any]] = []

    def push(self, stacked: Any, above: Any = None) -> Any:
        self.taken.append(stacked.copy())
        return super().push(stacked, above)


CASES: dict[str, tuple[str, str, str]] = {
    "old, one band": ("1band_sr44100_hl512", "5", "Instrumental"),
    "old, four bands": ("4band_44100", "5", "Vocals"),
    "old, three bands of sums": ("3band_44100_msb2", "5", "Instrumental"),
    "5.1, one band": ("1band_sr44100_hl1024", "5.1", "No Echo"),
    "5.1, four bands": ("4band_v3", "5.1", "No Echo"),
    "5.1, four bands of sums": ("4band_v4_ms_fullband", "5.1", "Vocals"),
}
CHANGES: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "as it is": ({}, {}),
    "tta": ({"enable_tta": True}, {"tta": True}),
    "all": (
        {"enable_post_process": True, "window_size": 320, "aggression": 0.2, "high_end_process": True},
        {"post_process": 0.2, "window": 320, "aggression": 20, "high_end": True},
    ),
}


@pytest.mark.parametrize("changed", CHANGES)
@pytest.mark.parametrize("case", CASES)
def test_equals_its_own_code(case: str, changed: str, theirs: Any, snr: Snr, tmp_path: Path, monkeypatch: Any) -> None:
    original = tiny(*CASES[case])
    bands = original.spec.bands
    assert bands is not None
    given, ours = (dict(changes) for changes in CHANGES[changed])
    if not bands.mirrored:
        given.pop("high_end_process", None)
        ours.pop("high_end", None)
    mix = song(44100, 9.0)
    soundfile.write(tmp_path / "song.wav", mix.T, 44100, subtype="FLOAT")
    write_export(original, tmp_path / "model")
    monkeypatch.setattr(by_band, "BandSynthesiser", Masked)
    Masked.taken.clear()
    stems = np.stack(list(Separator(tmp_path / "model").separate(mix, **ours).values()))
    monkeypatch.setattr(theirs.utils, "wav_resolution", "polyphase")
    spectra, waves, it = separated(theirs, original, tmp_path / "song.wav", **given)
    assert snr(spectra, np.concatenate(Masked.taken, -1)) >= 90.0
    assert snr(waves, stems[..., : waves.shape[-1]]) >= 90.0
    assert not stems[..., waves.shape[-1] :].any()
    if "high_end" not in ours:  # else the bins above are in no stacked spectrum
        assert snr(band_wave(bands, spectra.astype(np.complex64)), stems[..., : waves.shape[-1]]) >= 90.0
    if find_spec("samplerate") is None:
        return
    monkeypatch.setattr(theirs.utils, "wav_resolution", "sinc_fastest")
    whole = np.pad(spectra, [(0, 0), (0, 0), (0, 1), (0, 0)])
    on_linux = np.stack([it.spec_to_wav(np.array(spectrum)) for spectrum in whole])
    assert snr(on_linux, stems[..., : waves.shape[-1]]) >= (55.0 if len(bands.bands) > 1 else 90.0)
