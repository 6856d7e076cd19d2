"""The report's players in Chromium: what sounds is recorded, and whether it sounds together is measured there."""

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from browser import chromium, complaints
from places import GRAPHS

from ortsep.options import Options
from ortsep.report.write import draw_report
from ortsep.separator import Separator
from ortsep.songs import Files, separate_file

pytest.importorskip("matplotlib")
RATE = 44100
TAP = """
const tracks = window.player.engine.tracks, context = window.player.context || new AudioContext({sampleRate: 44100});
const nodes = tracks.map(track => track.node || context.createMediaElementSource(track.audio));
const merge = new ChannelMergerNode(context, {numberOfInputs: nodes.length});
nodes.forEach((node, k) => {
  const mono = new GainNode(context, {channelCount: 1, channelCountMode: "explicit"});
  node.connect(mono).connect(merge, 0, k);
});
const tap = context.createScriptProcessor(4096, nodes.length, 1);
window.heard = nodes.map(() => []);
tap.onaudioprocess = event => {
  for (let k = 0; k < nodes.length; k++) window.heard[k].push(...event.inputBuffer.getChannelData(k));
};
merge.connect(tap).connect(context.destination);
window.tapped = [tap, context];
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of two stems and the song; then all three files get the same noise, so that a lag can be measured."""
    folder = tmp_path_factory.mktemp("page")
    rough = np.random.default_rng(0).standard_normal(40 * RATE)
    noise = np.repeat(np.convolve(rough, np.full(16, 0.02), "same")[:, None], 2, axis=1).astype(np.float32)
    soundfile.write(folder / "song.wav", noise, RATE, subtype="PCM_16")
    separator, files = Separator(GRAPHS / "waves"), Files(folder / "stems", template="{stem}.{ext}", subtype="16")
    report = separate_file(separator, folder / "song.wav", files)
    draw_report(separator, report, folder / "report.html", files, Options())
    for where in report.stems.values():
        soundfile.write(where or "", noise, RATE, subtype="PCM_16")
    return folder


@pytest.fixture
def address(made: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(made)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/report.html"
    server.shutdown()
    server.server_close()


def until(true: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := true():
            return value
        time.sleep(0.05)
    raise AssertionError("it did not come to pass")


def play(window: Any) -> None:
    window.find_element("id", "play").click()
    until(lambda: window.execute_script("return player.playing && !player.busy && (player.engine.together ?? true)"))


def recorded(window: Any, seconds: float = 0.7) -> np.ndarray:
    """What sounds of each track now: [tracks, samples], the mixture first."""
    window.execute_script("window.heard = window.heard.map(() => [])")
    time.sleep(seconds)
    parts = window.execute_script("return window.heard")
    count = min(map(len, parts))
    return np.array([part[:count] for part in parts])


def place(sound: np.ndarray, noise: np.ndarray) -> int | None:
    """Where in ``noise`` the piece ``sound`` is, by the peak of their cross-correlation; None where it is cut."""
    size = 1 << (len(noise) + len(sound)).bit_length()
    found = np.fft.irfft(np.fft.rfft(noise, size) * np.conj(np.fft.rfft(sound, size)))
    at = int(np.argmax(found))
    there = noise[at : at + len(sound)]
    return at if found.max() > 0.5 * np.sqrt(np.sum(sound[: len(there)] ** 2) * np.sum(there**2)) else None


def test_from_a_server_all_stems_sound_together_to_the_sample(address: str, tmp_path: Path) -> None:
    with chromium(tmp_path) as window:
        window.get(address)
        play(window)
        assert window.execute_script("return player.engine.constructor.name") == "Buffers"
        window.execute_script(TAP)
        for at in (0.5, 3.0, 7.25):
            window.execute_script(f"document.getElementById('position').value = {at}")
            window.execute_script("document.getElementById('position').dispatchEvent(new Event('change'))")
            until(lambda: window.execute_script("return player.playing && !player.busy"))
            time.sleep(0.2)
            mixture, drums, vocals = recorded(window)
            assert not mixture.any() and drums.any()
            np.testing.assert_array_equal(drums, vocals)
        assert [text for text in complaints(window) if "favicon" not in text] == []


def test_the_mixture_sounds_in_place_of_the_stems_and_stems_alone(address: str, tmp_path: Path) -> None:
    with chromium(tmp_path) as window:
        window.get(address)
        play(window)
        window.execute_script(TAP)

        def sounding() -> list[bool]:
            time.sleep(0.2)
            return [bool(part.any()) for part in recorded(window, 0.4)]

        assert sounding() == [False, True, True]
        solo = window.find_elements("css selector", "button.solo")
        solo[0].click()
        assert sounding() == [True, False, False]
        solo[0].click()
        solo[2].click()
        assert sounding() == [False, False, True]
        solo[2].click()
        window.find_elements("css selector", "button.mute")[0].click()
        assert sounding() == [False, False, True]
        window.find_element("id", "play").click()
        assert sounding() == [False, False, False]


def test_from_a_file_all_stems_sound_together_within_5_ms(made: Path, tmp_path: Path) -> None:
    """Browsers keep a page that is a file from the bytes beside it. The flag is for the measurement alone, which taps
    the elements' sound; then the page could read the bytes, so that is taken from it."""
    lags = []
    noise = soundfile.read(made / "song.wav")[0][:, 0]
    refuse = "window.fetch = () => Promise.reject(new TypeError('Failed to fetch'))"
    with chromium(tmp_path, flags=("--allow-file-access-from-files",)) as window:
        window.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": refuse})
        for _ in range(4):
            window.get((made / "report.html").as_uri())
            play(window)
            assert window.execute_script("return player.engine.constructor.name") == "Elements"
            window.find_element("id", "play").click()
            window.execute_script(TAP)
            play(window)
            for at in (None, 6.0):
                if at is not None:
                    window.execute_script(f"document.getElementById('position').value = {at}")
                    window.execute_script("document.getElementById('position').dispatchEvent(new Event('change'))")
                    until(lambda: window.execute_script("return !player.busy && player.engine.together"))
                _, drums, vocals = recorded(window)
                for piece in range(0, len(drums) - 2048, 4096):
                    one, two = (place(x[piece : piece + 2048], noise) for x in (drums, vocals))
                    if one is not None and two is not None:  # a busy machine drops pieces of what is recorded
                        lags.append(1000 * (one - two) / RATE)
    assert len(lags) >= 16 and max(map(abs, lags)) < 5.0, lags


def test_a_page_that_is_a_file_plays_in_a_plain_browser(made: Path, tmp_path: Path) -> None:
    with chromium(tmp_path) as window:
        window.get((made / "report.html").as_uri())
        play(window)
        assert window.execute_script("return player.engine.constructor.name") == "Elements"
        until(lambda: window.execute_script("return player.position > 1.0"))
        leads = window.execute_script("return player.engine.tracks.map(track => player.engine.lead(track))")
        assert len(leads) == 3 and max(map(abs, leads)) < 0.005
        heard = window.execute_script(
            "return player.engine.tracks.map(track => !track.audio.muted && track.audio.volume > 0.001)"
        )
        assert heard == [False, True, True]
