"""``ortsep.client``: a server from Python."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from serving import Serve

from ortsep.base.errors import FileMissing

pytest.importorskip("httpx")
client_module = pytest.importorskip("ortsep.client")
Client, ServerError = client_module.Client, client_module.ServerError


@pytest.fixture
def song(tmp_path: Path) -> Path:
    noise = (0.2 * np.random.default_rng(0).standard_normal((16000, 2))).astype(np.float32)
    soundfile.write(tmp_path / "song.wav", noise, 8000, subtype="FLOAT")
    return tmp_path / "song.wav"


def test_a_song_becomes_files(serve: Serve, song: Path, tmp_path: Path) -> None:
    server, told = serve(), []
    with Client(server.address) as client:
        assert "waves" in [model["name"] for model in client.models()]
        answer = client.separate(
            song,
            "waves",
            output=tmp_path / "out",
            stems=["vocals"],
            progress=lambda done, all_: told.append((done, all_)),
        )
    assert answer["stems"] == {"vocals": str(tmp_path / "out" / "vocals.wav")}
    assert {"version", "model", "backend", "wiener_filter", "processing_time", "warnings"} <= set(answer)
    y, _ = soundfile.read(tmp_path / "out" / "vocals.wav", dtype="float32")
    x, _ = soundfile.read(song, dtype="float32")
    np.testing.assert_allclose(y, 0.5 * x, atol=1e-6)
    assert list((server.data / "jobs").iterdir()) == []
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["vocals.wav"]


def test_what_goes_wrong_is_said(serve: Serve, song: Path, tmp_path: Path) -> None:
    server = serve()
    with Client(server.address) as client:
        with pytest.raises(ServerError, match="no stem 'bass'") as refused:
            client.separate(song, "waves", stems=["bass"])
        assert refused.value.code == 422
        with pytest.raises(FileMissing):
            client.separate(tmp_path / "none.wav")
        (tmp_path / "text.wav").write_text("no audio")
        with pytest.raises(ServerError, match="the song"):
            client.separate(tmp_path / "text.wav", "waves")
        long = tmp_path / "long.wav"
        soundfile.write(long, np.random.default_rng(0).uniform(-0.1, 0.1, (8000 * 1200, 2)), 8000)
        with pytest.raises(TimeoutError, match="longer"):
            client.separate(long, "hybrid", timeout=0.5)
        id_ = client.submit(song, "waves", key="once")
        assert client.submit(song, "waves", key="once") == id_
    server.stop()
    with Client(server.address) as client, pytest.raises(ServerError, match="doesn't answer"):
        client.models()
