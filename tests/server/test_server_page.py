"""The page as a person meets it, in Chromium: a song goes in, stems are heard, and what sounds is measured."""

import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from browser import chromium, complaints
from serving import Serve

TAP = """
const context = player.context, tracks = player.tracks;
const merge = new ChannelMergerNode(context, {numberOfInputs: tracks.length + 1});
tracks.forEach((track, k) => {
  const mono = new GainNode(context, {channelCount: 1, channelCountMode: "explicit"});
  track.node.connect(mono).connect(merge, 0, k);
});
const tap = context.createScriptProcessor(4096, tracks.length + 1, 1);
window.heardSamples = tracks.map(() => []);
tap.onaudioprocess = event => {
  for (let k = 0; k < tracks.length; k++) window.heardSamples[k].push(...event.inputBuffer.getChannelData(k));
};
merge.connect(tap).connect(context.destination);
window.tapped = tap;
"""


@pytest.fixture
def song(tmp_path: Path) -> Path:
    noise = (0.2 * np.random.default_rng(0).standard_normal((20 * 44100, 2))).astype(np.float32)
    soundfile.write(tmp_path / "a <b>song.wav", noise, 44100, subtype="PCM_16")
    return tmp_path / "a <b>song.wav"


def until(true: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := true():
            return value
        time.sleep(0.1)
    raise AssertionError("it did not come to pass")


def opened(window: Any, server: Any, song: Path) -> None:
    window.get(server.address)
    until(lambda: window.execute_script("return !document.getElementById('send').hidden"))
    window.execute_script("document.getElementById('model').value = 'drums_mini'")
    window.find_element("id", "file").send_keys(str(song))
    ready = "return Boolean(player) && !document.getElementById('play').disabled"
    until(lambda: window.execute_script(ready))


def heard(window: Any, seconds: float = 0.6) -> np.ndarray:
    """What each stem sounds like now: [stems, samples]."""
    window.execute_script("window.heardSamples = player.tracks.map(() => [])")
    time.sleep(seconds)
    parts = window.execute_script("return window.heardSamples")
    count = min(map(len, parts))
    return np.array([part[:count] for part in parts])


def test_what_the_microphone_hears_is_separated(serve: Serve, tmp_path: Path) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("no ffmpeg, which reads what browsers record")
    server = serve()
    fake = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")  # a beep each second
    with chromium(tmp_path / "saved", flags=fake) as window:
        window.get(server.address)
        until(lambda: window.execute_script("return !document.getElementById('send').hidden"))
        button = window.find_element("id", "record")
        button.click()
        until(lambda: button.text.startswith("Stop 0:03"))
        button.click()
        until(lambda: window.execute_script("return Boolean(player) && !document.getElementById('play').disabled"))
        assert button.text == "Record"
        assert re.match(r"recording [0-9.]+\.webm", window.find_element("id", "listen-title").text)
        assert 2.5 < window.execute_script("return player.length") < 6
        assert window.execute_script("return player.pictures.signals.mixture.peak") > 0.01
        assert not complaints(window)


def test_a_song_is_sent_heard_mixed_and_saved(serve: Serve, song: Path, tmp_path: Path) -> None:
    server = serve()
    with chromium(tmp_path / "saved") as window:
        opened(window, server, song)
        assert window.find_element("id", "listen-title").text == song.name
        window.execute_script(TAP)
        window.find_element("id", "play").click()
        until(lambda: window.execute_script("return player.position > 0.2"))
        names = window.execute_script("return player.tracks.map(track => track.name)")
        assert names == ["kick", "snare", "toms", "hihat", "cymbals"]
        sound = heard(window)
        assert (np.abs(sound).max(axis=1) > 1e-4).all()
        window.find_element("css selector", "#tracks li:nth-child(2) .mute").click()
        time.sleep(0.3)
        sound = np.abs(heard(window)).max(axis=1)
        assert sound[1] < 1e-4 < sound[0]
        window.find_element("css selector", "#tracks li:nth-child(4) .solo").click()
        time.sleep(0.3)
        sound = np.abs(heard(window)).max(axis=1)
        assert sound[3] > 1e-4 and sound[[0, 1, 2, 4]].max() < 1e-4
        before = window.execute_script("return player.position")
        window.execute_script("player.seek(1.0)")
        assert window.execute_script("return player.position") < before + 1.1
        window.find_element("id", "play").click()
        assert not window.execute_script("return player.playing")
        window.find_element("id", "render").click()
        saved = until(lambda: list((tmp_path / "saved").glob("*mix.wav")))
        hihat = window.execute_script("return player.tracks[3].url")
        assert complaints(window) == []
    mix, rate = soundfile.read(saved[0])
    import httpx

    (tmp_path / "hihat.flac").write_bytes(httpx.get(server.address + hihat).content)
    alone, _ = soundfile.read(tmp_path / "hihat.flac")
    assert rate == 44100 and np.abs(mix - alone).max() < 1e-4  # only the hi-hat was heard


def test_stems_start_together_to_the_sample(serve: Serve, song: Path, tmp_path: Path) -> None:
    server = serve()
    with chromium(tmp_path) as window:
        opened(window, server, song)
        clicks = "for (const t of player.tracks) { for (const c of [0, 1]) t.buffer.getChannelData(c).fill(0);"
        window.execute_script(
            clicks + " t.buffer.getChannelData(0)[44100] = t.buffer.getChannelData(1)[44100] = 0.5; }"
        )
        window.execute_script(TAP)
        for start in (0.0, 0.7, 0.95):
            window.execute_script("window.heardSamples = player.tracks.map(() => []); player.seek(arguments[0])", start)
            window.execute_script("player.play()")
            until(lambda: window.execute_script("return player.position > 1.3"))
            window.execute_script("player.pause()")
            parts = window.execute_script("return window.heardSamples")
            assert len({int(np.argmax(np.abs(part))) for part in parts}) == 1
            assert all(np.abs(part).max() > 0.1 for part in parts)


def test_a_reload_a_cancel_and_a_failure(serve: Serve, song: Path, tmp_path: Path) -> None:
    server = serve()
    with chromium(tmp_path) as window:
        opened(window, server, song)
        window.refresh()
        until(lambda: window.execute_script("return document.querySelectorAll('#jobs li').length === 1"))
        window.find_element("css selector", "#jobs button.main").click()
        until(lambda: window.execute_script("return Boolean(player) && !document.getElementById('play').disabled"))
        broken = tmp_path / "broken.wav"
        broken.write_bytes(b"RIFF no audio")
        window.find_element("id", "file").send_keys(str(broken))
        failed = "return document.querySelector('#jobs .state.error')?.textContent"
        assert "song" in until(lambda: window.execute_script(failed))
        long = tmp_path / "long.wav"
        soundfile.write(long, np.random.default_rng(1).uniform(-0.1, 0.1, (44100 * 400, 2)), 44100)
        window.find_element("id", "file").send_keys(str(long))
        until(lambda: window.execute_script("return document.querySelectorAll('#jobs progress').length === 1"))
        state = "return document.querySelector('#jobs li .state').textContent"
        until(lambda: "left" in window.execute_script(state))
        window.find_element("css selector", "#jobs li .buttons button").click()
        until(lambda: window.execute_script("return document.querySelectorAll('#jobs li').length === 2"))
        until(lambda: len(list((server.data / "jobs").iterdir())) == 2)


def test_the_page_fits_a_phone_and_the_token_is_asked_for(serve: Serve, song: Path, tmp_path: Path) -> None:
    server = serve("--token", "a-long-secret-token")
    with chromium(tmp_path, width=390, height=844) as window:
        window.get(server.address)
        until(lambda: window.execute_script("return !document.getElementById('enter').hidden"))
        window.find_element("id", "token").send_keys("wrong one")
        window.find_element("css selector", "#enter button").click()
        until(lambda: "not the token" in window.find_element("id", "refused").text)
        window.find_element("id", "token").clear()
        window.find_element("id", "token").send_keys("a-long-secret-token")
        window.find_element("css selector", "#enter button").click()
        until(lambda: window.execute_script("return !document.getElementById('send').hidden"))
        window.find_element("id", "file").send_keys(str(song))
        until(lambda: window.execute_script("return Boolean(player) && !document.getElementById('play').disabled"))
        width = window.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
        assert width[0] <= width[1]
        assert "secret" not in window.current_url
