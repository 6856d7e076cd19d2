"""Loading Spleeter's checkpoints: folders, archives, random weights, and everything that must be refused."""

import gzip
import io
import tarfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from bundle_writer import field, write_bundle

from ortsep.base.errors import FileMissing, MissingDependency, UsageError, WeightsError
from ortsep.export.exporter import export_model
from ortsep.export.families.spleeter import tensorflow_route as spleeter_tf
from ortsep.export.families.spleeter.weights import check, expected_shapes, random_variables
from ortsep.export.family import Choice, load_original
from ortsep.export.weights.archive import RECORD, unpack_tar_gz
from ortsep.models.catalogue import find_card

TWO = find_card("spleeter:2stems")


@cache
def random_two() -> dict[str, np.ndarray]:
    return random_variables(2, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole checkpoint of two stems, with what macOS leaves in archives."""
    prefix = write_bundle(tmp_path_factory.mktemp("spleeter") / "2stems", random_two())
    prefix.with_name("._checkpoint").write_bytes(b"\0\5\x16\7")
    return prefix.parent


def archive(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def test_names_and_sizes_are_those_of_the_real_checkpoint() -> None:
    shapes = expected_shapes(2)
    assert len(shapes) == 148  # and global_step: 149 entries in the official 2stems/model.index
    assert sum(4 * int(np.prod(shape)) for shape in shapes.values()) + 8 == 78_614_080  # its data file
    assert shapes["conv2d/kernel"] == (5, 5, 2, 16)
    assert shapes["conv2d_13/kernel"] == (4, 4, 1, 2)
    assert shapes["conv2d_transpose_6/kernel"] == (5, 5, 256, 512)
    assert shapes["batch_normalization_23/gamma"] == (1,)


@pytest.mark.parametrize("name", ["2stems", "4stems", "5stems", "2stems-16kHz", "4stems-16kHz", "5stems-16kHz"])
def test_cards_and_specs(name: str) -> None:
    card = find_card(f"spleeter-{name}")
    assert card is find_card(f"spleeter:{name}")
    original = load_original(card, Choice(seed=0))
    spec = original.spec
    assert spec.stems == card.stems
    assert spec.parameters == card.parameters
    assert spec.stft is not None
    assert spec.stft.bins == (1536 if name.endswith("16kHz") else 1024)
    assert spec.bandwidth == pytest.approx(spec.stft.bins * 44100 / 4096)
    assert spec.weights.random
    assert card.sources[0].url.endswith(f"/{name[0]}stems.tar.gz")
    (file,) = [file for file, _ in original.graphs()] if name == "2stems" else ["spleeter-2stems.onnx"]
    assert file == "spleeter-2stems.onnx"


def test_a_folder_an_index_and_an_archive_are_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORTSEP_CACHE", str(tmp_path / "cache"))
    packed = tmp_path / "2stems.tar.gz"
    with tarfile.open(packed, "w:gz", compresslevel=1) as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, f"./{path.name}")
    for path in (folder, folder / "model.index", packed, packed):
        original = load_original(TWO, Choice(path=path))
        assert original.variables.keys() == random_two().keys()  # type: ignore[attr-defined]
        assert all(np.array_equal(original.variables[n], v) for n, v in random_two().items())  # type: ignore[attr-defined]
        assert original.spec.weights.source == path.name
        assert len(original.spec.weights.sha256) == 64


@pytest.mark.parametrize(
    ("name", "reach"), [("2stems", "11 kHz, by its 1024 bins"), ("2stems-16kHz", "17 kHz, by its 1536")]
)
def test_how_many_bins_a_checkpoint_is_for_is_assumed_aloud(folder: Path, name: str, reach: str) -> None:
    """Nothing in it tells 2stems from 2stems-16kHz, whose shapes are the same."""
    told: list[str] = []
    load_original(find_card(f"spleeter:{name}"), Choice(path=folder, say=told.append))
    assert sum(f"separates up to {reach}" in line and "--config FILE says it" in line for line in told) == 1


def test_the_graph_has_the_tensors_of_the_design() -> None:
    ((_, model),) = load_original(TWO, Choice(seed=1)).graphs()
    (given,), (made,) = model.graph.input, model.graph.output
    dims = [d.dim_param or d.dim_value for d in made.type.tensor_type.shape.dim]
    assert (given.name, made.name) == ("magnitude", "stem_magnitudes")
    assert dims == ["B", 2, 2, 1024, 512]
    assert {node.domain for node in model.graph.node} == {""}


def test_exports_are_deterministic() -> None:
    first, second = (next(load_original(TWO, Choice(seed=4)).graphs())[1] for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("conv2d_3/bias"), r"missing conv2d_3/bias"),
        (lambda v: v.update({"extra/kernel": np.zeros(3, np.float32)}), r"unexpected extra/kernel"),
        (lambda v: v.update({"conv2d/bias": np.zeros(15, np.float32)}), r"wrong shape: conv2d/bias float32\[15\]"),
        (lambda v: v.update({"conv2d/bias": np.zeros(16, np.float64)}), r"conv2d/bias float64\[16\]"),
        (lambda v: v.update({"conv2d/bias": np.full(16, np.nan, np.float32)}), r"can't be in conv2d/bias"),
        (lambda v: v["batch_normalization/moving_variance"].__imul__(-1), "negative variance"),
    ],
)
def test_a_checkpoint_that_differs_is_refused(change: object, message: str) -> None:
    variables = {name: value.copy() for name, value in random_two().items()}
    assert callable(change)
    change(variables)
    with pytest.raises(WeightsError, match=message):
        check(variables, 2, "this")


def test_what_an_optimiser_leaves_is_accepted() -> None:
    extra = {"conv2d/kernel/Adam": np.zeros((5, 5, 2, 16), np.float32), "beta1_power": np.float32(0.9)}
    check({**random_two(), **extra}, 2, "this")


def test_a_checkpoint_of_another_model_is_refused(folder: Path) -> None:
    with pytest.raises(WeightsError, match="holds 2 networks and the model has 4 stems"):
        load_original(find_card("spleeter:4stems"), Choice(path=folder))
    with pytest.raises(WeightsError, match="holds 2 networks and the model has 1 stems"):
        check(random_two(), 1, "this")


@pytest.mark.parametrize("operators", [(b"Elu",), (b"LeakyRelu", b"Softmax")])
def test_other_activations_in_the_meta_are_refused(folder: Path, tmp_path: Path, operators: tuple[bytes, ...]) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    nodes = b"".join(field(1, field(2, kind)) for kind in operators)
    (tmp_path / "model.meta").write_bytes(field(2, nodes))
    with pytest.raises(WeightsError, match=r"as its \.meta says"):
        load_original(TWO, Choice(path=tmp_path))


@pytest.mark.parametrize(
    ("stems", "right"),
    [((b"vocals", b"accompaniment"), True), ((b"accompaniment", b"vocals"), False), ((b"vocals", b"drums"), False)],
)
def test_another_order_of_stems_in_the_meta_is_refused(
    folder: Path, tmp_path: Path, stems: tuple[bytes, ...], right: bool
) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    names = [b"mix_spectrogram", b"gradients/drums_spectrogram/mul", *(stem + b"_spectrogram/mul" for stem in stems)]
    nodes = b"".join(field(1, field(1, name) + field(2, b"Mul")) for name in names)
    (tmp_path / "model.meta").write_bytes(field(2, nodes))
    if right:
        assert load_original(TWO, Choice(path=tmp_path)).spec.stems == TWO.stems
        return
    with pytest.raises(WeightsError, match=f"networks of {stems[0].decode()}, {stems[1].decode()} in this order"):
        load_original(TWO, Choice(path=tmp_path))


def test_routes() -> None:
    if not spleeter_tf.available():
        with pytest.raises(MissingDependency, match="needs TensorFlow"):
            load_original(TWO, Choice(seed=0, route="tensorflow"))
    with pytest.raises(UsageError, match="only by way of direct, tensorflow; leave --route out"):
        load_original(TWO, Choice(seed=0, route="magic"))
    with pytest.raises(UsageError, match="in one way only; leave --route out"):
        load_original(find_card("larsnet"), Choice(seed=0, route="tensorflow"))


def test_a_corrupted_shard_is_not_exported(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    shard = tmp_path / "model.data-00000-of-00001"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(WeightsError, match="is damaged: the checksum of"):
        export_model("spleeter:2stems", Choice(path=tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_part_of_the_stems_is_refused() -> None:
    with pytest.raises(UsageError, match="ratio over all stems"):
        load_original(TWO, Choice(seed=0, stems=("vocals",)))
    assert load_original(TWO, Choice(seed=0, stems=TWO.stems)).spec.stems == TWO.stems


def test_places_without_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(FileMissing, match="there is nothing at"):
        load_original(TWO, Choice(path=tmp_path / "nowhere"))
    with pytest.raises(FileMissing, match=r"no checkpoint \(model.index\)"):
        load_original(TWO, Choice(path=tmp_path))
    for name in ("a.index", "b.index"):
        tmp_path.joinpath(name).write_bytes(b"")
    with pytest.raises(WeightsError, match="holds 2 checkpoints"):
        load_original(TWO, Choice(path=tmp_path))
    tmp_path.joinpath("checkpoint").write_text('model_checkpoint_path: "../../../a"\n')
    with pytest.raises(WeightsError, match=r"a\.index is not a sound"):
        load_original(TWO, Choice(path=tmp_path))


def link(name: str, kind: bytes, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    "member",
    [
        tarfile.TarInfo("../outside"),
        tarfile.TarInfo("/absolute"),
        tarfile.TarInfo("a/../../outside"),
        tarfile.TarInfo("a\\..\\outside"),
        tarfile.TarInfo("c:outside"),
        link("model.index", tarfile.SYMTYPE, "/etc/passwd"),
        link("model.index", tarfile.LNKTYPE, "../outside"),
        link("model.index", tarfile.CHRTYPE, ""),
        link("model.index", tarfile.FIFOTYPE, ""),
    ],
    ids=lambda m: f"{m.name} {m.type!r}",
)
def test_an_unsafe_archive_is_refused_whole(tmp_path: Path, member: tarfile.TarInfo) -> None:
    packed = archive(tmp_path / "x.tar.gz", [(tarfile.TarInfo("fine"), b"1"), (member, b"")])
    with pytest.raises(WeightsError, match="not safe to unpack"):
        unpack_tar_gz(packed, tmp_path / "in" / "x", 1 << 20)
    assert [p.name for p in tmp_path.rglob("*")] in (["x.tar.gz", "in"], ["in", "x.tar.gz"])


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    packed = archive(tmp_path / "x.tar.gz", [(tarfile.TarInfo("big"), bytes(3 << 20))])
    with pytest.raises(WeightsError, match="more than 2 MB"):
        unpack_tar_gz(packed, tmp_path / "x", 2 << 20)
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 1 << 32
    packed.write_bytes(gzip.compress(header.tobuf(tarfile.USTAR_FORMAT) + bytes(4 << 20)))
    with pytest.raises(WeightsError):
        unpack_tar_gz(packed, tmp_path / "x", 2 << 20)
    many = [(tarfile.TarInfo(f"{k}"), b"") for k in range(300)]
    with pytest.raises(WeightsError, match="more than 256 files"):
        unpack_tar_gz(archive(packed, many), tmp_path / "x", 2 << 20)
    assert not (tmp_path / "x").exists()


def test_what_was_unpacked_is_checked_again(tmp_path: Path) -> None:
    """Issue 20: changed weights in the cache were taken. Bytes of the archive are what is right."""
    content = np.random.default_rng(1).bytes(5000)
    packed = archive(tmp_path / "x.tar.gz", [(tarfile.TarInfo("a/w"), content), (tarfile.TarInfo("b"), b"1")])
    folder = tmp_path / "x"
    unpack_tar_gz(packed, folder, 1 << 20)
    inode = (folder / "b").stat().st_ino

    def changed() -> None:
        data = bytearray(content)
        data[2500] ^= 1
        (folder / "a" / "w").write_bytes(data)

    (tmp_path / "elsewhere").write_bytes(content)

    def linked() -> None:
        (folder / "a" / "w").unlink()
        (folder / "a" / "w").symlink_to(tmp_path / "elsewhere")

    unpack_tar_gz(packed, folder, 1 << 20)
    assert (folder / "b").stat().st_ino == inode  # nothing was done
    for spoil in (
        changed,
        linked,
        lambda: (folder / "b").unlink(),
        lambda: (folder / "model.index").write_bytes(b"another checkpoint"),
        lambda: (folder / RECORD).unlink(),
        lambda: (folder / RECORD).write_text("[" * 100_000),
    ):
        spoil()
        unpack_tar_gz(packed, folder, 1 << 20)
        assert {p.name for p in folder.rglob("*")} == {"a", "w", "b", RECORD}
        assert (folder / "a" / "w").read_bytes() == content and not (folder / "a" / "w").is_symlink()
    assert (tmp_path / "elsewhere").read_bytes() == content


def test_damaged_archives(tmp_path: Path) -> None:
    packed = archive(tmp_path / "x.tar.gz", [(tarfile.TarInfo("a"), np.random.default_rng(0).bytes(5000))])
    whole = packed.read_bytes()
    for bad in (b"", b"not an archive", whole[:40], whole[:3000], whole[:2000] + b"\xff" * 50 + whole[2050:]):
        packed.write_bytes(bad)
        with pytest.raises(WeightsError, match=r"x\.tar\.gz"):
            unpack_tar_gz(packed, tmp_path / "x", 1 << 20)
    with pytest.raises(FileMissing):
        unpack_tar_gz(tmp_path / "none.tar.gz", tmp_path / "x", 1 << 20)
    assert not (tmp_path / "x").exists()
