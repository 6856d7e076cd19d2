"""``ortsep serve``: the server, started, told of and ended."""

import contextlib
import json
import socket
import sys
from typing import Any

from ortsep import __version__
from ortsep.base import interrupt
from ortsep.base.errors import MissingDependency, OutputError
from ortsep.commands.make import export_first
from ortsep.server.settings import Settings


def serve_command(settings: Settings, *, as_json: bool, quiet: bool) -> None:
    """Serve until Ctrl-C or SIGTERM; running jobs then wait for the next start. Models that are named and not ready are
    exported first.

    Raises MissingDependency, OutputError, and what an export raises.
    """
    try:
        import uvicorn

        from ortsep.server.app import make_app
    except ImportError as error:
        missing = error.name or str(error)
        raise MissingDependency(
            f"serve needs {missing}, which is not installed: pip install 'ortsep[serve]'"
        ) from error
    listening = _listening(settings)
    for model in settings.models:
        export_first(model, "bar", quiet)
    app = make_app(settings)
    config = uvicorn.Config(
        app,
        log_level="warning" if quiet else "info",
        access_log=False,
        timeout_keep_alive=20,
        timeout_graceful_shutdown=3,
        limit_concurrency=512,
        server_header=False,
        date_header=True,
    )
    interrupt.stand_down()
    # uvicorn raises the signal again when it has ended; who was told the address may send one before it listens to them
    with contextlib.suppress(KeyboardInterrupt):
        _tell(app, f"http://{_written(listening)}", as_json=as_json, quiet=quiet)
        uvicorn.Server(config).run(sockets=[listening])
    if not quiet and not as_json:
        print("ortsep: the server has ended; songs that wait go on when it starts again", file=sys.stderr)


def _tell(app: Any, address: str, *, as_json: bool, quiet: bool) -> None:
    if as_json:
        print(json.dumps({"version": __version__, "address": address, "models": _models(app)}), flush=True)
    elif not quiet:
        print(f"ortsep serves {', '.join(_models(app)) or 'no model'} at {address} (Ctrl-C ends it)", file=sys.stderr)


def _models(app: Any) -> list[str]:
    return [offer.name for offer in app.state.service.offers]


def _listening(settings: Settings) -> socket.socket:
    """Bound before anything is started, so that a port that is taken is one sentence."""
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
        return listening
    except OSError as error:
        raise OutputError(
            f"{settings.host}:{settings.port} can't be listened on ({error.strerror or error}); choose another --port "
            "or --host"
        ) from error


def _written(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
