"""``python benchmarks/moises_seam.py SONG``: what chunks change of a Moises-Light, against the song in one piece.

The original has no chunks. SNR in dB of all stems against the unchunked run, for chunk lengths and overlaps: as ortsep
does it, with each chunk standardised by its own spectrum and not the song's, with chunks that begin anywhere, and both.
"""

import argparse
import contextlib
import tempfile
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import onnx

from ortsep import Separator
from ortsep.base.arrays import F32
from ortsep.base.decibels import snr
from ortsep.export.exporter import choose_weights, write_export
from ortsep.export.families.moises_light.original import GRAPH
from ortsep.export.family import load_original
from ortsep.export.graph.files import attach_spec
from ortsep.models.catalogue import find_card
from ortsep.songs.mixture import counted


def anywhere(model: Path, separator: Separator, folder: Path) -> Separator:
    """The model with chunks that begin anywhere."""
    assert separator.spec.chunks is not None
    spec = replace(separator.spec, chunks=replace(separator.spec.chunks, align=1))
    folder.mkdir()
    onnx.save(attach_spec(onnx.load(str(model)), spec), str(folder / GRAPH))
    return Separator(folder / GRAPH, provider="cpu")


def stacked(stems: dict[str, F32]) -> F32:
    return np.stack(list(stems.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description="What chunks change of a Moises-Light, against the song in one piece.")
    parser.add_argument("song", type=Path)
    parser.add_argument("--model", default="moises_light:paper_small")
    parser.add_argument("--weights", default="random")
    parser.add_argument("--start", type=float, default=0.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--chunks", type=float, nargs="+", default=[3.0, 6.0, 12.0])
    options = parser.parse_args()
    song = counted(options.song, start=options.start, duration=options.seconds)
    mix = np.concatenate(list(song.blocks()), axis=-1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        original = load_original(find_card(options.model), choose_weights(options.weights))
        write_export(original, folder / "model")
        aligned = Separator(folder / "model" / GRAPH, provider="cpu")
        free = anywhere(folder / "model" / GRAPH, aligned, folder / "free")
        whole = stacked(aligned.separate(mix, chunk=options.seconds + 1))
        own = mock.patch("ortsep.separator.spectrum_statistics", return_value=None)
        ways = {
            "ortsep": (aligned, contextlib.nullcontext()),
            "own statistics": (aligned, own),
            "begin anywhere": (free, contextlib.nullcontext()),
            "both": (free, own),
        }
        print(f"{'chunk s':>7} {'overlap':>7}  {'  '.join(ways)}")
        for chunk in (c for c in options.chunks if c < options.seconds):
            for overlap in (0.25, 0.5):
                figures = []
                for name, (separator, way) in ways.items():
                    with way:
                        stems = stacked(separator.separate(mix, chunk=chunk, overlap=overlap))
                    figures.append(f"{snr(whole, stems):.1f}".rjust(len(name)))
                print(f"{chunk:>7g} {overlap:>7g}  {'  '.join(figures)}", flush=True)


if __name__ == "__main__":
    main()
