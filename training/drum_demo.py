"""``python -m training.drum_demo OUT [--song FILE]``: what ``make demo`` shows where no weights can be fetched.

Exports the bundled checkpoint of drums_mini, proves the export equal to torch, makes a drum track whose stems are
known, separates it from file to files, and prints how near the stems came, with a picture. With ``--song`` a file of
the user's takes the track's place, and there are no true stems to compare with.
"""

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import soundfile
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ortsep import Separator
from ortsep.base.arrays import F32
from ortsep.base.decibels import snr
from ortsep.base.errors import OrtsepError
from ortsep.options import Options
from ortsep.songs import Files, SongReport, separate_file
from training.clips import Stroke, desk, render
from training.kits import ROLES, STEMS, synthetic
from training.synth import RATE

TEMPO = 104.0
SEED = 2026
"""Of the demonstration's kit, room and desk: training draws its own from other seeds."""


def sdr(reference: F32, estimate: F32) -> float:
    """Signal-to-distortion ratio in dB over the whole of both, 10*log10(sum(ref^2)/sum((ref-x)^2))."""
    return snr(reference, estimate)


def groove(tempo: float, bars: int, toms: list[str]) -> list[Stroke]:
    """A plain rock beat of sixteen steps a bar: hi-hat, then ride; a fill over the toms in every fourth bar."""
    step = 60 / tempo / 4
    strokes: list[Stroke] = []

    def play(bar: int, steps: Iterable[int], role: str, name: str, force: float) -> None:
        strokes.extend(Stroke((bar * 16 + k) * step, role, name, force) for k in steps)

    for bar in range(bars):
        fill = bar % 4 == 3
        play(bar, (0, 6, 8, 11) if bar % 2 else (0, 8, 10), "kick", "hit", 0.9)
        play(bar, (4,) if fill else (4, 12), "snare", "hit", 0.9)
        play(bar, () if fill else (7, 9), "snare", "hit", 0.3)
        if bar < bars // 2:
            play(bar, range(0, 8 if fill else 14, 2), "hihat", "closed", 0.8)
            play(bar, () if fill else (14,), "hihat", "open", 0.8)
        else:
            play(bar, range(0, 8 if fill else 16, 2), "ride", "ping", 0.8)
            play(bar, (4, 12), "hihat", "pedal", 0.7)
        if bar % 4 == 0:
            play(bar, (0,), "crash", "hit", 0.9)
        if fill:
            for k in range(8, 16):
                play(bar, (k,), "tom", toms[(k - 8) * len(toms) // 8], 0.9)
    return strokes


def drum_track(folder: Path) -> tuple[Path, F32]:
    """A synthesised take: mixture.wav and true/<stem>.wav. Gives the stems [5, 2, N] too."""
    rng = np.random.default_rng(SEED)
    kit = {role: synthetic(rng, role) for role in ROLES}
    bars = 8
    strokes = groove(TEMPO, bars, list(kit["tom"].strokes))
    stems = desk(rng, render(rng, strokes, kit, bars * 240 / TEMPO + 1))
    (folder / "true").mkdir(parents=True, exist_ok=True)
    for name, stem in zip(STEMS, stems, strict=True):
        soundfile.write(folder / "true" / f"{name}.wav", stem.T, RATE, subtype="FLOAT")
    path = folder / "mixture.wav"
    soundfile.write(path, stems.sum(axis=0).T, RATE, subtype="FLOAT")
    return path, stems


def compare(song: Path, stems: F32, report: SongReport) -> str:
    """The table of SDRs: the mixture taken for each stem, and the separated stem."""
    mixture = soundfile.read(song, dtype="float32", always_2d=True)[0].T
    lines = ["            mixture  separated", "            (SDR, dB over the whole track)"]
    figures = []
    for k, name in enumerate(STEMS):
        estimate = soundfile.read(str(report.stems[name]), dtype="float32", always_2d=True)[0].T
        figures.append((sdr(stems[k], mixture), sdr(stems[k], estimate)))
        lines.append(f"  {name:<9} {figures[-1][0]:7.1f} {figures[-1][1]:9.1f}")
    means = np.mean(figures, axis=0)
    return "\n".join([*lines, f"  {'average':<9} {means[0]:7.1f} {means[1]:9.1f}"])


def picture(path: Path, columns: dict[str, dict[str, Path]]) -> None:
    """Spectrograms side by side, a column for each set of stems, to a PNG."""
    rows = list(next(iter(columns.values())))
    figure = Figure(figsize=(5 * len(columns) + 1, 1.7 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(rows), len(columns), squeeze=False, sharex=True, sharey=True)
    for c, (title, files) in enumerate(columns.items()):
        for r, name in enumerate(rows):
            with soundfile.SoundFile(files[name]) as file:
                sound, rate = file.read(30 * file.samplerate, dtype="float32", always_2d=True), file.samplerate
            window = {"NFFT": 2048, "noverlap": 1024}
            axes = grid[r][c]
            axes.specgram(sound.mean(axis=1) + 1e-9, Fs=rate, vmin=-140, vmax=-40, cmap="magma", **window)
            axes.set_ylim(0, 16000)
            axes.set_yticks([0, 8000], ["0", "8 kHz"])
            if r == 0:
                axes.set_title(title)
            if c == 0:
                axes.set_ylabel(name)
    for axes in grid[-1]:
        axes.set_xlabel("seconds")
    figure.savefig(path, dpi=80)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--song", type=Path)
    parser.add_argument("--track", action="store_true", help="make the drum track and no more")
    args = parser.parse_args(arguments)
    began = time.perf_counter()
    out: Path = args.out
    if args.track:
        print(drum_track(out)[0])
        return 0
    try:
        folder, ok = _proven(out)
        if args.song is None:
            song, stems = drum_track(out)
            print(f"\nMake a drum track of {stems.shape[2] / RATE:.1f} s with known stems: {song}, {out / 'true'}/")
        else:
            song = args.song
        print(f"\nSeparate {song}:")
        separator = Separator(folder)
        report = separate_file(separator, song, Files(output=out, template="stems/{stem}.{ext}"), Options())
    except OrtsepError as error:
        print(f"demo: {error}", file=sys.stderr)
        return error.status
    print("\n".join(told(report)))
    separated = {name: Path(str(report.stems[name])) for name in STEMS}
    if args.song is None:
        print("\n" + compare(song, stems, report))
        columns = {"true": {name: out / "true" / f"{name}.wav" for name in STEMS}, "separated": separated}
    else:
        columns = {song.name: separated}
    picture(out / "stems.png", columns)
    print(f"\nPicture: {out / 'stems.png'}   ({time.perf_counter() - began:.0f} s in all)")
    return 0 if ok else 1


def _proven(out: Path) -> tuple[Path | str, bool]:
    """The model, exported and proven equal to torch where torch is, else as it comes; and whether it is equal."""
    if find_spec("torch") is None:
        print("Take drums_mini as it comes: torch, which would prove it, is not here (make validate MODEL=drums_mini).")
        return "drums_mini", True
    from ortsep.export.exporter import choose_weights, export_model
    from ortsep.export.validate import line, validate_model, verdict

    print("Export the bundled checkpoint:")
    exported = export_model("drums_mini", choose_weights(None), out / "drums_mini", say=lambda t: print(" ", t))
    print("\nProve the export equal to torch:")
    validation = validate_model(exported.folder, say=lambda _: None)
    print("  " + "\n  ".join([*map(line, validation.figures), *verdict(validation).split("\n")]))
    return exported.folder, validation.ok


def told(report: SongReport) -> list[str]:
    """Each stem's file and level, and how fast it went."""
    room = max(len(str(stem.path)) for stem in report.outputs)
    lines = [f"  {stem.path!s:<{room}}  {20 * np.log10(max(stem.rms, 1e-10)):6.1f} dBFS" for stem in report.outputs]
    times = 1 / report.real_time_factor
    speed = f"{times:.0f}" if times >= 10 else f"{times:.1f}"
    return [*lines, f"  {report.seconds:.1f} s in {report.processing_time:.1f} s: {speed} times real time"]


if __name__ == "__main__":
    sys.exit(main())
