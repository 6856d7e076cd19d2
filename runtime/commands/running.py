"""``ortsep run``: what can be typed, and what is made of it."""

from typing import Annotated

import typer

from ortsep.base import interrupt
from ortsep.base.errors import UsageError
from ortsep.commands import choices, flags, habits


def run(
    words: Annotated[list[str], typer.Argument(metavar="[MODEL] SONG...", show_default=False)],
    model: flags.RunModel = None,
    then: flags.Then = None,
    recursive: flags.Recursive = False,
    stems: flags.Stems = "",
    two_stems: flags.TwoStems = None,
    residual: flags.Residual = False,
    start: flags.Start = 0.0,
    duration: flags.Duration = None,
    raw: flags.Raw = None,
    downmix: flags.Downmix = False,
    allow_truncated: flags.AllowTruncated = False,
    output: flags.Output = "separated",
    template: flags.Template = "{model}/{song}/{stem}.{ext}",
    format: flags.Format = None,
    subtype: flags.Subtype = None,
    flac: flags.Flac = False,
    mp3: flags.Mp3 = False,
    int24: flags.Int24 = False,
    float32: flags.Float32 = False,
    tags: flags.Tagged = True,
    mp3_bitrate: flags.Bitrate = None,
    quality: flags.Quality = None,
    clip_mode: flags.ClipMode = choices.Clip.rescale,
    rate: flags.Rate = None,
    skip_existing: flags.SkipExisting = False,
    report: flags.Page = False,
    inline_audio: flags.InlineAudio = False,
    overlap: flags.Overlap = None,
    shifts: flags.Shifts = 0,
    seed: flags.Seed = 0,
    tta: flags.Tta = False,
    denoise: flags.Denoise = False,
    compensate: flags.Compensate = choices.Gain.stem,
    dry_run: flags.DryRun = False,
    chunk: flags.Chunk = None,
    wiener: flags.Wiener = False,
    niter: flags.Niter = None,
    softmask: flags.Softmask = False,
    alpha: flags.Alpha = None,
    wiener_window: flags.WienerWindow = None,
    rest: flags.Rest = False,
    exponent: flags.Exponent = None,
    mask_extension: flags.MaskExtension = None,
    aggression: flags.Aggression = None,
    window: flags.WindowSize = None,
    post_process: flags.PostProcess = None,
    high_end: flags.HighEnd = False,
    models_dir: flags.ModelsDir = None,
    provider: flags.Device = choices.Provider.auto,
    threads: flags.Threads = None,
    jobs: flags.Jobs = 1,
    timeout: flags.Timeout = None,
    manifest: flags.Manifest = None,
    shard: flags.ShardOf = None,
    on: flags.On = None,
    tries: flags.Tries = 3,
    report_to: flags.ReportTo = None,
    progress: flags.Telling = choices.Progress.bar,
    json_: flags.Json = False,
    quiet: flags.Quiet = False,
    verbose: flags.Verbose = False,
    debug: flags.Debug = False,
) -> None:
    with interrupt.at_once():
        from ortsep.commands.run import run_songs
        from ortsep.commands.settings import Far, RunSettings
        from ortsep.options import Options
        from ortsep.songs.record import Files

    options = Options(
        stems=tuple(s.strip() for s in stems.split(",") if s.strip()),
        two_stems=two_stems,
        residual=residual,
        overlap=overlap,
        shifts=shifts,
        seed=seed,
        tta=tta,
        denoise=denoise,
        compensate=compensate.value,
        chunk=chunk,
        niter=niter,
        softmask=softmask or None,
        alpha=alpha,
        wiener_window=wiener_window,
        exponent=exponent,
        mask_extension=mask_extension.value if mask_extension else None,
        wiener=wiener or None,
        rest=rest,
        aggression=aggression,
        window=window,
        post_process=post_process,
        high_end=high_end,
    )
    kind, coding = habits.file_kind(format, subtype, flac=flac, mp3=mp3, int24=int24, float32=float32)
    files = Files(
        output=output,
        template=template,
        format=kind,
        subtype=coding,
        bitrate=mp3_bitrate,
        quality=quality,
        clip=clip_mode.value,
        rate=rate,
        start=start,
        duration=habits.length(duration),
        downmix=downmix,
        allow_truncated=allow_truncated,
        skip_existing=skip_existing,
        tags=tags,
        inline_audio=inline_audio,
    )
    if inline_audio and not json_:
        raise UsageError("--inline-audio puts the samples into the JSON document: add --json")
    name = "coreml" if provider is choices.Provider.mps else provider.value
    loading = {"provider": name, "threads": threads}
    settings = RunSettings(
        model=model,
        then=tuple(then or ()),
        recursive=recursive,
        jobs=jobs,
        raw=raw,
        timeout=timeout,
        progress=progress.value,
        report=report,
        as_json=json_,
        quiet=quiet,
        verbose=verbose,
        debug=debug,
        dry=dry_run,
        far=Far(manifest, shard, on, tries, report_to),
    )
    if status := run_songs(words, options, files, loading, settings):
        raise typer.Exit(status)
