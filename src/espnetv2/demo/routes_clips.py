"""`/clips`: a video goes in, is looked at in the background, and comes out drawn on."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Request, Response, UploadFile
from fastapi.responses import FileResponse
from starlette.exceptions import HTTPException

from espnetv2.demo.house import House
from espnetv2.demo.routes_pictures import PROBLEMS
from espnetv2.demo.schema import Clip, Problem

router = APIRouter(prefix="/clips")
ABSENT: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "No such clip, or it was removed."}
}


@router.post("", status_code=202, summary="Send a clip", responses=PROBLEMS)
async def add(
    request: Request,
    file: Annotated[UploadFile, File(description="MP4, MOV, WebM, MKV or AVI.")],
    network: Annotated[str, Form(description="Of `/networks`; the first by default.")] = "",
    engine: Annotated[str, Form(description="Of `/networks`; the fastest by default.")] = "",
    precision: Annotated[str, Form(description="Of the engine; fp32 by default.")] = "",
) -> Clip:
    """Ask `/clips/{id}` how far it is."""
    house: House = request.app.state.house
    ready = await house.open(network, engine, precision)
    return await asyncio.to_thread(lambda: house.clips.add(ready, file.file))


@router.get("/{number}", summary="How far a clip is", responses=ABSENT)
async def get(request: Request, number: str) -> Clip:
    """Frames done, rate, and in the end what was found."""
    job = _house(request).clips.get(number)
    if job is None:
        raise HTTPException(404, "there is no such clip; send it again")
    return job.clip


@router.get("/{number}/video", summary="The overlaid clip", responses=ABSENT)
async def video(request: Request, number: str) -> FileResponse:
    """An MP4, once the clip is done."""
    job = _house(request).clips.get(number)
    if job is None or job.clip.state != "done":
        raise HTTPException(404, "there is no such clip, or it is not done yet")
    return FileResponse(job.folder / "result.mp4", media_type="video/mp4")


@router.delete("/{number}", status_code=204, summary="Remove a clip", responses=ABSENT)
async def remove(request: Request, number: str) -> Response:
    """Stops it and removes its files."""
    if not _house(request).clips.remove(number):
        raise HTTPException(404, "there is no such clip; it may have been removed already")
    return Response(status_code=204)


def _house(request: Request) -> House:
    house: House = request.app.state.house
    return house
