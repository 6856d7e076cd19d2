"""Which file is what: recognition by tensors, key and name, and the sentence where these leave something open."""

from pathlib import Path

import pytest

from ortsep.models.contracts.contract import Wishes
from ortsep.models.contracts.mdx_net import COMPENSATE, ENTRIES, FILES, SIZES, stem_names
from ortsep.models.contracts.read import KEYED, file_key, read_file
from ortsep.models.contracts.recognise import CONTRACTS, Recognised, Unknown, recognise, together

pytest.importorskip("onnx")
from foreign import files

WANTED = {"n_fft": "6144", "primary": "Vocals", "compensate": "1.03"}


def made(path: Path, wishes: Wishes | None = None) -> Recognised:
    result = recognise(read_file(path), wishes or Wishes())
    assert isinstance(result, Recognised), str(result)
    return result


def refused(path: Path, wishes: Wishes | None = None) -> str:
    result = recognise(read_file(path), wishes or Wishes())
    assert isinstance(result, Unknown), result
    return str(result)


@pytest.mark.parametrize(
    ("make", "contract", "domain"),
    [
        ("sevagh", "demucs-hybrid", "hybrid"),
        ("openkara", "openkara", "hybrid"),
        ("openvino", "openvino", "hybrid"),
        ("mixxx", "demucs-waveform", "waveform"),
        ("stemsplit", "demucs-waveform", "waveform"),
    ],
)
def test_four_makes_of_demucs_are_told_apart(tmp_path: Path, make: str, contract: str, domain: str) -> None:
    found = made(files.demucs(tmp_path / "model.onnx", make))
    assert (found.contract, found.spec.domain) == (contract, domain)
    assert found.spec.stems == ("drums", "bass", "other", "vocals")
    assert found.spec.normalization.kind == ("chunk" if make == "openvino" else "track")


def test_six_stems(tmp_path: Path) -> None:
    assert made(files.demucs(tmp_path / "htdemucs_6s.onnx", "stemsplit", 6)).spec.stems[4:] == ("guitar", "piano")
    assert len(made(files.demucs(tmp_path / "htdemucs_6s.onnx", "sevagh", 6)).spec.stems) == 6


def test_a_specialist_keeps_its_row_and_four_are_one_model(tmp_path: Path) -> None:
    names = ("drums", "bass", "other", "vocals")
    paths = [files.demucs(tmp_path / f"htdemucs_ft_{name}.onnx", "stemsplit") for name in names]
    found = {path.name: made(path) for path in paths}
    assert [one.spec.stems for one in found.values()] == [(name,) for name in names]
    assert [one.spec.tensors.names[-1].rows for one in found.values()] == [(0,), (1,), (2,), (3,)]
    spec = together(found.items())
    assert spec is not None and spec.stems == names and spec.name == "htdemucs_ft"
    assert [member.weights.index(1.0) for member in spec.bag] == [0, 1, 2, 3]
    assert together(list(found.items())[:3]) is None


def test_a_spleeter_needs_its_pair(tmp_path: Path) -> None:
    path = files.spleeter(tmp_path / "vocals.fp16.onnx", 1)
    assert "accompaniment.fp16.onnx is not beside it" in refused(path)
    files.spleeter(tmp_path / "accompaniment.fp16.onnx", 2)
    spec = made(path).spec
    assert [member.file for member in spec.bag] == ["vocals.fp16.onnx", "accompaniment.fp16.onnx"]
    assert spec.sample_rate == 44100  # the file says 41000
    assert "called neither" in refused(path.rename(tmp_path / "x.onnx"))


def test_mdx_net_by_its_key_whatever_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = files.mdx_net(tmp_path / "renamed.onnx", 3072)
    monkeypatch.setitem(ENTRIES, file_key(path), ENTRIES["970b3f9492014d18fefeedfe4773cb42"])
    spec = made(path).spec
    assert (spec.stems, spec.names, spec.gains) == (("vocals",), ("vocals", "instrumental"), (1.009,))
    assert spec.stft is not None and (spec.stft.n_fft, spec.stft.bins, spec.stft.zero_before) == (7680, 3072, 3)
    assert spec.bandwidth == pytest.approx(3072 / 7680 * 44100)


@pytest.mark.parametrize("name", ["Kim_Vocal_2.onnx", "kim_vocal_2.fp16.onnx"])
def test_a_file_saved_anew_is_known_by_its_name(tmp_path: Path, name: str) -> None:
    path = files.mdx_net(tmp_path / name, 3072, metadata={"model_type": "UVR", "n_fft": "6144"})  # sherpa-onnx's, wrong
    spec = made(path).spec
    assert spec.stft is not None and spec.stft.n_fft == 7680
    assert "by the name" in spec.notes[-1]


def test_an_unknown_mdx_net_asks_and_is_told(tmp_path: Path) -> None:
    path = files.mdx_net(tmp_path / "mine.onnx", 2048)
    message = refused(path)
    assert "4096, 5120, 6144, 8192, 16384" in message and "--set n_fft" in message and file_key(path) in message
    spec = made(path, Wishes(settings=WANTED)).spec
    assert (spec.names, spec.gains) == (("vocals", "instrumental"), (1.03,))
    assert "no MDX-Net has 1024 bins: they have 2048, 2560, 3072" in refused(files.mdx_net(path, 1024))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compensate": "0"}, "compensate can't be 0: it is a number from 0.9 to 1.2"),
        ({"compensate": "1.75"}, "compensate can't be 1.75"),
        ({"n_fft": "4000"}, "no 2048 bins"),
        ({"n_fft": "4097"}, "an n_fft of 4097"),
        ({"n_fft": "nan"}, "n_fft can't be nan"),
        ({"hop": "512"}, "hop means nothing to UVR's MDX-Net: --set takes n_fft, primary, compensate, dim_t"),
        ({"primary": " "}, "which stem"),
    ],
)
def test_settings_that_can_not_be(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    path = files.mdx_net(tmp_path / "mine.onnx", 2048)
    assert message in refused(path, Wishes(settings={**WANTED, **changes}))


def test_the_entry_of_the_table_that_can_not_be_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = [entry for entry in ENTRIES.values() if not COMPENSATE[0] <= entry.compensate <= COMPENSATE[1]]
    assert [entry.compensate for entry in odd] == [1.75]
    path = files.mdx_net(tmp_path / "x.onnx", 3072)
    monkeypatch.setitem(ENTRIES, file_key(path), odd[0])
    assert "compensate 1.75, which can't be meant: give --set compensate" in refused(path)
    assert made(path, Wishes(settings={"compensate": "1.075"})).spec.gains == (1.075,)


def test_another_model_of_a_known_name(tmp_path: Path) -> None:
    assert "3072 bins and the graph has 2048" in refused(files.mdx_net(tmp_path / "Kim_Vocal_2.onnx", 2048))


def test_the_table_is_the_published_one() -> None:
    assert len(ENTRIES) == 44 and len(FILES) == 39
    assert SIZES == {2048: (4096, 5120, 6144, 8192, 16384), 2560: (5120,), 3072: (6144, 7680)}
    assert {entry.file for entry in ENTRIES.values()} - {""} <= set(FILES)
    assert all(entry.n_fft // 2 + 1 >= entry.dim_f for entry in ENTRIES.values())


def test_stem_names() -> None:
    assert stem_names("Vocals") == ("vocals", "instrumental")
    assert stem_names("No Crowd") == ("no_crowd", "crowd")
    assert stem_names("Reverb") == ("reverb", "no_reverb")


def test_a_roformer_is_asked_for_its_stem(tmp_path: Path) -> None:
    assert made(files.roformer(tmp_path / "bs.onnx")).spec.stems == ("drums", "bass", "other", "vocals")
    path = files.roformer(tmp_path / "kim.onnx", 1)
    assert "which 1 stem it gives; add --stems vocals" in refused(path)
    assert made(path, Wishes(stems=("vocals",))).spec.names == ("vocals", "instrumental")


def test_outputs_named_by_their_stems(tmp_path: Path) -> None:
    path = files.named(tmp_path / "tutorial.onnx", ["drums", "bass", "other", "vocals"], 44100)
    assert made(path).spec.stems == ("drums", "bass", "other", "vocals")
    odd = files.named(tmp_path / "odd.onnx", ["y0", "y1"])
    assert "called y0, y1, which are no names of stems" in refused(odd)
    assert made(odd, Wishes(stems=("a", "b"))).spec.stems == ("a", "b")
    assert "names 3 stems where it gives 4" in refused(path, Wishes(stems=("a", "b", "c")))


def test_a_file_that_is_nothing_known(tmp_path: Path) -> None:
    g = files.Writer()
    g.op("Identity", "tokens", name="logits")
    path = g.save(tmp_path / "asr.onnx", {"tokens": [1, 80, 3000, 2, 2]}, {"logits": [1, 80, 3000, 2, 2]})
    message = refused(path)
    assert "tokens [1, 80, 3000, 2, 2] -> logits" in message and "the nearest are" in message


def test_a_contract_that_is_wished_for(tmp_path: Path) -> None:
    path = files.demucs(tmp_path / "model.onnx", "sevagh")
    assert "there is no contract demux: --as takes mdx-net" in refused(path, Wishes("demux"))
    assert "where mdx-net: " in refused(path, Wishes("mdx-net"))
    assert made(path, Wishes("demucs-hybrid")).contract == "demucs-hybrid"


def test_the_key_is_of_the_end_of_the_file(tmp_path: Path) -> None:
    import hashlib

    path = tmp_path / "x"
    path.write_bytes(b"a" * 5 + b"b" * KEYED)
    assert KEYED == 10_240_000
    assert file_key(path) == hashlib.md5(b"b" * KEYED).hexdigest()
    path.write_bytes(b"short")
    assert file_key(path) == hashlib.md5(b"short").hexdigest()


def test_contracts_have_names_of_their_own() -> None:
    assert len({contract.name for contract in CONTRACTS}) == len(CONTRACTS)
