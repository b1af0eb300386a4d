"""What stands before every request: whose name it calls, how much it brings, what it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from time import monotonic
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from espnetv2.demo.settings import MEGABYTE, Settings

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}
FORM_BYTES = 100_000
"""That a form may have beside its file."""
DRAIN_BYTES, DRAIN_SECONDS = 500 * MEGABYTE, 20.0
"""Of a body that was refused, what is still read and thrown away: a client that does not listen
while it sends would else see a broken connection instead of the refusal."""


class Guard:
    """Middleware: host and origin are checked, bodies are limited, headers are set.

    The check of the host keeps other sites from reaching a server on this machine through a name
    of their own (DNS rebinding); that of the origin keeps them from sending forms to it.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app, self.settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        send = _with_headers(send)
        if refusal := self._stranger(headers):
            await _refuse(send, 403, refusal)
            return
        limit = self._limit(scope["path"])
        told = headers.get("content-length", "0")
        if not told.isdecimal() or int(told) > limit + FORM_BYTES:
            await _refuse(send, 413, too_large(limit), more=True)
            await _drain(receive)
            await send({"type": "http.response.body", "body": b""})
            return
        await self.app(scope, _Counted(receive, limit, self.settings.body_seconds), send)

    def _stranger(self, headers: Headers) -> str:
        host = headers.get("host", "")
        name = urlsplit(f"//{host}").hostname or ""
        if self.settings.hosts and name not in self.settings.hosts:
            return f"this server is not {name[:80]!r}; open it as localhost"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return "requests from other sites are not answered"
        if headers.get("sec-fetch-site") == "cross-site" and origin is not None:
            return "requests from other sites are not answered"
        return ""

    def _limit(self, path: str) -> int:
        clip = path.startswith("/clips")
        return self.settings.clip_bytes if clip else self.settings.picture_bytes


class _Counted:
    """A body that ends in a refusal when it is longer, or takes longer, than is allowed."""

    def __init__(self, receive: Receive, limit: int, seconds: float) -> None:
        self._receive, self._limit, self._count = receive, limit, 0
        self._until = monotonic() + seconds
        self._over = False

    async def __call__(self) -> Message:
        if self._over:
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, self._until - monotonic()))
        except asyncio.TimeoutError as error:  # not the built-in one in Python 3.10
            raise HTTPException(408, "the upload took too long; try again") from error
        if message["type"] != "http.request":
            return message
        self._count += len(message.get("body", b""))
        if self._count > self._limit + FORM_BYTES:
            await _drain(self._receive)
            raise HTTPException(413, too_large(self._limit))
        self._over = not message.get("more_body", False)
        return message


def too_large(limit: int) -> str:
    """The refusal of a file with too many bytes."""
    return f"the file is larger than {limit // MEGABYTE} MB; make it smaller"


async def _refuse(send: Send, status: int, reason: str, *, more: bool = False) -> None:
    body = json.dumps({"error": reason}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def _drain(receive: Receive) -> None:
    until, count = monotonic() + DRAIN_SECONDS, 0
    while count < DRAIN_BYTES:
        try:
            message = await asyncio.wait_for(receive(), max(0.0, until - monotonic()))
        except asyncio.TimeoutError:
            return
        count += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body", False):
            return


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return sending
