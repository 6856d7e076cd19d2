"""The code of docs/embedding.md, taken from the page and run: JavaScript in node and Chromium, C++ by a compiler.

ONNX Runtime for other languages is no package of Python's: node gets its masks from here, and the whole C++ program is
built where ``ONNXRUNTIME_HEADERS`` names the folder with onnxruntime_cxx_api.h (the library is that of Python's wheel).
"""

import base64
import json
import os
import re
import shutil
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from browser import chromium
from places import ROOT

from ortsep import Separator
from ortsep.base.decibels import snr
from ortsep.engine.stft import istft, stft
from ortsep.models.catalogue import BUNDLED
from ortsep.models.spec import STFT

MODEL = BUNDLED / "drums_mini" / "drums_mini.onnx"
MODULES = Path(os.environ.get("ORTSEP_NODE_MODULES", ROOT / "node_modules"))
"""Where ``npm install --prefix FOLDER onnxruntime-web`` put it."""
HOW = STFT(2048, 512, 1025, 1024, 1024)
Floats = npt.NDArray[np.float32]


def blocks(kind: str) -> list[str]:
    text = (ROOT / "docs" / "embedding.md").read_text(encoding="utf-8")
    return re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module")
def mixture() -> Floats:
    """[2, N] at 44.1 kHz: noise that no hop divides, with a channel that the other is not."""
    return np.random.default_rng(0).uniform(-0.5, 0.5, (2, 20_001)).astype(np.float32) * np.array([[1.0], [0.3]], "f4")


@pytest.fixture(scope="module")
def stems(mixture: Floats) -> Floats:
    """[S, 2, N] as ortsep separates them."""
    separated = Separator("drums_mini").separate(mixture.T, 44100)
    return np.stack([stem.T for stem in separated.values()])


def run(*command: str, cwd: Path, **env: str) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env={**os.environ, **env})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(shutil.which("node") is None, reason="no node")
def test_the_javascript_separates_as_ortsep_does(tmp_path: Path, mixture: Floats, stems: Floats) -> None:
    """A session that gives the masks which ONNX Runtime makes of the magnitudes, and keeps those it was given."""
    transform, separate = blocks("js")
    assert len([line for line in transform.splitlines() if line.strip()]) <= 60
    magnitude = np.abs(stft(HOW, mixture)).astype(np.float32)[None]
    masks = onnxruntime.InferenceSession(MODEL).run(["masks"], {"magnitude": magnitude})[0]
    (tmp_path / "stft.mjs").write_text(transform)
    (tmp_path / "separate.mjs").write_text(separate)
    (tmp_path / "main.mjs").write_text(
        """import { readFileSync, writeFileSync } from "fs";
        class Tensor { constructor(type, data, dims) { Object.assign(this, { type, data, dims }); } }
        globalThis.ort = { Tensor };
        const { separate } = await import("./separate.mjs");
        const floats = (path) => new Float32Array(readFileSync(path).buffer.slice(0));
        const session = { run: async ({ magnitude }) => {
          writeFileSync("magnitude.f32", Buffer.from(magnitude.data.buffer));
          console.log(JSON.stringify(magnitude.dims));
          return { masks: { data: floats("masks.f32"), dims: JSON.parse(readFileSync("dims.json")) } };
        } };
        const all = floats("mixture.f32"), n = all.length / 2;
        const stems = await separate(session, all.subarray(0, n), all.subarray(n));
        writeFileSync("stems.f32", Buffer.concat(stems.flat().map((wave) => Buffer.from(wave.buffer))));"""
    )
    mixture.tofile(tmp_path / "mixture.f32")
    masks.tofile(tmp_path / "masks.f32")
    (tmp_path / "dims.json").write_text(json.dumps(masks.shape))
    assert json.loads(run("node", "main.mjs", cwd=tmp_path)) == list(magnitude.shape)
    heard = np.fromfile(tmp_path / "magnitude.f32", np.float32).reshape(magnitude.shape)
    assert snr(magnitude, heard) > 120
    got = np.fromfile(tmp_path / "stems.f32", np.float32).reshape(stems.shape)
    assert all(snr(ours, theirs) > 100 for ours, theirs in zip(stems, got, strict=True))


@pytest.mark.skipif(shutil.which("node") is None, reason="no node")
@pytest.mark.skipif(not (MODULES / "onnxruntime-web").is_dir(), reason="no onnxruntime-web in ORTSEP_NODE_MODULES")
def test_the_page_in_javascript_with_onnxruntime_web(tmp_path: Path, mixture: Floats, stems: Floats) -> None:
    """The page's code as it stands with the runtime that it is for, in wasm."""
    for name, code in zip(("stft.mjs", "separate.mjs"), blocks("js"), strict=False):
        (tmp_path / name).write_text(code)
    (tmp_path / "main.mjs").write_text(
        """import { readFileSync, writeFileSync } from "fs";
        import { createRequire } from "module";
        globalThis.ort = createRequire(`${process.argv[2]}/`)("onnxruntime-web");
        ort.env.wasm.numThreads = 1;
        const { separate } = await import("./separate.mjs");
        const session = await ort.InferenceSession.create(readFileSync(process.argv[3]));
        const all = new Float32Array(readFileSync("mixture.f32").buffer.slice(0)), n = all.length / 2;
        const stems = await separate(session, all.subarray(0, n), all.subarray(n));
        writeFileSync("stems.f32", Buffer.concat(stems.flat().map((wave) => Buffer.from(wave.buffer))));"""
    )
    mixture.tofile(tmp_path / "mixture.f32")
    run("node", "main.mjs", str(MODULES.parent), str(MODEL), cwd=tmp_path)
    got = np.fromfile(tmp_path / "stems.f32", np.float32).reshape(stems.shape)
    assert all(snr(ours, theirs) > 90 for ours, theirs in zip(stems, got, strict=True))


class Quiet(SimpleHTTPRequestHandler):
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript", ".wasm": "application/wasm"}

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.skipif(not (MODULES / "onnxruntime-web").is_dir(), reason="no onnxruntime-web in ORTSEP_NODE_MODULES")
def test_the_page_in_a_browser(tmp_path: Path, mixture: Floats, stems: Floats) -> None:
    """The same two modules, loaded by Chromium from a server, with the package's own script before them."""
    for name, code in zip(("stft.mjs", "separate.mjs"), blocks("js"), strict=False):
        (tmp_path / name).write_text(code)
    mixture.tofile(tmp_path / "mixture.f32")
    (tmp_path / "ort").symlink_to(MODULES / "onnxruntime-web" / "dist")
    (tmp_path / "model.onnx").symlink_to(MODEL)
    (tmp_path / "index.html").write_text(
        """<!doctype html><title>page</title><script src="ort/ort.wasm.min.js"></script>"""
    )
    script = """
        const done = arguments[0];
        (async () => {
          ort.env.wasm.numThreads = 1;
          const { separate } = await import("/separate.mjs");
          const session = await ort.InferenceSession.create("/model.onnx");
          const all = new Float32Array(await (await fetch("/mixture.f32")).arrayBuffer()), n = all.length / 2;
          const stems = await separate(session, all.subarray(0, n), all.subarray(n));
          const bytes = new Uint8Array(await new Blob(stems.flat()).arrayBuffer());
          let text = "";
          for (const byte of bytes) text += String.fromCharCode(byte);
          done(btoa(text));
        })().catch((error) => done("failed: " + error));
    """
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with chromium(tmp_path) as window:
                window.get(f"http://127.0.0.1:{server.server_port}/index.html")
                window.set_script_timeout(120)
                text = window.execute_async_script(script)
        finally:
            server.shutdown()
    assert not text.startswith("failed"), text
    got = np.frombuffer(base64.b64decode(text), np.float32).reshape(stems.shape)
    assert all(snr(ours, theirs) > 90 for ours, theirs in zip(stems, got, strict=True))


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_the_stft_in_cpp_is_ours(tmp_path: Path, mixture: Floats) -> None:
    (tmp_path / "stft.hpp").write_text(blocks("cpp")[0])
    (tmp_path / "main.cpp").write_text(
        """#include "stft.hpp"
        #include <cstdio>
        int main() {
            std::vector<float> wave(20001);
            if (std::fread(wave.data(), 4, wave.size(), stdin) != wave.size()) return 1;
            const auto frames = stft(wave, 2048, 512);
            for (const auto& frame : frames) std::fwrite(frame.data(), 16, frame.size(), stdout);
            const auto back = istft(frames, 2048, 512, wave.size());
            std::fwrite(back.data(), 4, back.size(), stdout);
        }"""
    )
    run("g++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "main.cpp", "-o", "main", cwd=tmp_path)
    done = subprocess.run([tmp_path / "main"], input=mixture[0].tobytes(), capture_output=True, check=True)
    ours = stft(HOW, mixture[:1])[0]
    theirs = np.frombuffer(done.stdout, np.complex128, ours.size).reshape(ours.shape[::-1]).T
    back = np.frombuffer(done.stdout, np.float32, offset=ours.size * 16)
    error = np.sum(np.abs(theirs - ours) ** 2) / np.sum(np.abs(ours) ** 2)
    assert 10 * np.log10(1 / error) > 120
    assert snr(istft(HOW, ours[None], len(back))[0], back) > 120


@pytest.mark.skipif("ONNXRUNTIME_HEADERS" not in os.environ, reason="ONNXRUNTIME_HEADERS names no headers")
def test_the_cpp_program_separates_as_ortsep_does(tmp_path: Path, mixture: Floats, stems: Floats) -> None:
    for name, code in zip(("stft.hpp", "separate.cpp"), blocks("cpp"), strict=True):
        (tmp_path / name).write_text(code)
    library = next((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))
    (tmp_path / "libonnxruntime.so.1").symlink_to(library)
    flags = ("-std=c++17", "-O2", "-Wall", "-Wextra", "-I", os.environ["ONNXRUNTIME_HEADERS"])
    run("g++", *flags, "separate.cpp", str(library), "-o", "separate", cwd=tmp_path)
    for name, wave in zip(("left", "right"), mixture, strict=True):
        wave.tofile(tmp_path / name)
    run("./separate", str(MODEL), "left", "right", cwd=tmp_path, LD_LIBRARY_PATH=str(tmp_path))
    for s, ours in enumerate(stems):
        theirs = [np.fromfile(tmp_path / f"{s}.{c}.f32", np.float32) for c in range(2)]
        assert snr(ours, np.stack(theirs)) > 100
