"""Networks of a file a stem, by the path of a file or of their folder, without a name of the catalogue."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

from ortsep.base.errors import UsageError, WeightsError  # noqa: E402
from ortsep.cli import app  # noqa: E402
from ortsep.export.exporter import choose_weights, export_model  # noqa: E402
from ortsep.export.families.larsnet.graph import UNet  # noqa: E402
from ortsep.export.families.open_unmix.graph import Shape, random_network  # noqa: E402
from ortsep.export.family import is_checkpoint  # noqa: E402
from ortsep.models.catalogue import find_card  # noqa: E402
from ortsep.models.onnx_file import read_metadata  # noqa: E402
from ortsep.models.spec import METADATA_KEY, from_json  # noqa: E402
from ortsep.separator import Separator  # noqa: E402

pytestmark = pytest.mark.usefixtures("own_home", "one_thread")
UMXSE = Shape(bins=513, heard=513, channels=1, hidden=256)


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORTSEP_CACHE", str(tmp_path / "cache"))


def drums(home: Path, stems: tuple[str, ...] = ("kick", "snare")) -> Path:
    """A folder of LarsNet of its author's layout, with a config.yaml that names the stems there are."""
    for seed, stem in enumerate(stems):
        torch.manual_seed(seed)
        (home / stem).mkdir(parents=True)
        torch.save({"model_state_dict": UNet(64).state_dict()}, home / stem / f"pretrained_{stem}_unet.pth")
    lines = [f"  {stem}: {stem}/pretrained_{stem}_unet.pth" for stem in stems]
    sizes = [f"{stem}: {{F: 64, T: 64}}" for stem in stems]
    (home / "config.yaml").write_text("\n".join(["global: {sr: 44100}", "inference_models:", *lines, *sizes]))
    return home


def targets(home: Path, shape: Shape, **settings: int) -> Path:
    """A folder of Open-Unmix as its training leaves it."""
    home.mkdir(parents=True)
    for seed, target in enumerate(("vocals", "piano")):
        torch.save(random_network(shape, seed).state_dict(), home / f"{target}.pth")
    if settings:
        (home / "separator.json").write_text(json.dumps(settings))
    return home


def test_a_folder_of_larsnet(tmp_path: Path) -> None:
    told: list[str] = []
    home = drums(tmp_path / "my drums")
    made = export_model(str(home), choose_weights(None), tmp_path / "out", say=told.append)
    assert made.spec.name == "my drums" and made.spec.family == "larsnet" and made.spec.stems == ("kick", "snare")
    assert made.spec.content == "drums" and made.spec.stft is not None and made.spec.stft.bins == 64
    assert any("LarsNet" in line for line in told)
    stems = Separator(tmp_path / "out").separate(np.random.default_rng(0).standard_normal((2, 30_000)) * 0.1)
    assert set(stems) == {"kick", "snare"}
    with pytest.raises(UsageError, match="--weights"):
        export_model(str(home), choose_weights("x.pth"), tmp_path / "again")


def test_one_stem_of_larsnet(tmp_path: Path) -> None:
    home = drums(tmp_path / "d")
    file = home / "snare" / "pretrained_snare_unet.pth"
    spec = export_model(str(file), choose_weights(None), tmp_path / "a").spec
    assert spec.stems == ("snare",) and spec.name == "pretrained_snare_unet"
    other = file.rename(tmp_path / "best.pth")
    with pytest.raises(UsageError, match=r"one stem of LarsNet; name it with --stems"):
        export_model(str(other), choose_weights(None), tmp_path / "b")
    spec = export_model(str(other), choose_weights(None, home / "config.yaml", ("snare",)), tmp_path / "b").spec
    assert spec.stems == ("snare",) and spec.blocks is not None and spec.blocks.frames == 64


def test_a_folder_of_open_unmix_and_its_settings(tmp_path: Path) -> None:
    settings = {"nfft": 128, "nhop": 32, "sample_rate": 22050, "nb_channels": 1}
    home = targets(tmp_path / "umx own", Shape(bins=65, heard=40, channels=1, hidden=8), **settings)
    told: list[str] = []
    spec = export_model(str(home), choose_weights(None), tmp_path / "out", say=told.append).spec
    assert spec.name == "umx own" and spec.stems == ("vocals", "piano") and spec.sample_rate == 22050
    assert spec.stft is not None and spec.stft.hop == 32
    assert not any("assumed" in line for line in told)
    assert any("unknown: they are your own" in line for line in told) and spec.weights.licence == ""


def test_what_no_file_says_is_assumed_aloud(tmp_path: Path) -> None:
    """A network of the sizes of umxse is as that is, and not 44100 Hz."""
    home = targets(tmp_path / "speech", UMXSE)
    told: list[str] = []
    spec = export_model(str(home / "piano.pth"), choose_weights(None), tmp_path / "out", say=told.append).spec
    assert (spec.name, spec.stems, spec.sample_rate) == ("piano", ("piano",), 16000)
    assert spec.stft is not None and (spec.stft.n_fft, spec.stft.hop) == (1024, 512)
    assert any("16000 Hz and a hop of 512 are assumed" in line for line in told)


def test_what_was_exported_from_a_folder_is_validated(tmp_path: Path) -> None:
    home = targets(tmp_path / "umx", Shape(65, 40, 1, 8), nfft=128, nhop=32, sample_rate=22050)
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 22050), 22050)
    out = str(tmp_path / "out")
    exported = CliRunner().invoke(app, ["export", f"{home}/", "--output", out])
    assert exported.exit_code == 0, exported.output
    done = CliRunner().invoke(app, ["validate", out, "--song", str(tmp_path / "a.wav"), "--json"])
    assert done.exit_code == 0 and len(json.loads(done.stdout)["figures"]) >= 3, done.output


def test_folders_that_are_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(WeightsError, match="holds no checkpoint"):
        export_model(str(tmp_path / "none"), choose_weights(None), tmp_path / "out")
    (tmp_path / "two").mkdir()
    for name in ("a", "b"):
        torch.save(
            {"first_conv.0.weight": torch.ones(2), "encoding_blocks.0.tfc.x": torch.ones(2)},
            tmp_path / "two" / f"{name}.ckpt",
        )
    with pytest.raises(UsageError, match=r"holds 2 checkpoints \(a.ckpt, b.ckpt\); name the one"):
        export_model(str(tmp_path / "two"), choose_weights(None), tmp_path / "out")
    (tmp_path / "umxhq").mkdir()
    monkeypatch.chdir(tmp_path)
    assert not is_checkpoint("umxhq"), "a name of the catalogue is that, whatever lies here"
    assert is_checkpoint("./umxhq") and is_checkpoint("none") and not is_checkpoint("nothing")


@pytest.mark.parametrize("name", [None, "umxhq"])
def test_own_weights_have_no_licence_of_the_official_ones(tmp_path: Path, name: str | None) -> None:
    """Neither when they are exported, by a card's name or without one, nor when what came of them is optimised."""
    home = targets(tmp_path / "mine", Shape(65, 40, 1, 8), nfft=128, nhop=32, sample_rate=22050)
    out, smaller = str(tmp_path / "out"), str(tmp_path / "smaller.onnx")
    words = ["export", name, "--weights", str(home)] if name else ["export", f"{home}/"]
    exported = CliRunner().invoke(app, [*words, "--output", out])
    assert exported.exit_code == 0, exported.output
    assert "licence of the weights: unknown: they are your own, not the official ones" in exported.output
    optimised = CliRunner().invoke(
        app, ["optimize", f"{out}/vocals.onnx", "-o", smaller, "--shape", "magnitude=1,1,65,40"]
    )
    assert optimised.exit_code == 0, optimised.output
    official = find_card("umxhq").licence
    assert official and f"weights: {official}" not in exported.output and official not in optimised.output
    assert from_json(read_metadata(Path(smaller))[METADATA_KEY]).weights.licence == ""
