"""Who is let in, and what every answer carries. Pure ASGI, so that streams pass through it as they come."""

import asyncio
import hmac
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ortsep.server.problems import Problem
from ortsep.server.settings import Settings

COOKIE = "ortsep_session"
_SESSION = 30 * 24 * 3600.0
_SESSIONS = 1000
_STALLED = 60.0
"""Seconds after which a client that takes nothing of its answer is given up."""
_OPEN = ("/healthz", "/readyz", "/v1/session")
"""What needs no token, besides the page itself: it holds no one's songs."""
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(self)",
    "content-security-policy": "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; media-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""For a report, which carries its own script and style, and nothing from outside."""


class Sessions:
    """Browsers that have shown the token: each has a random cookie in its place, so that no URL carries a secret."""

    def __init__(self) -> None:
        self._until: OrderedDict[str, float] = OrderedDict()

    def begin(self) -> str:
        session = secrets.token_urlsafe(24)
        self._until[session] = time.monotonic() + _SESSION
        while len(self._until) > _SESSIONS:
            self._until.popitem(last=False)
        return session

    def known(self, session: str) -> bool:
        return self._until.get(session, 0.0) > time.monotonic()

    def end(self, session: str) -> None:
        self._until.pop(session, None)


class Rate:
    """Not more than ``most`` uploads a minute from one address."""

    def __init__(self, most: float) -> None:
        self._most = most
        self._seen: OrderedDict[str, deque[float]] = OrderedDict()

    def wait(self, address: str) -> float:
        """Seconds to wait before the next; 0 where it may come, which then counts."""
        now = time.monotonic()
        seen = self._seen.setdefault(address, deque())
        self._seen.move_to_end(address)
        while len(self._seen) > 10_000:
            self._seen.popitem(last=False)
        while seen and now - seen[0] >= 60.0:
            seen.popleft()
        if len(seen) >= self._most:
            return 60.0 - (now - seen[0])
        seen.append(now)
        return 0.0


class Guard:
    """Lets a request through to ``app`` where its host, origin and token are right."""

    def __init__(self, app: ASGIApp, settings: Settings, sessions: Sessions) -> None:
        self._app, self._settings, self._sessions = app, settings, sessions
        self._hosts = {"localhost", "127.0.0.1", "::1", settings.host.lower(), *(h.lower() for h in settings.hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            self._check(scope, headers)
        except Problem as problem:
            await problem.response()(scope, receive, _careful(send))
            return
        await self._app(scope, receive, _careful(send))

    def _check(self, scope: Scope, headers: Mapping[str, str]) -> None:
        host = headers.get("host", "")
        if self._settings.loopback and _name(host) not in self._hosts:
            # A page from elsewhere whose name was pointed at this machine must not reach a server without a token.
            raise Problem(
                421, f"this server isn't called {host[:100]!r}; name it with --allow-host {_name(host)[:100]}"
            )
        origin = headers.get("origin")
        changes = scope["method"] not in ("GET", "HEAD", "OPTIONS")
        if changes and origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            raise Problem(403, f"a page of {origin[:100]} may not use this server; open the server's own page")
        path: str = scope["path"]
        guarded = path.startswith("/v1/") or path == "/metrics"
        if self._settings.token and guarded and path not in _OPEN and not self._shown(headers):
            raise Problem(
                401,
                "this server wants its token: send it as 'Authorization: Bearer TOKEN', or open the page and enter it",
                {"www-authenticate": "Bearer"},
            )

    def _shown(self, headers: Mapping[str, str]) -> bool:
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and right_token(self._settings.token, token.strip()):
            return True
        return self._sessions.known(session_of(headers.get("cookie", "")))


def right_token(ours: str, theirs: str) -> bool:
    """Compared in constant time."""
    return hmac.compare_digest(ours.encode(), theirs.encode("utf-8", "replace"))


def session_of(cookies: str) -> str:
    try:
        found = SimpleCookie(cookies).get(COOKIE)
    except CookieError:
        return ""
    return "" if found is None else found.value


def _name(host: str) -> str:
    """A Host header without its port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _careful(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name.lower() for name, _ in message["headers"]}
            more: Any = [(n.encode(), v.encode()) for n, v in _HEADERS.items() if n.encode() not in present]
            message = {**message, "headers": [*message["headers"], *more]}
        await asyncio.wait_for(send(message), _STALLED)

    return sent
