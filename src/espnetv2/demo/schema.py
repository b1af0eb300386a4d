"""What the JSON endpoints answer; `/openapi.json` is made from it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

Task = Literal["classification", "segmentation", "detection"]


class Size(BaseModel):
    """Of a picture, in pixels."""

    height: int
    width: int


class Milliseconds(BaseModel):
    """Where the time of this very run went, in milliseconds."""

    wait: float = Field(description="In the queue.")
    read: float = Field(description="Decoding the file.")
    prepare: float = Field(description="Resizing and normalising.")
    network: float = Field(description="The network alone.")
    decode: float = Field(description="Raw outputs to the result.")
    encode: float = Field(description="The mask as PNG, if it was asked for.")
    server: float = Field(description="All of it but the waiting.")


class ClassShare(BaseModel):
    """A class that occurs in a segmentation."""

    index: int = Field(description="Value of its pixels in the mask.")
    name: str
    colour: str = Field(description="#rrggbb, in the mask and in the legend.")
    share: float = Field(description="Of the picture's pixels, 0 to 1.")


class Answer(BaseModel):
    """What was found in one picture, and what it cost."""

    network: str
    task: Task
    engine: str
    precision: str
    threads: int
    picture: Size = Field(description="As it was given, upright.")
    input: Size = Field(description="Of the network's input.")
    result: dict[str, Any] = Field(
        description="As the command line's JSON: `top` (classification), `shares` (segmentation) "
        "or `detections` with boxes x1 y1 x2 y2 in pixels of the picture."
    )
    classes: list[ClassShare] = Field(description="Of a segmentation, largest first; else empty.")
    mask: str | None = Field(
        description="Of a segmentation if `mask` was asked for: a palette PNG whose values are "
        "class indices, as a data address."
    )
    preview: str | None = Field(description="A JPEG of the picture if `preview` was asked for.")
    milliseconds: Milliseconds
    macs: int = Field(description="Multiply-adds of convolutions and linear layers of this input.")
    parameters: int


class Comparison(BaseModel):
    """Two choices on one picture, run in turns."""

    first: Answer
    second: Answer
    runs: int = Field(description="Of each, in turns, after one that does not count.")
    first_milliseconds: float = Field(description="Median of the network alone.")
    second_milliseconds: float
    speed_ratio: float = Field(description="How many times faster the second is.")
    agreement: float | None = Field(
        description="Segmentation: share of pixels with the same class. Classification: the mass "
        "that both give to the same of the classes shown. Else, or with other classes, null."
    )
    difference: str | None = Field(
        description="PNG with colour where the classes differ and nothing elsewhere."
    )
    note: str = Field(description="Why there is no difference map; empty if there is.")


class Clip(BaseModel):
    """A video that is, or was, looked at."""

    id: str
    state: Literal["waiting", "working", "done", "failed"]
    frames: int = Field(description="Done so far.")
    total: int = Field(description="In all; 0 if unknown.")
    frames_per_second: float = Field(description="That are looked at, drawn and written.")
    network_milliseconds: float = Field(description="A frame, in the network.")
    summary: dict[str, Any] | None = Field(description="When done: size, rate, what was found.")
    error: str = ""


class BranchView(BaseModel):
    """One branch of an EESP unit."""

    dilation: int
    sees: int = Field(description="Side in pixels of its map: 2 x dilation + 1.")
    before: str = Field(description="PNG: one channel a tile, left to right, before fusion.")
    after: str = Field(description="The same after fusion.")


class Opened(BaseModel):
    """An EESP unit at work on a picture."""

    network: str
    unit: str
    channels: int = Field(description="Of each branch: tiles of its PNGs.")
    tile: Size
    limit: int = Field(description="Widest view that the layout allows a branch, in pixels.")
    input: str = Field(description="PNG of the reduced input, tiles as in the branches.")
    branches: list[BranchView]


class Grid(BaseModel):
    """A gradient as a picture with its numbers."""

    picture: str
    theoretical: float = Field(description="Side of the theoretical field in pixels.")
    extent: float = Field(description="Side of a square as large as the visibly moved area.")
    gridding: float = Field(description="Share of the theoretical field that receives nothing.")


class Fields(BaseModel):
    """Receptive fields of a unit's branches and of the network up to the unit."""

    unit: str
    dilations: list[int]
    before: list[Grid] = Field(description="Each branch alone, seen from the unit's input.")
    after: list[Grid] = Field(description="Each branch with the sums of fusion.")
    fused: Grid = Field(description="The unit's output seen from the image.")
    unfused: Grid = Field(description="The same weights with fusion off in every unit.")


class Problem(BaseModel):
    """Why there is no answer."""

    error: str = Field(description="One line: what, and how to mend it.")
