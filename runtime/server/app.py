"""The HTTP face of a server: routes only; what they do is in ``ortsep.server.service``."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, StreamingResponse
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.routing import Route

from ortsep import __version__
from ortsep.report.page import PLAYER
from ortsep.server.archive import zipped
from ortsep.server.events import events
from ortsep.server.guard import COOKIE, REPORT_POLICY, Guard, Rate, Sessions, right_token, session_of
from ortsep.server.metrics import Metrics
from ortsep.server.problems import Problem, described
from ortsep.server.request import SeparationRequest, first_fault, read_request
from ortsep.server.service import Service
from ortsep.server.settings import Settings
from ortsep.server.store import Job, new_id
from ortsep.server.upload import receive
from ortsep.server.worker import PAGE, RESULT

_PAGE = Path(__file__).with_name("page")
_BASE = "/v1/separations"
_ID = _BASE + "/{id}"
_PRIVATE = {"cache-control": "private, max-age=3600"}
_DRAWING = 120.0
"""Seconds after a job's end within which its pictures must be there: an hour of song takes about 90."""
_UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["song"],
                    "properties": {
                        "song": {"type": "string", "format": "binary"},
                        **SeparationRequest.model_json_schema()["properties"],
                    },
                    "additionalProperties": False,
                    "description": "The song as the file 'song', and the options as further fields.",
                }
            },
            "audio/*": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
_LINKS = {
    name: {
        "operationRef": f"#/paths/~1v1~1separations~1{{id}}{path}/{method}",
        "parameters": {"id": "$response.body#/id"},
    }
    for name, path, method in (
        ("status", "", "get"),
        ("delete", "", "delete"),
        *((name, f"~1{name}", "get") for name in ("events", "archive", "pictures", "report", "song")),
    )
}
"""What can be asked about the separation that an answer tells of, for the OpenAPI document."""


class Token(BaseModel):
    """What the page sends when somebody enters the token."""

    token: str


def make_app(settings: Settings) -> FastAPI:
    """The application; its processes start and end with it. Raises OutputError, ModelError, FileMissing."""
    metrics, sessions, rate = Metrics(), Sessions(), Rate(settings.max_rate)

    def ended(job: Job, outcome: str) -> None:
        metrics.ended(job, outcome)
        done = service.store.get(job.id)
        if outcome == "done" and done is not None and done.result is not None:
            metrics.measured(str(job.request["model"]), done.result["seconds"], done.result["processing_time"])

    service = Service(settings, ended)

    @asynccontextmanager
    async def living(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await run_in_threadpool(service.stop)

    app = FastAPI(
        title="ortsep",
        version=__version__,
        summary="Music source separation",
        docs_url=None,  # its page takes scripts from another host
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        lifespan=living,
    )
    app.state.service = service
    app.add_middleware(Guard, settings=settings, sessions=sessions)
    _add_errors(app)
    _add_separations(app, service, settings, metrics, rate)
    _add_one(app, service)
    _add_results(app, service)
    _add_drawn(app, service)
    _add_operations(app, service, metrics)
    _add_page(app, settings, sessions)
    return app


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(Problem)
    async def problem(request: Request, error: Problem) -> Response:
        return error.response()

    @app.exception_handler(HTTPException)
    async def by_status(request: Request, error: HTTPException) -> Response:
        path, said, headers = request.url.path[:100], str(error.detail), dict(error.headers or {})
        if error.status_code == 404:
            said = f"there is nothing at {path}; /v1/openapi.json says what is where"
        elif error.status_code == 405:
            headers["allow"] = ", ".join(
                _methods(app, request)
            )  # of all routes; the framework names those of the first
            said = f"{request.method[:20]} is nothing that {path} takes; it takes {headers['allow']}"
        return Problem(error.status_code, said, headers).response()

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        return Problem(422, f"{where} can't be {str(fault.get('input'))[:80]!r} ({fault['msg']}); change it").response()

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        return Problem(
            500, f"unexpected {type(error).__name__}; tell who runs this server, whose log says more"
        ).response()


def _methods(app: FastAPI, request: Request) -> list[str]:
    """Every method that some route takes at a request's path."""
    routes = [route for route in app.routes if isinstance(route, Route) and route.path_regex.match(request.url.path)]
    return sorted({method for route in routes for method in route.methods or ()})


def _add_separations(app: FastAPI, service: Service, settings: Settings, metrics: Metrics, rate: Rate) -> None:
    @app.post(
        _BASE,
        status_code=202,
        summary="Separate a song",
        openapi_extra=_UPLOAD,
        responses={
            **described(400, 401, 404, 408, 413, 415, 422, 429, 507),
            200: {"description": "The separation that this Idempotency-Key began"},
            202: {"description": "Accepted", "links": _LINKS},
        },
    )
    async def separate(
        request: Request,
        response: Response,
        key: Annotated[str | None, Header(alias="Idempotency-Key", max_length=200)] = None,
    ) -> dict[str, Any]:
        try:
            wait = rate.wait(request.client.host if request.client else "")
            if wait or service.full():
                why = "too many songs from this address" if wait else "the queue is full"
                raise Problem(429, f"{why}; send it again later", {"retry-after": str(max(1, round(wait or 30)))})
            id_ = new_id()
            with service.arriving(id_) as folder:
                upload = await receive(request, folder / "song.incoming", settings.max_upload)
                try:
                    asked = read_request(upload.fields)
                except ValidationError as error:
                    raise Problem(422, first_fault(error)) from None
                asked = await run_in_threadpool(service.checked, asked)
                job, new = await run_in_threadpool(service.add, id_, upload, asked, key)
        except Problem as problem:
            metrics.upload(problem.status)
            raise
        response.status_code = 202 if new else 200
        response.headers["location"] = f"{_BASE}/{job.id}"
        metrics.upload(response.status_code)
        return service.document(job)

    @app.get(_BASE, summary="The newest separations", responses=described(401, 422))
    async def listed(
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        before: Annotated[float | None, Query(description="Only those created before (seconds since 1970).")] = None,
    ) -> dict[str, Any]:
        return {"separations": [service.document(job) for job in service.store.newest(limit, before)]}


def _add_one(app: FastAPI, service: Service) -> None:
    """What is asked of one separation by itself."""

    @app.get(_ID, summary="How a separation stands", responses=described(401, 404, 422))
    async def status(id: str) -> dict[str, Any]:
        return service.document(service.get(id))

    @app.get(
        _ID + "/events",
        summary="Its way, as server-sent events",
        response_class=Response,
        responses=described(401, 404, 422, gives="text/event-stream"),
    )
    async def way(id: str) -> Response:
        service.get(id)
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(events(service, id), media_type="text/event-stream", headers=headers)

    @app.delete(_ID, status_code=204, summary="Cancel it and remove its files", responses=described(401, 404, 422))
    async def delete(id: str) -> Response:
        await run_in_threadpool(service.delete, id)
        return Response(status_code=204)


def _add_results(app: FastAPI, service: Service) -> None:
    one: dict[str, Any] = {
        "summary": "One stem",
        "response_class": Response,
        "responses": described(401, 404, 409, 422, gives="audio/*"),
    }

    @app.head(_ID + "/stems/{name}", **one)  # not one route with two methods: each is an operation with a name
    @app.get(_ID + "/stems/{name}", **one)
    async def stem(id: str, name: str, download: bool = False) -> Response:
        path = service.file(id, name)
        named = _download_name(service.get(id), path.name) if download else None
        return FileResponse(path, headers=_PRIVATE, filename=named)

    sent: dict[str, Any] = {
        "summary": "The song as it was sent",
        "response_class": Response,
        "responses": described(401, 404, 422, gives="application/octet-stream"),
    }

    @app.head(_ID + "/song", **sent)
    @app.get(_ID + "/song", **sent)
    async def song(id: str) -> Response:
        return FileResponse(service.song(id), headers=_PRIVATE, media_type="application/octet-stream")

    @app.get(
        _ID + "/archive",
        summary="All stems as a zip",
        response_class=Response,
        responses=described(401, 404, 409, 422, gives="application/zip"),
    )
    async def archive(id: str) -> Response:
        files = service.stems(id)
        name = _download_name(service.get(id), "stems.zip")
        headers = {**FileResponse("", filename=name).headers, **_PRIVATE}
        return StreamingResponse(
            zipped(files),
            media_type="application/zip",
            headers={k: v for k, v in headers.items() if k in ("content-disposition", "cache-control")},
        )


def _add_drawn(app: FastAPI, service: Service) -> None:
    @app.get(
        _ID + "/pictures", summary="Outlines and spectrograms, for drawing", responses=described(401, 404, 409, 422)
    )
    async def drawn(id: str) -> Response:
        """Drawn after the job is done: the answer waits for them a while."""
        job = service.finished(id)
        while not service.has(job, RESULT) and time.time() < (job.finished or 0) + _DRAWING:
            await asyncio.sleep(0.1)
        if not service.has(job, RESULT):
            raise Problem(404, "nothing is drawn of this separation; its stems are there")
        return FileResponse(service.beside(id, RESULT), media_type="application/json", headers=_PRIVATE)

    @app.get(
        _ID + "/report",
        summary="The report page",
        response_class=Response,
        responses=described(401, 404, 409, 422, gives="text/html"),
    )
    async def report(id: str) -> Response:
        text = await run_in_threadpool(service.beside(id, PAGE).read_text, "utf-8")
        return HTMLResponse(text, headers={"content-security-policy": REPORT_POLICY})


def _download_name(job: Job, file: str) -> str:
    return f"{Path(job.song).stem or 'song'} - {file}"


def _add_operations(app: FastAPI, service: Service, metrics: Metrics) -> None:
    @app.get("/v1/models", summary="The models of this server", responses=described(401))
    async def models() -> dict[str, Any]:
        default = service.offers[0].name if service.offers else None
        options = SeparationRequest.model_json_schema()["properties"]
        return {
            "version": __version__,
            "default": default,
            "models": [offer.document() for offer in service.offers],
            "options": options,
            "limits": {
                "max_upload": service.settings.max_upload,
                "max_length": service.settings.max_length,
                "keep": service.settings.keep,
            },
        }

    @app.get("/healthz", summary="Whether the server lives")
    async def health() -> dict[str, str]:
        return {"status": "ok", "version": __version__}

    @app.get("/readyz", summary="Whether it can take songs", responses=described(503))
    async def ready() -> dict[str, str]:
        if not service.offers:
            raise Problem(503, "there is no model; export one with: ortsep export NAME")
        if service.full():
            raise Problem(503, "the queue is full; send songs later")
        return {"status": "ready"}

    @app.get(
        "/metrics",
        summary="Counts for Prometheus",
        response_class=Response,
        responses=described(401, gives="text/plain"),
    )
    async def counts() -> Response:
        return Response(metrics.text(service), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_page(app: FastAPI, settings: Settings, sessions: Sessions) -> None:
    @app.get("/v1/session", summary="Whether this server wants a token")
    async def wanted(request: Request) -> dict[str, bool]:
        open_ = not settings.token or sessions.known(session_of(request.headers.get("cookie", "")))
        return {"token": bool(settings.token), "open": open_}

    @app.post(
        "/v1/session", status_code=204, summary="Exchange the token for a cookie", responses=described(400, 401, 422)
    )
    async def begin(request: Request, given: Token) -> Response:
        if settings.token and not right_token(settings.token, given.token):
            raise Problem(401, "that is not the token of this server; ask who runs it")
        answer = Response(status_code=204)
        secure = request.url.scheme == "https"
        answer.set_cookie(COOKIE, sessions.begin(), httponly=True, samesite="strict", secure=secure, max_age=30 * 86400)
        return answer

    @app.delete("/v1/session", status_code=204, summary="Forget the cookie")
    async def end(request: Request) -> Response:
        sessions.end(session_of(request.headers.get("cookie", "")))
        answer = Response(status_code=204)
        answer.delete_cookie(COOKIE)
        return answer

    for route, path, kind in (
        ("/", _PAGE / "index.html", "text/html; charset=utf-8"),
        ("/app.js", _PAGE / "app.js", "text/javascript; charset=utf-8"),
        ("/player.js", PLAYER, "text/javascript; charset=utf-8"),
        ("/style.css", _PAGE / "style.css", "text/css; charset=utf-8"),
        ("/icon.svg", _PAGE / "icon.svg", "image/svg+xml"),
    ):
        _static(app, route, path, kind)


def _static(app: FastAPI, route: str, path: Path, kind: str) -> None:
    @app.api_route(route, methods=["GET", "HEAD"], include_in_schema=False)
    async def page() -> Response:
        return FileResponse(path, media_type=kind, headers={"cache-control": "no-cache"})
