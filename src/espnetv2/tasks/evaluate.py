"""Any callable on any data set under named protocols: one forward pass per picture serves all."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch import Tensor, nn

from espnetv2.data.preprocess import Preprocessing
from espnetv2.data.sample import Dataset
from espnetv2.errors import UserError, unknown
from espnetv2.layers.conv import resize
from espnetv2.tasks.meters import ClassificationMeter, SegmentationMeter
from espnetv2.tasks.protocols import PROTOCOLS, ClassificationProtocol, SegmentationProtocol
from espnetv2.tasks.scores import Scores

Predict = Callable[[Sequence[Image.Image]], Tensor]
"""Pictures to logits, (B, classes) or (B, classes, h, w) at the network's size."""


def evaluate(
    predict: Predict,
    dataset: Dataset,
    protocols: Sequence[str],
    *,
    batch_size: int = 1,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Scores]:
    """Judge predictions on a data set.

    Args:
        predict: Any engine: pictures to logits.
        dataset: Pictures with their truth.
        protocols: Names in `PROTOCOLS`, of one task.
        batch_size: Pictures per call of `predict`.
        limit: Only the first so many pictures.
        progress: Called after each batch with the pictures done and their total.

    Returns:
        The scores by protocol, in the order asked for.

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
    for first in range(0, total, batch_size):
        samples = [dataset[index] for index in range(first, min(first + batch_size, total))]
        meter.update(torch.as_tensor(predict([sample.image for sample in samples])), samples)
        if progress is not None:
            progress(first + len(samples), total)
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


def _meter(dataset: Dataset, names: Sequence[str]) -> SegmentationMeter | ClassificationMeter:
    segmentation: dict[str, SegmentationProtocol] = {}
    classification: dict[str, ClassificationProtocol] = {}
    for name in names:
        protocol = PROTOCOLS.get(name)
        if protocol is None:
            raise unknown("protocol", name, PROTOCOLS)
        if isinstance(protocol, SegmentationProtocol):
            segmentation[name] = protocol
        else:
            classification[name] = protocol
    if bool(segmentation) == bool(classification):
        raise UserError(
            f"protocols {', '.join(names) or '(none)'} are not of one task; "
            "name at least one, all for segmentation or all for classification"
        )
    if segmentation:
        return SegmentationMeter(dataset, segmentation)
    return ClassificationMeter(dataset, classification)
