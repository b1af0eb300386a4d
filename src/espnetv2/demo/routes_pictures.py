"""`/predict`, `/compare` and the queue."""

from __future__ import annotations

from time import perf_counter
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Request, UploadFile
from starlette.exceptions import HTTPException

from espnetv2.demo.guard import too_large
from espnetv2.demo.house import House
from espnetv2.demo.schema import Answer, Comparison, Problem

router = APIRouter()
PROBLEMS: dict[int | str, dict[str, Any]] = {
    413: {"model": Problem, "description": "Too many bytes."},
    422: {"model": Problem, "description": "No picture, too many pixels, or an unknown word."},
    503: {"model": Problem, "description": "The queue is full; Retry-After says when to return."},
}
Picture = Annotated[UploadFile, File(description="A picture, told by its content.")]
Ticket = Annotated[
    str, Form(max_length=64, description="Any word, to ask `/queue/{ticket}` with while waiting.")
]


async def content_of(file: UploadFile, limit: int) -> bytes:
    """The bytes of an upload, at most `limit`."""
    content = await file.read(limit + 1)
    if len(content) > limit:
        raise HTTPException(413, too_large(limit))
    return content


@router.post("/predict", summary="Look at a picture", responses=PROBLEMS)
async def predict(
    request: Request,
    file: Picture,
    network: Annotated[str, Form(description="Of `/networks`; the first by default.")] = "",
    engine: Annotated[str, Form(description="Of `/networks`; the fastest by default.")] = "",
    precision: Annotated[str, Form(description="Of the engine; fp32 by default.")] = "",
    mask: Annotated[bool, Form(description="Give a segmentation as PNG too.")] = False,
    preview: Annotated[bool, Form(description="Give the picture back as JPEG.")] = False,
    ticket: Ticket = "",
) -> Answer:
    """One picture through one network; see docs/demo.md."""
    house: House = request.app.state.house
    content = await content_of(file, house.settings.picture_bytes)
    async with house.lane.place(ticket):
        start = perf_counter()
        ready = await house.open(network, engine, precision)

        def job() -> Answer:
            from espnetv2.demo.look import look, read_upload

            wait = 1000 * (perf_counter() - start)
            upload = read_upload(content, max_pixels=house.settings.picture_pixels)
            return look(ready, upload, wait=wait, mask=mask, preview=preview)[0]

        return await house.lane.run(job, request.is_disconnected)


@router.post("/compare", summary="Two choices on one picture", responses=PROBLEMS)
async def compare(
    request: Request,
    file: Picture,
    first: Annotated[str, Form(description="A network.")],
    second: Annotated[str, Form(description="Another, or the same.")],
    first_engine: Annotated[str, Form()] = "",
    second_engine: Annotated[str, Form()] = "",
    first_precision: Annotated[str, Form()] = "",
    second_precision: Annotated[str, Form()] = "",
    ticket: Ticket = "",
) -> Comparison:
    """Both networks run in turns, several times; the medians are compared."""
    house: House = request.app.state.house
    content = await content_of(file, house.settings.picture_bytes)
    async with house.lane.place(ticket):
        start = perf_counter()
        one = await house.open(first, first_engine, first_precision)
        two = await house.open(second, second_engine, second_precision)

        def job() -> Comparison:
            from espnetv2.demo.compare import compare
            from espnetv2.demo.look import read_upload

            wait = 1000 * (perf_counter() - start)
            upload = read_upload(content, max_pixels=house.settings.picture_pixels)
            return compare(one, two, upload, wait=wait)

        return await house.lane.run(job, request.is_disconnected)


@router.get("/queue/{ticket}", summary="How many come before a ticket")
async def queue(request: Request, ticket: str) -> dict[str, int | None]:
    """`position` 0 is being served; null is not, or no longer, here."""
    house: House = request.app.state.house
    return {"position": house.lane.position(ticket), "waiting": house.lane.waiting}
