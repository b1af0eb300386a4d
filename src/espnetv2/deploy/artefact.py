"""What an export is: a folder with the runtime's files and `export.json`, which says it all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from espnetv2.data.preprocess import Preprocessing
from espnetv2.errors import UserError

FORMAT = "espnetv2-export/1"
FILE = "export.json"
WEIGHTS = {".safetensors", ".pth", ".pt", ".tar"}
"""Suffixes of files of weights, which may lie beside an artefact and mean themselves."""

Side = int | str
"""Of a shape: a number, or the name of a side that may be anything."""


@dataclass(frozen=True)
class Port:
    """An input or output.

    Attributes:
        name: As the runtime knows it.
        shape: Sides, such as ("batch", 3, 224, 224).
        dtype: As numpy names it.
    """

    name: str
    shape: tuple[Side, ...]
    dtype: str = "float32"


@dataclass(frozen=True)
class Artefact:
    """One exported network.

    Attributes:
        target: Key of `deploy.targets.TARGETS`.
        folder: Where it lies; not part of the file.
        files: Names in the folder; the first is the one to load.
        model: Name in the catalog.
        task: What it does.
        classes: Names in the order of the outputs; a detector's without background.
        palette: A colour per class, if any.
        preprocessing: Of the picture, as in weights files.
        options: What the network was built with.
        precision: That was asked for: "fp32", "fp16", "bf16", "int8".
        computes_in: What the engine here really computes in; None where none was asked.
        takes: "input" (preprocessed) or "pixels" (RGB, 0 to 255, only resized).
        gives: "raw" outputs of the network, or "decoded" ones (see `deploy.outputs`).
        inputs: In order.
        outputs: In order.
        dynamic: Whether batch, height and width are free.
        float_layers: Layers that a mixed-precision search left in float.
        versions: Of the packages that made it.
        opset: Of ONNX.
        difference: Largest absolute difference of an output to the train form, relative to its
            largest value.
        agreement: Share of equal arg-max decisions with the train form.
        verified: What was compared, or why nothing was.
        gate: Scores that the gate compared, if it was asked for.
        bytes: Of the files together.
        sha256: Of each file by name, hexadecimal: some runtimes trust whatever they are given.
        seconds: That the export took.
        source: Where the weights come from.
        multi_label: Whether a classifier's outputs are to be taken each for itself.
    """

    target: str
    folder: Path
    files: tuple[str, ...]
    model: str
    task: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...] | None
    preprocessing: Mapping[str, Any]
    options: Mapping[str, Any]
    precision: str
    takes: Literal["input", "pixels"]
    gives: Literal["raw", "decoded"]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    dynamic: bool
    float_layers: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    opset: int | None = None
    computes_in: str | None = None
    difference: float | None = None
    agreement: float | None = None
    verified: str = "not compared"
    gate: Mapping[str, Any] | None = None
    bytes: int = 0
    sha256: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    source: str = ""
    multi_label: bool = False

    @property
    def path(self) -> Path:
        """The file to load."""
        return self.folder / self.files[0]

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) of the input; None where it is free."""
        height, width = self.inputs[0].shape[-2:]
        if isinstance(height, int) and isinstance(width, int) and self.task != "language":
            return height, width
        return None

    @property
    def batch(self) -> int | None:
        """Pictures that one call takes; None where it is free."""
        first = self.inputs[0].shape[0]
        return first if isinstance(first, int) else None

    def preprocess(self) -> Preprocessing:
        """The preprocessing, at the artefact's size if it has one."""
        spec = Preprocessing.from_json(dict(self.preprocessing))
        return spec if self.size is None else spec.resized(self.size)


def write_artefact(artefact: Artefact) -> None:
    """Write `export.json`, last of all files."""
    scratch = artefact.folder / f"{FILE}.part"
    scratch.write_text(json.dumps(to_json(artefact), indent=1) + "\n", encoding="utf-8")
    scratch.replace(artefact.folder / FILE)


def to_json(artefact: Artefact) -> dict[str, Any]:
    """What `export.json` holds."""
    values = {"format": FORMAT, **asdict(artefact)}
    del values["folder"]
    return values


def read_artefact(place: str | Path) -> Artefact:
    """The artefact in a folder, or of its `export.json` or another of its files.

    Raises:
        UserError: There is none, it is of another version, damaged, or a file lacks.
    """
    place = Path(place)
    file = place / FILE if place.is_dir() else place.parent / FILE
    if not file.is_file():
        raise UserError(f"{place} holds no {FILE}; make an artefact with `espnetv2 export`")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        version = values.pop("format", None)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{file} is damaged ({error}); export again") from error
    if version != FORMAT:
        raise UserError(f"{file} is of version {version}, not {FORMAT}; export again")
    try:
        known = {one.name for one in fields(Artefact)}
        for key in ("inputs", "outputs"):
            values[key] = tuple(
                Port(port["name"], tuple(port["shape"]), port["dtype"]) for port in values[key]
            )
        for key in ("files", "classes", "float_layers"):
            values[key] = tuple(values[key])
        values["sha256"] = dict(values["sha256"])
        if values["palette"] is not None:
            values["palette"] = tuple(tuple(colour) for colour in values["palette"])
        artefact = Artefact(folder=file.parent, **{k: v for k, v in values.items() if k in known})
    except (KeyError, TypeError) as error:
        raise UserError(f"{file} is damaged (no {error}); export again") from error
    _check_files(artefact, file)
    if not place.is_dir() and place.name not in (FILE, *artefact.files):
        raise UserError(
            f"{place} is no file of the artefact that {file} describes; give its folder"
        )
    return artefact


def is_artefact(place: str | Path) -> bool:
    """Whether a name means an exported network."""
    place = Path(place)
    if place.name == FILE or (place / FILE).is_file():
        return True
    return place.suffix not in WEIGHTS and place.is_file() and (place.parent / FILE).is_file()


def size_of(folder: Path, files: tuple[str, ...]) -> int:
    """Bytes of the files together."""
    return sum((folder / name).stat().st_size for name in files)


def hashes_of(folder: Path, files: tuple[str, ...]) -> dict[str, str]:
    """SHA-256 of each file."""
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files}


def _check_files(artefact: Artefact, file: Path) -> None:
    for name in artefact.files:
        if not (artefact.folder / name).is_file():
            raise UserError(f"{artefact.folder / name} is missing; export again")
    found = size_of(artefact.folder, artefact.files)
    if found != artefact.bytes:
        raise UserError(
            f"{artefact.folder}: the files have {found} bytes, but {file.name} says "
            f"{artefact.bytes}; export again"
        )
    for name, digest in hashes_of(artefact.folder, artefact.files).items():
        if artefact.sha256.get(name) != digest:
            raise UserError(
                f"{artefact.folder / name} is damaged: its checksum is not the one in {file.name}; "
                "export again"
            )
