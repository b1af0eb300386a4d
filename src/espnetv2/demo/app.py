"""The server: pages, health, errors. The answers to pictures are in `routes_*.py`."""

from __future__ import annotations

import hashlib
import logging
import mimetypes
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from espnetv2.demo import routes_clips, routes_inside, routes_pictures
from espnetv2.demo.guard import Guard
from espnetv2.demo.house import House
from espnetv2.demo.lane import FullError, GoneError
from espnetv2.demo.settings import Settings
from espnetv2.errors import UserError

log = logging.getLogger("espnetv2")
_FOLDER = Path(__file__).with_name("static")
_TYPES = {".js": "text/javascript; charset=utf-8", ".html": "text/html; charset=utf-8"}


class Health(BaseModel):
    """Whether the server can answer."""

    status: str = Field(description='"ok" while the process answers at all.')
    ready: bool = Field(description="Whether the first network is loaded.")
    waiting: int = Field(description="Requests in the queue, the one being served included.")
    capacity: int = Field(description="That the queue takes.")
    trouble: str = Field(description="Why the first network could not be loaded; else empty.")
    version: str


def create_app(settings: Settings) -> FastAPI:
    """The application of one server.

    Raises:
        UserError: The settings name a network or a folder that cannot be used.
    """
    house = House(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        threading.Thread(target=house.warm_up, daemon=True, name="warm-up").start()
        yield
        house.close()

    app = FastAPI(
        title="espnetv2 demo",
        description="Light-weight networks on pictures and clips. See docs/demo.md.",
        version=version("espnetv2"),
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.house = house
    app.add_middleware(Guard, settings=settings)
    _add_errors(app)
    _add_pages(app, house)
    for part in (routes_pictures, routes_clips, routes_inside):
        app.include_router(part.router)
    return app


def _add_pages(app: FastAPI, house: House) -> None:
    pages = _static()

    @app.get("/", include_in_schema=False)
    async def index(request: Request) -> Response:
        return _page(request, pages["index.html"])

    @app.get("/static/{name:path}", include_in_schema=False)
    async def static(request: Request, name: str) -> Response:
        if name not in pages:
            raise HTTPException(404, "there is no such file")
        return _page(request, pages[name])

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon(request: Request) -> Response:
        return _page(request, pages["icon.svg"])

    @app.get("/health", summary="Whether the server can answer")
    async def health() -> Health:
        return Health(
            status="ok",
            ready=house.ready,
            waiting=house.lane.waiting,
            capacity=house.lane.capacity,
            trouble=house.trouble,
            version=app.version,
        )

    @app.get("/networks", summary="Networks, engines and limits of this machine")
    async def networks() -> dict[str, Any]:
        return house.describe()


def _static() -> dict[str, tuple[str, str, bytes]]:
    """Every file of the page by its path: (type, tag, content). No other file can be asked for."""
    found: dict[str, tuple[str, str, bytes]] = {}
    for file in sorted(_FOLDER.rglob("*")):
        if file.is_file():
            content = file.read_bytes()
            kind = _TYPES.get(file.suffix) or mimetypes.guess_type(file.name)[0] or "text/plain"
            tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            found[file.relative_to(_FOLDER).as_posix()] = (kind, tag, content)
    return found


def _page(request: Request, page: tuple[str, str, bytes]) -> Response:
    kind, tag, content = page
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=kind, headers=headers)


def _add_errors(app: FastAPI) -> None:
    """Every refusal is `{"error": one line}`."""

    def say(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
        return JSONResponse({"error": " ".join(message.split())}, status, headers=headers)

    async def user_error(request: Request, error: Exception) -> Response:
        return say(422, str(error))

    async def full(request: Request, error: Exception) -> Response:
        assert isinstance(error, FullError)
        return say(503, str(error), {"Retry-After": str(error.seconds)})

    async def gone(request: Request, error: Exception) -> Response:
        return say(499, "who asked has left")

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return say(error.status_code, str(error.detail), dict(error.headers or {}))

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:])
        return say(422, f"{place}: {first['msg']}")

    async def broken(request: Request, error: Exception) -> Response:
        log.error("an answer failed", exc_info=error)
        return say(500, "the server failed at this; its log says why")

    app.add_exception_handler(UserError, user_error)
    app.add_exception_handler(FullError, full)
    app.add_exception_handler(GoneError, gone)
    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, broken)
