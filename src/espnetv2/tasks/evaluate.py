"""Any callable on any data set under named protocols: one forward pass per picture serves all.

Several processes (`espnetv2.tasks.ranks`) share the pictures; each is judged exactly once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from espnetv2.data.preprocess import Preprocessing
from espnetv2.errors import UserError, unknown
from espnetv2.layers.conv import resize
from espnetv2.tasks import detect, ranks
from espnetv2.tasks.detection_meter import DetectionMeter
from espnetv2.tasks.meters import ClassificationMeter, Meter, SegmentationMeter
from espnetv2.tasks.multilabel_meter import MultiLabelMeter
from espnetv2.tasks.priors import priors_of
from espnetv2.tasks.protocols import (
    PROTOCOLS,
    ClassificationProtocol,
    DetectionProtocol,
    MultiLabelProtocol,
    SegmentationProtocol,
)
from espnetv2.tasks.results import Detections
from espnetv2.tasks.scores import Scores

Predict = Callable[[Sequence[Image.Image]], Any]
"""Pictures to answers: logits (B, classes) or (B, classes, h, w) at the network's size, or for
detection a list of `Detections` in pixels of the pictures."""


class Pictures(Protocol):
    """Samples with `image`, `target` and `name`; a segmentation set is a `data.sample.Dataset`."""

    @property
    def classes(self) -> tuple[str, ...]:
        """What targets mean."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


def evaluate(
    predict: Predict,
    dataset: Pictures,
    protocols: Sequence[str],
    *,
    batch_size: int = 1,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    observe: Callable[[Any, Sequence[Any]], None] | None = None,
) -> dict[str, Scores]:
    """Judge predictions on a data set.

    Args:
        predict: Any engine: pictures to answers.
        dataset: Pictures with their truth.
        protocols: Names in `PROTOCOLS`, of one task.
        batch_size: Pictures per call of `predict`.
        limit: Only the first so many pictures.
        progress: Called after each batch with the pictures done and their total.
        observe: Called with the answers and the samples of each batch, to keep them.

    Returns:
        The scores by protocol, in the order asked for; the same in every process.

    Raises:
        UserError: An unknown protocol, protocols of two tasks, nothing to judge, or a network
            that does not fit the data set.
    """
    meter = _meter(dataset, protocols)
    total = len(dataset) if limit is None else min(limit, len(dataset))
    if total < 1 or batch_size < 1:
        raise UserError(
            f"nothing to evaluate: {len(dataset)} pictures, limit {limit}, "
            f"batch size {batch_size}; use 1 or more"
        )
    start = time.perf_counter()
    rank, world = ranks.place()
    share = range(rank, total, world)
    for first in range(0, len(share), batch_size):
        samples = [dataset[index] for index in share[first : first + batch_size]]
        answers = predict([sample.image for sample in samples])
        meter.update(answers, samples)
        if observe is not None:
            observe(answers, samples)
        if progress is not None:
            progress(min(total, (first + len(samples)) * world), total)
    for other, counts in enumerate(ranks.gather(meter.counts())):
        if other != rank:
            meter.add(counts)
    scores = meter.scores(pictures=total, seconds=time.perf_counter() - start)
    return {score.protocol: score for score in scores}


def network_predict(
    network: nn.Module, preprocessing: Preprocessing, *, device: str | torch.device = "cpu"
) -> Predict:
    """The callable of a torch network: preprocess, run, bring logits to the input's size.

    The network must be in eval mode and on `device`.
    """

    @torch.inference_mode()
    def predict(images: Sequence[Image.Image]) -> Tensor:
        batch = preprocessing.batch(images).to(device)  # (B, 3, H, W)
        logits: Tensor = network(batch)
        if logits.ndim == 4 and logits.shape[2:] != batch.shape[2:]:
            # D53: ESPNet-C answers at 1/8; its script enlarged as torch 0.3 did
            logits = resize(logits, (batch.shape[2], batch.shape[3]))
        return logits

    return predict


def detector_predict(
    network: nn.Module,
    preprocessing: Preprocessing,
    classes: tuple[str, ...],
    *,
    device: str | torch.device = "cpu",
) -> Predict:
    """The callable of a torch detector, decoding as the official evaluation does (D42).

    The network must be in eval mode and on `device`.

    Args:
        classes: Names without background.

    Raises:
        UserError: The preprocessing has no fixed size.
    """
    if preprocessing.size is None:
        raise UserError("a detector needs a fixed size; give --size 300 or 512")
    grid = priors_of(network, preprocessing.size, device=device)

    @torch.inference_mode()
    def predict(images: Sequence[Image.Image]) -> list[Detections]:
        raw = network(preprocessing.batch(images).to(device))
        sizes = [(image.height, image.width) for image in images]
        return detect.decode(raw, grid, sizes, classes, max_detections=None, clip=False)

    return predict


def predict_for(
    network: Any,
    task: str,
    preprocessing: Preprocessing,
    classes: tuple[str, ...],
    *,
    protocol: str,
    device: str | torch.device = "cpu",
) -> Predict:
    """The callable of a network or an engine, the way the protocol's task needs it."""
    if task == "detection":
        return detector_predict(network, preprocessing, classes, device=device)
    if protocol == "f1":  # all of the picture counts, so nothing is cropped
        preprocessing = replace(preprocessing, fit="stretch")
    return network_predict(network, preprocessing, device=device)


_METERS: dict[type, Callable[[Any, dict[str, Any]], Meter]] = {
    SegmentationProtocol: SegmentationMeter,
    ClassificationProtocol: ClassificationMeter,
    MultiLabelProtocol: MultiLabelMeter,
    DetectionProtocol: DetectionMeter,
}


def _meter(dataset: Pictures, names: Sequence[str]) -> Meter:
    chosen = {}
    for name in names:
        if name not in PROTOCOLS:
            raise unknown("protocol", name, PROTOCOLS)
        chosen[name] = PROTOCOLS[name]
    kinds = {type(protocol) for protocol in chosen.values()}
    if len(kinds) != 1:
        raise UserError(
            f"protocols {', '.join(names) or '(none)'} are not of one task; "
            "name at least one, all of one task"
        )
    kind = kinds.pop()
    if kind not in _METERS:
        raise UserError(f"protocol {names[0]} is not for pictures; choose another")
    return _METERS[kind](dataset, chosen)
