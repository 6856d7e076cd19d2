"""Errors over HTTP: ``application/problem+json`` (RFC 9457) with the sentence that the command line would print."""

from collections.abc import Mapping
from http import HTTPStatus

from fastapi.responses import JSONResponse

from ortsep.base.errors import OrtsepError


class Problem(Exception):
    """An answer that is an error: ``status`` is HTTP's, ``detail`` one sentence with thing, cause and mend."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})

    def response(self) -> JSONResponse:
        body = {"type": "about:blank", "title": HTTPStatus(self.status).phrase, "status": self.status}
        body["detail"] = self.detail
        return JSONResponse(body, self.status, self.headers, media_type="application/problem+json")


def unprocessable(error: OrtsepError) -> Problem:
    """What the caller asked for can't be done: status 422."""
    return Problem(422, str(error))


SCHEMA = {
    "application/problem+json": {
        "schema": {
            "type": "object",
            "required": ["type", "title", "status", "detail"],
            "properties": {
                "type": {"type": "string"},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "detail": {"type": "string", "description": "One sentence: the thing, the cause and the mend."},
            },
        }
    }
}
"""For the OpenAPI document."""


def described(*statuses: int, gives: str | None = None) -> dict[int | str, dict[str, object]]:
    """What a route answers beside JSON, for its entry in the OpenAPI document: its errors, and the kind of its 200."""
    found: dict[int | str, dict[str, object]] = {
        status: {"description": HTTPStatus(status).phrase, "content": SCHEMA} for status in statuses
    }
    if gives is not None:
        found[200] = {"description": "OK", "content": {gives: {}}}
    return found
