"""`/inside` and `/runs`."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Form, Request

from espnetv2.demo.house import House
from espnetv2.demo.routes_pictures import PROBLEMS, Picture, Ticket, content_of
from espnetv2.demo.schema import Fields, Opened
from espnetv2.errors import unknown

if TYPE_CHECKING:
    from espnetv2.weights.load import Loaded

router = APIRouter()


@router.get("/inside/units", summary="The EESP units of a network")
async def units(request: Request, network: str = "") -> list[dict[str, Any]]:
    """Names, channels, dilations and limits, from the image on."""
    from espnetv2.demo.inside import describe

    loaded = await _network(request.app.state.house, network)
    return describe(loaded.network)


@router.post("/inside", summary="A unit's branches on a picture", responses=PROBLEMS)
async def inside(
    request: Request,
    file: Picture,
    unit: Annotated[str, Form(description="Of `/inside/units`.")],
    network: Annotated[str, Form(description="Of `/networks`; the first by default.")] = "",
    ticket: Ticket = "",
) -> Opened:
    """Maps of each branch, before and after fusion."""
    house: House = request.app.state.house
    content = await content_of(file, house.settings.picture_bytes)
    async with house.lane.place(ticket):
        loaded = await _network(house, network)

        def job() -> Opened:
            from espnetv2.demo.inside import open_unit
            from espnetv2.demo.look import read_upload

            upload = read_upload(content, max_pixels=house.settings.picture_pixels)
            return open_unit(loaded, network or house.first, unit, upload)

        return await house.lane.run(job, request.is_disconnected)


@router.get("/inside/fields", summary="Receptive fields of a unit", responses=PROBLEMS)
async def fields(request: Request, unit: str, network: str = "", ticket: str = "") -> Fields:
    """Theoretical and effective, with and without fusion; takes seconds at the first time."""
    from espnetv2.demo.inside import fields_of

    house: House = request.app.state.house
    async with house.lane.place(ticket[:64]):
        loaded = await _network(house, network)
        key = (network or house.first, unit)
        if (known := house.fields.get(key)) is not None:
            return known
        job = partial(fields_of, loaded, unit)
        found = await house.lane.run(job, request.is_disconnected)
        house.fields[key] = found
        return found


@router.get("/runs", summary="Own runs of `espnetv2 train`")
async def runs(request: Request) -> list[dict[str, Any]]:
    """What each run's summary and history say; empty without `--runs`."""
    house: House = request.app.state.house
    return [
        {"name": run.name, "summary": run.summary, "history": run.history} for run in house.runs()
    ]


async def _network(house: House, name: str) -> Loaded:
    offered = house.offered()
    name = name or house.first
    if name not in offered:
        raise unknown("network", name, offered)
    return await asyncio.to_thread(house.network, offered[name])
