"""What can be typed behind ``ortsep serve``."""

from pathlib import Path
from typing import Annotated

import typer

from ortsep.base import interrupt
from ortsep.commands import choices, flags


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
    models_dir: flags.ModelsDir = None,
    provider: flags.Device = choices.Provider.auto,
    threads: flags.Threads = None,
    json_: flags.Json = False,
    quiet: flags.Quiet = False,
    debug: flags.Debug = False,
) -> None:
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
        provider="coreml" if provider is choices.Provider.mps else provider.value,
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
    serve_command(settings, as_json=json_, quiet=quiet)
