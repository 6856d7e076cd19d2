"""Other people's files end to end: ortsep's stems against their hosts' in float64, on the same small networks.

Real audio where it is at hand, and in its place a seeded mixture of tones and noise; mono, silence and odd lengths.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("onnx")
from foreign import files, hosts
from foreign.files import network, weights

from ortsep.base.decibels import PERFECT
from ortsep.separator import Separator

F64 = npt.NDArray[np.float64]
GATE = 100.0
RATE = 44100
Snr = Callable[[Any, Any], float]


@cache
def song(samples: int) -> F64:
    """Stereo, peak about 0.5: tones that come and go, and noise."""
    rng = np.random.default_rng(samples)
    t = np.arange(samples) / RATE
    draws = rng.uniform(0.3, 3, (6, 3))
    tones = sum(np.sin(440 * np.pi * f * t + p) * np.sin(np.pi * r * t) ** 2 for f, p, r in draws)
    noise = rng.normal(size=(2, samples)) * 0.05
    return (np.stack([tones, np.roll(tones, 40)]) * 0.08 + noise).astype(np.float32).astype(np.float64)


def real(folder: Path, samples: int) -> F64:
    import soundfile

    wave, _ = soundfile.read(folder / "multitrack" / "song4" / "mixture.flac", always_2d=True, dtype="float32")
    return np.tile(wave.T.astype(np.float64), -(-samples // len(wave)))[:, :samples]


def separated(path: Path, mix: F64, **options: Any) -> dict[str, F64]:
    stems = Separator(path, provider="cpu").separate(mix.astype(np.float32), RATE, **options)
    return {name: wave.astype(np.float64) for name, wave in stems.items()}


def demucs_host(mix: F64, make: str, stems: int = 4, seed: int = 3) -> F64:
    wt, w = weights(2 * stems, 2, seed), weights(4 * stems, 4, seed + 1)

    def waves(x: F64) -> F64:
        return network(x, wt, files.BIAS).reshape(1, stems, 2, -1)

    def hybrid(x: F64, xt: F64) -> tuple[F64, F64]:
        return network(x, w, files.BIAS).reshape(1, stems, 4, *x.shape[2:]), waves(xt)

    def chunk(part: F64) -> F64:
        if make in ("mixxx", "stemsplit"):
            return waves(part[None])[0]
        return hosts.htdemucs_chunk(part, hybrid, standardised=make == "openvino")

    around = hosts.apply_model if make == "openvino" else hosts.demucs_api
    return around(mix, chunk, files.N, stems)


@pytest.mark.parametrize("make", ["sevagh", "openkara", "openvino", "mixxx", "stemsplit"])
@pytest.mark.parametrize("samples", [files.N + 10_001, 50_001])
def test_demucs_of_five_makes(tmp_path: Path, snr: Snr, make: str, samples: int) -> None:
    path = files.demucs(tmp_path / "model.onnx", make)
    mix = song(samples)
    result = separated(path, mix)
    assert list(result) == ["drums", "bass", "other", "vocals"]
    for stem, wave in zip(demucs_host(mix, make), result.values(), strict=True):
        assert snr(stem, wave) >= GATE


def test_demucs_on_real_audio(tmp_path: Path, snr: Snr, shared_audio: Path) -> None:
    mix = real(shared_audio, files.N + 77_777)
    for make in ("sevagh", "openvino"):
        result = separated(files.demucs(tmp_path / f"{make}.onnx", make), mix)
        assert snr(demucs_host(mix, make), np.stack(list(result.values()))) >= GATE


def test_the_specialists_alone_and_together(tmp_path: Path, snr: Snr) -> None:
    names = ("drums", "bass", "other", "vocals")
    paths = [files.demucs(tmp_path / f"htdemucs_ft_{n}.onnx", "mixxx", seed=20 + k) for k, n in enumerate(names)]
    mix = song(60_001)
    expected = [demucs_host(mix, "mixxx", seed=20 + k)[k] for k in range(4)]
    alone = separated(paths[3], mix)
    assert list(alone) == ["vocals"] and snr(expected[3], alone["vocals"]) >= GATE
    together = separated(tmp_path, mix)
    assert list(together) == list(names)
    for stem, wave in zip(expected, together.values(), strict=True):
        assert snr(stem, wave) >= GATE
    assert snr(expected[1], separated(tmp_path, mix, stems=("bass",))["bass"]) >= GATE


@pytest.mark.parametrize("samples", [700_001, 5000, 1024])
def test_spleeter_of_sherpa(tmp_path: Path, snr: Snr, samples: int) -> None:
    pair = [files.spleeter(tmp_path / f"{name}.onnx", seed) for seed, name in enumerate(("vocals", "accompaniment"))]

    def graph(seed: int) -> hosts.Graph:
        return lambda x: x / (1 + np.exp(-network(x, weights(2, 2, seed))))

    mix = song(samples)
    # What the song only partly fills counts here: the host's answer for the song followed by zeros.
    padded = np.pad(mix, ((0, 0), (0, 3072 + -samples % 1024)))
    expected = hosts.sherpa_spleeter(padded, (graph(0), graph(1)))[..., :samples]
    for way in (tmp_path, *pair):
        result = separated(way, mix)
        assert list(result) == ["vocals", "accompaniment"]
        assert snr(expected, np.stack(list(result.values()))) >= GATE
    assert snr(expected[1], separated(pair[0], mix, stems=("accompaniment",))["accompaniment"]) >= GATE


def test_outputs_named_by_their_stems(tmp_path: Path, snr: Snr) -> None:
    names = ["drums", "bass", "other", "vocals"]
    mix = song(150_001)
    for length in ("N", 44100):
        result = separated(files.named(tmp_path / f"{length}.onnx", names, length), mix)
        assert list(result) == names
        chunk = 441_000 if length == "N" else 44100

        def whole(part: F64) -> F64:
            return np.stack([network(part[None], weights(2, 2, 9 + k))[0] for k in range(4)])

        expected = whole(mix) if length == "N" else hosts.apply_model(mix, whole, chunk, 4)
        assert snr(expected, np.stack(list(result.values()))) >= GATE


def test_silence_and_mono(tmp_path: Path, snr: Snr) -> None:
    path = files.demucs(tmp_path / "model.onnx", "openvino")
    silence = separated(path, np.zeros((2, 30_000)))
    assert all(0 < np.abs(wave).max() < 1e-4 for wave in silence.values())  # the biases, brought back by 1e-5
    mono = song(40_001)[:1]
    expected = demucs_host(np.repeat(mono, 2, 0), "openvino").mean(1)
    result = separated(path, mono[0])
    assert snr(expected, np.stack(list(result.values()))) >= GATE


def test_half_precision_inputs_are_fed_as_such(tmp_path: Path, snr: Snr) -> None:
    from onnx import TensorProto

    g = files.Writer()
    g.op("Identity", g.op("Mul", "audio", g.const(np.array(0.5, np.float16))), name="vocals")
    g.op("Identity", "audio", name="drums")
    shape = [1, 2, "N"]
    outputs = dict.fromkeys(("vocals", "drums"), shape)
    path = g.save(tmp_path / "half.onnx", {"audio": shape}, outputs, kind=TensorProto.FLOAT16)
    mix = song(20_000)
    result = separated(path, mix)
    assert snr(0.5 * mix, result["vocals"]) > 60 and snr(mix, result["drums"]) > 60


def foreign_files(folder: Path) -> list[Path]:
    """One of each way in which tensors differ from ours: names, axes, order, pairs, element types."""
    from onnx import TensorProto

    g = files.Writer()
    g.op("Mul", "audio", g.const(np.array(0.5, np.float16)), name="vocals")
    half = g.save(folder / "half.onnx", {"audio": [1, 2, 44100]}, {"vocals": [1, 2, 44100]}, kind=TensorProto.FLOAT16)
    for name in ("vocals", "accompaniment"):
        files.spleeter(folder / f"{name}.onnx", 1)
    made = [files.demucs(folder / f"{make}.onnx", make) for make in ("openkara", "openvino")]
    return [files.mdx_net(folder / "Kim_Inst.onnx", 3072), folder / "vocals.onnx", *made, half]


def test_doctor_examines_other_people_s_files(tmp_path: Path) -> None:
    from ortsep.graphs.model import load_model
    from ortsep.measure.doctor import examine, golden_feeds

    for path in foreign_files(tmp_path):
        graph, feeds = golden_feeds(load_model(path))
        found = examine(graph, "cpu", feeds, runs=1)
        assert graph.parent == tmp_path and found.usable and found.snr_db == PERFECT, found


def test_bench_measures_and_counts_other_people_s_files(tmp_path: Path) -> None:
    from ortsep.measure.bench import answer, noise_song

    noise_song(tmp_path / "noise.wav", 1.0)
    for path in foreign_files(tmp_path)[:2]:
        for what, key in {"time": "graphs", "count": "operations"}.items():
            answered = answer(
                str(path), str(tmp_path / "noise.wav"), str(tmp_path / "out"), '{"provider": "cpu"}', what
            )
            assert answered[key] > 0


def test_a_missing_part_of_the_weights(tmp_path: Path) -> None:
    import onnx

    from ortsep.base.errors import FileMissing

    path = files.demucs(tmp_path / "htdemucs.onnx", "mixxx")
    model = onnx.load(str(path))
    onnx.save(model, str(path), save_as_external_data=True, location="dft.bin", size_threshold=100)
    assert separated(path, song(1000))
    (tmp_path / "dft.bin").unlink()
    with pytest.raises(FileMissing, match=r"keeps weights in dft\.bin, which is not beside it"):
        Separator(path)


def test_an_opset_that_the_runtime_does_not_know(tmp_path: Path) -> None:
    from ortsep.base.errors import ModelError

    g = files.Writer()
    g.op("Identity", "audio", name="vocals")
    g.op("Identity", "audio", name="drums")
    shape = [1, 2, "N"]
    path = g.save(tmp_path / "new.onnx", {"audio": shape}, dict.fromkeys(("vocals", "drums"), shape), opset=99)
    told = r"new\.onnx is of opset 99, and this onnxruntime reads up to \d+; upgrade onnxruntime, or"
    with pytest.raises(ModelError, match=told):
        separated(path, song(1000))


def test_integer_weights(tmp_path: Path, snr: Snr) -> None:
    """A file quantised by onnxruntime has its tensors as they were, and is no other contract."""
    from onnxruntime.quantization import quantize_dynamic

    path = files.mdx_net(tmp_path / "whole.onnx")
    quantize_dynamic(str(path), str(tmp_path / "UVR_MDXNET_9482.int8.onnx"), extra_options={"EnableSubgraph": False})
    result = separated(tmp_path / "UVR_MDXNET_9482.int8.onnx", song(50_000))
    assert list(result) == ["vocals", "instrumental"]
    assert snr(mdx_host(song(50_000)) * 1.035, result["vocals"]) > 15


MDX = {"n_fft": 6144, "dim_f": 2048, "dim_t": 256}


def mdx_host(mix: F64, seed: int = 1, **options: Any) -> F64:
    """UVR's stem before its compensation, [2, N]."""
    return hosts.uvr_mdx(mix, lambda x: network(x, weights(4, 4, seed)), *MDX.values(), **options)


@pytest.mark.parametrize("samples", [500_001, 90_000, 254_976 + 3])
def test_mdx_net_as_uvr_runs_it(tmp_path: Path, snr: Snr, samples: int) -> None:
    path = files.mdx_net(tmp_path / "UVR_MDXNET_9482.onnx")  # compensate 1.035, vocals
    mix = song(samples)
    result = separated(path, mix)
    stem = mdx_host(mix) * 1.035
    assert list(result) == ["vocals", "instrumental"]
    assert snr(stem, result["vocals"]) >= GATE and snr(mix - stem, result["instrumental"]) >= GATE


def test_mdx_net_on_real_audio_in_parts_and_denoised(tmp_path: Path, snr: Snr, shared_audio: Path) -> None:
    path = files.mdx_net(tmp_path / "UVR_MDXNET_9482.onnx")
    mix = real(shared_audio, 400_001)
    stem = mdx_host(mix) * 1.035
    result = separated(path, mix)
    assert snr(stem, result["vocals"]) >= GATE and snr(mix - stem, result["instrumental"]) >= GATE
    assert snr(mix - stem, separated(path, mix, stems=("instrumental",))["instrumental"]) >= GATE
    two = separated(path, mix, two_stems="instrumental")
    assert snr(mix - stem, two["instrumental"]) >= GATE and snr(stem, two["no_instrumental"]) >= GATE
    quiet = mdx_host(mix, denoise=True) * 1.035
    assert snr(quiet, separated(path, mix, denoise=True)["vocals"]) >= GATE
    half = mdx_host(mix, overlap=0.5) * 1.035
    assert snr(half, separated(path, mix, overlap=0.5)["vocals"]) >= GATE


def test_mdx_net_with_uvr_s_default_overlap(tmp_path: Path, snr: Snr) -> None:
    """Neighbouring chunks share n_fft samples there."""
    path = files.mdx_net(tmp_path / "UVR_MDXNET_9482.onnx")
    chunk = 1024 * (MDX["dim_t"] - 1)
    mix, overlap = song(2 * chunk + 5), MDX["n_fft"] / chunk
    assert int((1 - overlap) * chunk) == chunk - MDX["n_fft"]
    stem = mdx_host(mix, overlap=overlap) * 1.035
    assert snr(stem, separated(path, mix, overlap=overlap)["vocals"]) >= GATE


def test_mdx_net_with_the_gain_on_the_rest_alone(tmp_path: Path, snr: Snr) -> None:
    """python-audio-separator's way: the stem is raw, and the rest is the mixture less the stem times compensate."""
    path = files.mdx_net(tmp_path / "UVR_MDXNET_9482.onnx")
    mix = song(300_001)
    stem = mdx_host(mix)
    result = separated(path, mix, compensate="residual")
    assert snr(stem, result["vocals"]) >= GATE and snr(mix - 1.035 * stem, result["instrumental"]) >= GATE


def test_mdx_net_of_silence_and_mono(tmp_path: Path, snr: Snr) -> None:
    path = files.mdx_net(tmp_path / "UVR_MDXNET_9482.onnx")
    assert all(not wave.any() for wave in separated(path, np.zeros((2, 30_000))).values())
    mono = song(100_001)[:1]
    stem = (mdx_host(np.repeat(mono, 2, 0)) * 1.035).mean(0, keepdims=True)
    assert snr(stem[0], separated(path, mono[0])["vocals"]) >= GATE


@pytest.mark.parametrize("samples", [400_001, 300_000, 100_001])
def test_port_bs_roformer(tmp_path: Path, snr: Snr, samples: int) -> None:
    path = files.roformer(tmp_path / "bs.onnx", 2)
    (tmp_path / "stems.txt").write_text("vocals\nother\n")
    w = weights(8, 4, 7) * 0.3
    mix = song(samples)

    def masks(x: F64) -> F64:
        return np.tanh(network(x, w)).reshape(1, 2, 4, *x.shape[2:])

    expected = hosts.msst_demix(mix, lambda part: hosts.roformer_chunk(part, masks), 352_800, 2, 2)
    result = separated(path, mix)
    assert list(result) == ["vocals", "other"]
    assert snr(expected, np.stack(list(result.values()))) >= GATE
