"""Hostile weights: bundles, tarballs and checkpoints give a WeightsError, soon, and nothing outside their folder."""

import contextlib
import io
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import torch
from bundle_writer import write_bundle
from hypothesis import given
from hypothesis import strategies as st
from mutations import budget, damaged

from ortsep.base.errors import OrtsepError
from ortsep.export.families.demucs.package import load_demucs_package
from ortsep.export.weights.archive import unpack_tar_gz
from ortsep.export.weights.checkpoints import load_state
from ortsep.export.weights.tf_bundle import read_bundle


def _bundle() -> tuple[bytes, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        values = {f"conv/{k}": rng.standard_normal((3, k + 1)).astype(np.float32) for k in range(4)}
        prefix = write_bundle(Path(folder), values)
        return prefix.with_name("model.index").read_bytes(), (
            prefix.with_name("model.data-00000-of-00001").read_bytes()
        )


INDEX, SHARD = _bundle()


@budget(300)
@given(damaged(INDEX, front=400), damaged(SHARD) | st.just(SHARD))
def test_fuzz_bundles(index: bytes, shard: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.index").write_bytes(index)
        (folder / "model.data-00000-of-00001").write_bytes(shard)
        with contextlib.suppress(OrtsepError):
            assert all(isinstance(v, np.ndarray) for v in read_bundle(folder / "model").values())


def _tarball(gz: bool) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz" if gz else "w") as tar:
        for name in ("checkpoint", "model.index", "sub/model.data"):
            data = name.encode() * 50
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


@budget(150)
@given(damaged(_tarball(True)), damaged(_tarball(False), front=3000), st.booleans())
def test_fuzz_tarballs(packed: bytes, plain: bytes, again: bool) -> None:
    import gzip

    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        archive, folder = home / "weights.tar.gz", home / "in" / "out"
        archive.write_bytes(gzip.compress(plain, 1) if again else packed)
        folder.parent.mkdir()
        with contextlib.suppress(OrtsepError):
            unpack_tar_gz(archive, folder, 1 << 20)
        assert {p.name for p in home.iterdir()} == {"weights.tar.gz", "in"}
        outside = {p.name for p in folder.parent.iterdir()} - {"out"}
        assert not {n for n in outside if not n.startswith((".", "out"))}
        assert not any(p.is_symlink() for p in folder.rglob("*"))


def _checkpoint(legacy: bool) -> bytes:
    out = io.BytesIO()
    state = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.ones(2)}
    torch.save(state, out, _use_new_zipfile_serialization=not legacy)
    return out.getvalue()


@budget(150)
@given(damaged(_checkpoint(False), _checkpoint(True), front=1500), st.booleans())
def test_fuzz_checkpoints(data: bytes, demucs: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "weights.th"
        path.write_bytes(data)
        with contextlib.suppress(OrtsepError):
            (load_demucs_package if demucs else load_state)(path)
        assert [p.name for p in Path(name).iterdir()] == ["weights.th"]
