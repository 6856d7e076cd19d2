"""A job's way as server-sent events (WHATWG HTML, section 9.2)."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from ortsep.server.problems import Problem
from ortsep.server.service import Service
from ortsep.server.store import FINISHED

_LOOK = 0.2
"""Seconds between two looks at a job."""
_BEAT = 15.0
"""Seconds after which something is sent, so that proxies keep the connection."""


async def events(service: Service, id_: str) -> AsyncIterator[bytes]:
    """``state`` events with the job's document whenever it changes; the last is that of its end, or ``gone``."""
    said, quiet = "", 0.0
    while True:
        try:
            document: Mapping[str, Any] = service.document(service.get(id_))
        except Problem:
            yield b"event: gone\ndata: {}\n\n"
            return
        text = json.dumps(document)
        if text != said:
            said, quiet = text, 0.0
            yield f"event: state\ndata: {text}\n\n".encode()
        elif quiet >= _BEAT:
            quiet = 0.0
            yield b": still here\n\n"
        if document["state"] in FINISHED:
            return
        await asyncio.sleep(_LOOK)
        quiet += _LOOK
