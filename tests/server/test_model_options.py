"""Options of the separation as a server takes them: told for each model, checked, and done as the command line does."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from places import GRAPHS
from serving import ORTSEP, Serve

pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")
from ortsep.client import Client, ServerError  # noqa: E402
from ortsep.options import Options  # noqa: E402
from ortsep.server.request import SeparationRequest  # noqa: E402

ASKED = {"aggression": 20, "window": 96, "tta": True, "post_process": 0.1, "high_end": True}
TYPED = ["--aggression", "20", "--window-size", "96", "--tta", "--post-process", "0.1", "--high-end"]


@pytest.fixture
def song(tmp_path: Path) -> Path:
    samples = (0.2 * np.random.default_rng(1).standard_normal((9000, 2))).astype(np.float32)
    soundfile.write(tmp_path / "song.wav", samples, 8000, subtype="FLOAT")
    return tmp_path / "song.wav"


def test_every_option_of_a_separation_is_one_of_a_request() -> None:
    assert set(vars(Options())) <= set(SeparationRequest.model_fields)
    default = SeparationRequest().options()
    assert default == Options()
    given = {"tta": True, "aggression": -50, "window": 1024, "post_process": 0.999, "high_end": True, "rest": True}
    assert SeparationRequest(**given).options() == Options(**given)  # type: ignore[arg-type]


def test_they_are_told_and_done_as_on_the_command_line(serve: Serve, song: Path, tmp_path: Path) -> None:
    command = [*ORTSEP, "run", str(GRAPHS / "bands"), str(song), "-o", str(tmp_path / "typed"), "-q", *TYPED]
    subprocess.run(command, check=True)
    with Client(serve().address) as client:
        options = {model["name"]: model["options"] for model in client.models()}
        assert {"tta", "aggression", "post_process", "window", "high_end"} == set(options["bands"])
        assert {"tta", "denoise"} <= set(options["waves"]) and "aggression" not in options["waves"]
        asked = client.separate(song, "bands", output=tmp_path / "asked", **ASKED)
        plain = client.separate(song, "bands", output=tmp_path / "plain")
        for wrong, message in {
            "aggression": "aggression can't be '200'",
            "window": "takes windows of a multiple of 2 frames",
            "denoise": "denoise is an option of models of chunks and bands is none",
        }.items():
            values = {"aggression": 200, "window": 33, "denoise": True}
            with pytest.raises(ServerError, match=message) as refused:
                client.separate(song, "bands", **{wrong: values[wrong]})
            assert refused.value.code == 422
    for stem in ("drums", "vocals"):
        typed, _ = soundfile.read(tmp_path / "typed" / "bands" / "song" / f"{stem}.wav", dtype="float32")
        theirs, _ = soundfile.read(asked["stems"][stem], dtype="float32")
        np.testing.assert_array_equal(theirs, typed)
        assert np.abs(theirs - soundfile.read(plain["stems"][stem], dtype="float32")[0]).max() > 1e-3


def test_the_page_shows_and_sends_those_of_the_chosen_model(serve: Serve, song: Path, tmp_path: Path) -> None:
    from browser import chromium, complaints
    from test_server_page import until

    server = serve()
    choose = "const m = document.getElementById('model'); m.value = arguments[0]; m.dispatchEvent(new Event('change'));"
    shown = "return [...document.querySelectorAll('[data-option]')].filter(f => !f.closest('label').hidden)"
    with chromium(tmp_path) as window:
        window.get(server.address)
        until(lambda: window.execute_script("return !document.getElementById('send').hidden"))
        window.execute_script(choose, "wiener")
        assert not window.find_element("id", "more").is_displayed()
        window.execute_script(choose, "bands")
        window.find_element("css selector", "#more summary").click()
        names = window.execute_script(shown + ".map(f => f.dataset.option)")
        assert names == ["tta", "high_end", "aggression", "post_process", "window"]
        window.find_element("css selector", "[data-option=tta]").click()
        window.find_element("css selector", "[data-option=aggression]").send_keys("20")
        window.find_element("id", "file").send_keys(str(song))
        jobs = server.address + "/v1/separations"
        (job,) = until(lambda: httpx.get(jobs).json()["separations"])
        assert job["request"]["tta"] is True and job["request"]["aggression"] == 20
        assert "window" not in job["request"] and "denoise" not in job["request"]
        assert complaints(window) == []
