"""The command line ``ortsep``: what can be typed. The commands themselves are in ``ortsep.commands``.

Nothing heavy is imported until a command runs: ``ortsep --help`` answers at once.
"""

import json
import sys
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from ortsep import __version__
from ortsep.base import heap, interrupt
from ortsep.base.errors import OrtsepError, UsageError
from ortsep.base.stderr import keep_for_events

app = typer.Typer(
    name="ortsep",
    help="Music source separation from self-describing ONNX files.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Provider(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    coreml = "coreml"
    openvino = "openvino"
    openvino_bf16 = "openvino-bf16"
    mps = "mps"


class Extension(StrEnum):
    zeros = "zeros"
    average = "average"


class Progress(StrEnum):
    bar = "bar"
    json = "json"


class Precision(StrEnum):
    fp32 = "fp32"
    fp16_weights = "fp16-weights"
    int8 = "int8"


Telling = Annotated[Progress, typer.Option("--progress", help="json: NDJSON events on stderr.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else there.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Weights = Annotated[
    str | None,
    typer.Option("--weights", metavar="PATH|random[:SEED]", help="A checkpoint instead of the official one."),
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ortsep {__version__}")
        raise typer.Exit


Portable = Annotated[bool, typer.Option("--portable", help="Operators of the ONNX standard only.")]
Precise = Annotated[
    Precision, typer.Option("--precision", help="fp16-weights: half the file. int8: faster. Both less exact.")
]


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="MODEL... SONG...", help="Model (file, folder or name), then songs and folders."),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for the stems; - writes one stem to stdout.")
    ] = Path("separated"),
    raw: Annotated[
        str | None,
        typer.Option("--raw", metavar="FORMAT:RATE:CHANNELS", help="What stdin holds, as f32le:44100:2."),
    ] = None,
    template: Annotated[
        str, typer.Option("--template", help="Path below it, with {model}, {song}, {stem}, {ext}.")
    ] = "{model}/{song}/{stem}.{ext}",
    stems: Annotated[str, typer.Option("--stems", "--targets", help="Only these stems, separated by commas.")] = "",
    two_stems: Annotated[
        str | None, typer.Option("--two-stems", metavar="STEM", help="STEM and everything else.")
    ] = None,
    residual: Annotated[bool, typer.Option("--residual", help="Also what is left of the mixture.")] = False,
    format: Annotated[str, typer.Option("--format", help="wav, flac, ogg or mp3.")] = "wav",
    subtype: Annotated[str | None, typer.Option("--subtype", help="float (default for wav), 24 or 16 bits.")] = None,
    rate: Annotated[int | None, typer.Option("--rate", help="Sample rate of the stems; the song's by default.")] = None,
    start: Annotated[float, typer.Option("--start", help="Begin here, in seconds.")] = 0.0,
    duration: Annotated[float | None, typer.Option("--duration", help="Separate so many seconds only.")] = None,
    downmix: Annotated[bool, typer.Option("--downmix", help="Mix songs of more than two channels to stereo.")] = False,
    allow_truncated: Annotated[
        bool, typer.Option("--allow-truncated", help="Separate what is there of a cut file.")
    ] = False,
    overlap: Annotated[float | None, typer.Option("--overlap", help="Of neighbouring chunks, 0 to 0.99.")] = None,
    shifts: Annotated[int, typer.Option("--shifts", help="Average over so many random shifts (Demucs).")] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Of the shifts.")] = 0,
    chunk: Annotated[
        float | None, typer.Option("--chunk", help="Seconds run in one piece, where a model leaves it open.")
    ] = None,
    niter: Annotated[int | None, typer.Option("--niter", help="EM iterations of the Wiener filter.")] = None,
    softmask: Annotated[bool, typer.Option("--softmask", help="Begin the Wiener filter with ratio masks.")] = False,
    alpha: Annotated[
        float | None, typer.Option("--alpha", help="Exponent of soft masks or of the alpha-Wiener filter.")
    ] = None,
    wiener_window: Annotated[
        int | None, typer.Option("--wiener-win-len", help="Frames the Wiener filter sees at once.")
    ] = None,
    wiener: Annotated[
        bool, typer.Option("--wiener-filter", "--mwf", help="The family's Wiener filter, where off by default.")
    ] = False,
    exponent: Annotated[float | None, typer.Option("--exponent", help="Of ratio masks.")] = None,
    mask_extension: Annotated[
        Extension | None, typer.Option("--mask-extension", help="Masks above the model's bins.")
    ] = None,
    provider: Annotated[
        Provider,
        typer.Option(
            "--provider",
            "--device",
            help="Execution provider; mps means coreml, openvino-bf16 is faster and less exact.",
        ),
    ] = Provider.auto,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, max=1024, help="Of a graph; one per core by default.")
    ] = None,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing/--overwrite", help="Leave songs alone whose stems are there and right.")
    ] = False,
    report: Annotated[
        bool, typer.Option("--report", help="Also an HTML page of each song: pictures, levels, players.")
    ] = False,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, max=64, help="Songs at a time.")] = 1,
    inline_audio: Annotated[
        bool, typer.Option("--inline-audio", help="With --json: the samples too, and no files.")
    ] = False,
    timeout: Annotated[float | None, typer.Option("--timeout", help="Give a song up after so many seconds.")] = None,
    progress: Telling = Progress.bar,
    json_: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no messages.")] = False,
    debug: Debug = False,
) -> None:
    """Separate songs into stems.

    A song called - is read from standard input: ffmpeg -i film.mkv -f wav - | ortsep run htdemucs - --stems vocals -o -

    A second model behind the first takes one of its stems: ortsep run htdemucs larsnet song.wav separates the drums
    further. MODEL@STEM says which stem, where the model itself does not.
    """
    with interrupt.at_once():
        from ortsep.commands.run import Manner, run_songs
        from ortsep.options import Options
        from ortsep.songs.separate import Files

    options = Options(
        stems=tuple(s.strip() for s in stems.split(",") if s.strip()),
        two_stems=two_stems,
        residual=residual,
        overlap=overlap,
        shifts=shifts,
        seed=seed,
        chunk=chunk,
        niter=niter,
        softmask=softmask or None,
        alpha=alpha,
        wiener_window=wiener_window,
        exponent=exponent,
        mask_extension=mask_extension.value if mask_extension else None,
        wiener=wiener or None,
    )
    files = Files(
        output=output,
        template=template,
        format=format,
        subtype=subtype,
        rate=rate,
        start=start,
        duration=duration,
        downmix=downmix,
        allow_truncated=allow_truncated,
        skip_existing=skip_existing,
        inline_audio=inline_audio,
    )
    if timeout is not None and not timeout > 0:
        raise UsageError(f"--timeout {timeout:g} is no time; give seconds above 0")
    if inline_audio and not json_:
        raise UsageError("--inline-audio puts the samples into the JSON document: add --json")
    name = "coreml" if provider is Provider.mps else provider.value
    loading = {"provider": name, "threads": threads}
    manner = Manner(jobs, raw, timeout, progress.value, report, json_, quiet, debug)
    _leave(run_songs(arguments, options, files, loading, manner))


@app.command()
def export(
    name: Annotated[str, typer.Argument(help="A model of the catalogue (ortsep models).")],
    weights: Weights = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder; models/exported/NAME by default.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="Constructor arguments of a model that is no preset.")
    ] = None,
    stems: Annotated[str, typer.Option("--stems", "--targets", help="Only these stems, where the family can.")] = "",
    portable: Portable = False,
    precision: Precise = Precision.fp32,
    progress: Telling = Progress.bar,
    route: Annotated[
        str, typer.Option("--route", help="For Spleeter: direct (the default), or tensorflow, with tf2onnx.")
    ] = "",
    json_: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No messages.")] = False,
    debug: Debug = False,
) -> None:
    """Make an ONNX model from a checkpoint."""
    with interrupt.at_once():
        from ortsep.commands.make import Making, export_command

    wanted = tuple(s.strip() for s in stems.split(",") if s.strip())
    making = Making(portable, precision.value, route, progress.value, json_, quiet)
    _leave(export_command(name, weights, output, config, wanted, making))


@app.command()
def optimize(
    model: Annotated[Path, typer.Argument(help="Any .onnx file.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The faster file.")],
    shape: Annotated[
        list[str] | None, typer.Option("--shape", metavar="INPUT=1,2,...", help="Of an input with free dimensions.")
    ] = None,
    gate: Annotated[float | None, typer.Option("--gate", help="dB that the result must keep; 90 for fp32.")] = None,
    portable: Portable = False,
    precision: Precise = Precision.fp32,
    json_: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No messages.")] = False,
    debug: Debug = False,
) -> None:
    """Rewrite any ONNX file to an equal but faster one; what it gains is measured, and what it changes in dB."""
    with interrupt.at_once():
        from ortsep.commands.make import optimize_command

    how = precision.value
    _leave(
        optimize_command(model, output, shape or [], gate, portable=portable, precision=how, as_json=json_, quiet=quiet)
    )


@app.command()
def adopt(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Other people's .onnx files.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="A folder for the file with its spec; beside it by default.")
    ] = None,
    contract: Annotated[str, typer.Option("--as", metavar="CONTRACT", help="What it is, where that is open.")] = "",
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="As n_fft=7680, where no table says it.")
    ] = None,
    stems: Annotated[str, typer.Option("--stems", help="Names of its stems in order, separated by commas.")] = "",
    rewrite: Annotated[bool, typer.Option("--rewrite", help="Write ortsep's own file instead, proven equal.")] = False,
    json_: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No messages.")] = False,
    debug: Debug = False,
) -> None:
    """Give somebody else's ONNX file its spec.json and stems.txt, so that it runs as ortsep's own."""
    with interrupt.at_once():
        from ortsep.commands.adopt import Adopting, adopt_command, read_wishes

    how = Adopting(output, rewrite, json_, quiet)
    _leave(adopt_command(files, read_wishes(contract, setting or [], stems), how))


@app.command()
def validate(
    model: Annotated[str, typer.Argument(help="An exported model: name, folder or file.")],
    weights: Weights = None,
    song: Annotated[list[Path] | None, typer.Option("--song", help="Real audio for the end-to-end stage.")] = None,
    seconds: Annotated[float, typer.Option("--seconds", help="Of each song.")] = 12.0,
    json_: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    debug: Debug = False,
) -> None:
    """Prove that an exported model equals its original, stage by stage, in dB."""
    with interrupt.at_once():
        from ortsep.commands.make import validate_command

    _leave(validate_command(model, weights, song or [], seconds, as_json=json_, quiet=quiet))


@app.command()
def models(
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """List the catalogue, and what is exported here."""
    with interrupt.at_once():
        from ortsep.commands.show import models_command

    _leave(models_command(as_json=json_))


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(help="A .onnx file, exported folder or name.")],
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Show what a model is: its spec, tensors, licence and figures."""
    with interrupt.at_once():
        from ortsep.commands.show import inspect_command

    _leave(inspect_command(model, as_json=json_))


@app.command()
def bench(
    model: Annotated[str, typer.Argument(help="An exported model: name, folder or file.")],
    song: Annotated[Path | None, typer.Option("--song", help="A song; seeded noise by default.")] = None,
    seconds: Annotated[float, typer.Option("--seconds", help="Of audio a run.")] = 60.0,
    runs: Annotated[int, typer.Option("--runs", min=1, help="Of each side, interleaved.")] = 3,
    against: Annotated[
        str | None, typer.Option("--against", help="original: the framework the model comes from.")
    ] = None,
    weights: Weights = None,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Measure speed and memory here."""
    with interrupt.at_once():
        from ortsep.commands.bench import bench_command

    _leave(bench_command(model, song, seconds, runs, against, weights, as_json=json_))


@app.command()
def doctor(
    model: Annotated[str | None, typer.Argument(help="An exported model: name, folder or file.")] = None,
    runs: Annotated[int, typer.Option("--runs", min=1, help="Timed runs of each provider.")] = 3,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Examine execution providers, packages and decoders; what is found of MODEL is kept for --provider auto."""
    with interrupt.at_once():
        from ortsep.commands.doctor import doctor_command

    _leave(doctor_command(model, as_json=json_, runs=runs))


@app.command()
def serve(
    models: Annotated[
        list[str] | None, typer.Option("--models", "-n", help="Offer these only; every one that is ready by default.")
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="0: any that is free.")] = 8000,
    data: Annotated[Path, typer.Option("--data", help="Folder for jobs and their files.")] = Path("ortsep-data"),
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, max=64, help="Songs at a time.")] = 1,
    max_upload: Annotated[int, typer.Option("--max-upload", min=1, help="MB a song may have.")] = 1024,
    max_length: Annotated[float, typer.Option("--max-length", help="Minutes a song may have.")] = 180.0,
    max_queue: Annotated[int, typer.Option("--max-queue", min=1, help="Songs that may wait.")] = 1000,
    max_rate: Annotated[float, typer.Option("--max-rate", min=1, help="Uploads a minute from one address.")] = 600.0,
    keep: Annotated[float, typer.Option("--keep", help="Hours that results are kept.")] = 24.0,
    timeout: Annotated[float, typer.Option("--timeout", help="Minutes a song may take.")] = 120.0,
    memory: Annotated[int, typer.Option("--memory", min=0, help="MB for all songs; 0: three quarters of all.")] = 0,
    token: Annotated[
        str, typer.Option("--token", envvar="ORTSEP_TOKEN", help="What clients must show; a must beyond this machine.")
    ] = "",
    allow_host: Annotated[
        list[str] | None, typer.Option("--allow-host", help="Another name of this server, as behind a proxy.")
    ] = None,
    provider: Annotated[Provider, typer.Option("--provider", "--device")] = Provider.auto,
    threads: Annotated[int | None, typer.Option("--threads", min=1, max=1024, help="Of a graph.")] = None,
    json_: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No messages.")] = False,
    debug: Debug = False,
) -> None:
    """Serve separations over HTTP, with a page: open the address that it prints."""
    with interrupt.at_once():
        from ortsep.commands.serve import serve_command
        from ortsep.server.settings import MEGABYTE, Settings

    settings = Settings(
        data=data,
        host=host,
        port=port,
        models=tuple(models or ()),
        jobs=jobs,
        threads=threads,
        provider="coreml" if provider is Provider.mps else provider.value,
        max_upload=max_upload * MEGABYTE,
        max_length=60 * max_length,
        max_queue=max_queue,
        max_rate=max_rate,
        keep=3600 * keep,
        timeout=60 * timeout,
        memory=memory * MEGABYTE,
        token=token,
        hosts=tuple(allow_host or ()),
    )
    _leave(serve_command(settings, as_json=json_, quiet=quiet))


_INTERRUPTED = "interrupted; nothing half-written was left"


def _leave(status: int) -> None:
    if status:
        raise typer.Exit(status)


def main() -> NoReturn:
    """Entry point: an error becomes one sentence on stderr (in JSON mode also a document) and an exit status."""
    interrupted = f"ortsep: {_INTERRUPTED}"
    if _tells_events():
        keep_for_events()
        interrupted = _error_event(_INTERRUPTED, interrupt.STATUS)
    interrupt.end_promptly(message=interrupted)
    heap.give_back()
    try:
        app()
    except OrtsepError as error:
        _fail(error, error.status)
    except SystemExit as leaving:
        if leaving.code == interrupt.STATUS:  # what typer makes of KeyboardInterrupt
            interrupt.leave(interrupted)
        raise
    except KeyboardInterrupt:
        interrupt.leave(interrupted)
    except MemoryError:
        _fail(OrtsepError("memory ran out; close other programs, or take a smaller model"), 1)
    except Exception as error:
        _fail(
            OrtsepError(f"unexpected {type(error).__name__}: {error}; run again with --debug and report it"), 1, error
        )
    sys.exit(0)


def _tells_events() -> bool:
    return "--progress=json" in sys.argv or ("--progress", "json") in pairwise(sys.argv)


def _error_event(error: str, status: int) -> str:
    return json.dumps({"event": "error", "error": error, "status": status})


def _fail(error: OrtsepError, status: int, cause: Exception | None = None) -> NoReturn:
    if "--debug" in sys.argv:
        raise cause or error
    if "--json" in sys.argv:
        print(json.dumps({"version": __version__, "error": str(error), "status": status}, ensure_ascii=False))
    if _tells_events():
        print(_error_event(str(error), status), file=sys.stderr)
    else:
        print(f"ortsep: {error}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
