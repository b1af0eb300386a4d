"""What is exported of a network: its job for the converter, and what an artefact is compared on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from espnetv2.data.voc import bit_palette
from espnetv2.deploy.conversion import Job
from espnetv2.deploy.engines import Engine
from espnetv2.deploy.fold import fold
from espnetv2.deploy.forms import Normalize
from espnetv2.deploy.gate import Gate
from espnetv2.deploy.language_step import LanguageStep
from espnetv2.deploy.outputs import DECODED_NAMES, NAMES, with_decoding
from espnetv2.deploy.targets import Target
from espnetv2.deploy.verify import Likeness, compare, compare_boxes, drawn_pictures
from espnetv2.errors import UserError
from espnetv2.models.eru_lm import ERULanguageModel
from espnetv2.weights.load import Loaded


@dataclass(frozen=True)
class Settings:
    """How to export.

    Attributes:
        precision: To compute in; the target's first by default.
        size: (height, width); the weights' own by default.
        batch: Pictures of one call.
        dynamic: Whether batch, height and width stay free.
        takes: "input" or "pixels"; see `Artefact`.
        gives: "raw" or "decoded"; see `Artefact`.
        calibration: Pictures for int8.
        pictures: To compare on; calibration's by default, drawn ones without.
        gate: That the artefact must pass.
        form: "deploy", or "plain" for the train form as it is, to compare with.
    """

    precision: str | None = None
    size: tuple[int, int] | None = None
    batch: int = 1
    dynamic: bool = False
    takes: Literal["input", "pixels"] = "input"
    gives: Literal["raw", "decoded"] = "raw"
    calibration: Sequence[Image.Image] = ()
    pictures: Sequence[Image.Image] = ()
    gate: Gate | None = None
    form: str = "deploy"


class Pictures:
    """A network that looks at pictures.

    Attributes:
        seen: What `likeness` compares on.
    """

    def __init__(self, loaded: Loaded, settings: Settings, row: Target) -> None:
        self.loaded, self.settings, self.row = loaded, settings, row
        self.size = settings.size or loaded.preprocessing.size or (256, 320)
        self.spec = loaded.preprocessing.resized(self.size)
        given = settings.pictures or settings.calibration
        self.pictures = given or drawn_pictures(4, self.size)
        self.seen = "pictures" if given else "drawn pictures"

    def job(self, *, gives: str | None = None, takes: str | None = None) -> Job:
        """For the converter; as the settings say where not told otherwise."""
        takes, gives = takes or self.settings.takes, gives or self.settings.gives
        names = NAMES if gives == "raw" else DECODED_NAMES
        folded = _form(self.loaded, self.settings, self.row)
        example = self._prepare(drawn_pictures(1, self.size), takes)[0]
        if self.settings.dynamic:  # a batch of one would be taken for a constant
            example = np.concatenate([example, example])
        return Job(
            network=self._around(folded, gives=gives, takes=takes),
            inputs=(torch.from_numpy(example),),
            input_names=("image" if takes == "input" else "pixels",),
            output_names=names[self.loaded.task],
            dynamic=self.settings.dynamic,
            precision=str(self.settings.precision),
            notes=_notes(self.loaded) | self._notes(),
            calibration=self._prepare(self.settings.calibration, takes)
            if self.settings.precision == "int8"
            else (),
        )

    def _around(self, network: nn.Module, *, gives: str, takes: str) -> nn.Module:
        """The network with normalisation before it and decoding behind it, as asked for."""
        if takes == "pixels":
            network = nn.Sequential(Normalize(self.spec), network)
        if gives == "decoded":
            size = None if self.settings.dynamic else self.size
            network = with_decoding(
                network,
                task=self.loaded.task,
                size=size,
                detector=self.loaded.network,
                multi_label=self.loaded.multi_label,
            )
        return network.eval()

    def _prepare(self, pictures: Sequence[Image.Image], takes: str) -> list[np.ndarray]:
        """Inputs as the network takes them, each (batch, 3, H, W)."""
        read: Callable[[Image.Image], Tensor] = self.spec
        if takes == "pixels":
            kind = self.row.pixels
            read = lambda image: self.spec.pixels(image).to(getattr(torch, kind))  # noqa: E731
        batch = self.settings.batch
        return [np.repeat(read(one)[None].numpy(), batch, axis=0) for one in pictures]

    def _notes(self) -> dict[str, str]:
        loaded = self.loaded
        notes = {"classes": "\n".join(loaded.classes)}
        notes["preprocessing"] = json.dumps(self.preprocessing())
        if loaded.task == "segmentation":
            notes["palette"] = json.dumps(loaded.palette or bit_palette(len(loaded.classes)))
        return notes

    def preprocessing(self) -> dict[str, Any]:
        """For the artefact."""
        free = self.settings.dynamic and self.settings.size is None
        return (self.loaded.preprocessing if free else self.spec).to_json()

    def likeness(self, engine: Engine) -> Likeness:
        """How far the artefact's engine agrees with the train form."""
        settings, task = self.settings, self.loaded.task
        truth = self._around(self.loaded.network, gives=settings.gives, takes=settings.takes)

        def reference(batch: np.ndarray) -> Sequence[np.ndarray]:
            with torch.inference_mode():
                outputs = truth(torch.from_numpy(batch))
            parts = (outputs,) if isinstance(outputs, Tensor) else outputs
            return [part.numpy() for part in parts]

        decided = settings.gives == "decoded" and task != "classification"
        axis = None if decided else (2 if task == "detection" else 1)
        inputs = [(one,) for one in self._prepare(self.pictures, settings.takes)]
        if settings.gives == "decoded" and task == "detection":
            return compare_boxes(reference, engine.run_batch, inputs)
        return compare(reference, engine.run_batch, inputs, class_axis=axis)


class Words:
    """A language model, a step at a time.

    Attributes:
        seen: What `likeness` compares on.
    """

    seen = "random words and memories"

    def __init__(self, loaded: Loaded, settings: Settings, row: Target) -> None:
        self.loaded, self.settings, self.row = loaded, settings, row

    def job(self, *, gives: str | None = None, takes: str | None = None) -> Job:
        """For the converter; there is one kind."""
        folded = _form(self.loaded, self.settings, self.row)
        step = LanguageStep(cast(ERULanguageModel, folded)).eval()
        return Job(
            network=step,
            inputs=tuple(torch.from_numpy(one) for one in self._words(1)[0]),
            input_names=step.input_names,
            output_names=step.output_names,
            dynamic=self.settings.dynamic,
            precision=str(self.settings.precision),
            notes=_notes(self.loaded),
        )

    def _words(self, count: int) -> list[tuple[np.ndarray, ...]]:
        """Words and memories as they may occur in the middle of a text."""
        step = LanguageStep(cast(ERULanguageModel, self.loaded.network))
        batch = 2 if self.settings.dynamic else self.settings.batch
        made = []
        for seed in range(count):
            chance = torch.Generator().manual_seed(seed)
            words = torch.randint(len(self.loaded.classes), (1, batch), generator=chance)
            memory = [torch.randn(one.shape, generator=chance) for one in step.beginning(batch)]
            made.append((words.numpy(), *(0.3 * one.numpy() for one in memory)))
        return made

    def preprocessing(self) -> dict[str, Any]:
        """For the artefact: none."""
        return {}

    def likeness(self, engine: Engine) -> Likeness:
        """How far the artefact's engine agrees with the train form."""
        truth = LanguageStep(cast(ERULanguageModel, self.loaded.network)).eval()

        def reference(*inputs: np.ndarray) -> Sequence[np.ndarray]:
            with torch.inference_mode():
                return [one.numpy() for one in truth(*map(torch.from_numpy, inputs))]

        return compare(reference, engine.run, self._words(4), class_axis=2)


def check_words(loaded: Loaded, precision: str, settings: Settings) -> None:
    """Refuse what only pictures have.

    Raises:
        UserError: Names the option.
    """
    for option, given in (
        ("--size", settings.size),
        ("--input pixels", settings.takes == "pixels"),
        ("--output decoded", settings.gives == "decoded"),
        ("--gate", settings.gate),
        ("--precision int8", precision == "int8"),
    ):
        if given:
            raise UserError(
                f"{option} is for pictures, and {loaded.name} reads words; leave it out"
            )


def _form(loaded: Loaded, settings: Settings, row: Target) -> nn.Module:
    return fold(loaded.network, **row.fold) if settings.form == "deploy" else loaded.network


def _notes(loaded: Loaded) -> dict[str, str]:
    notes = {"model": loaded.name, "task": loaded.task, "source": loaded.source}
    return notes | ({"multi_label": "true"} if loaded.multi_label else {})
