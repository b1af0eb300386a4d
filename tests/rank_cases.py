"""One evaluation of each task on made data, for one process or several to run."""

import json
import pathlib
import sys

import numpy as np
import torch
from PIL import Image

from espnetv2.data.boxes import BoxedSample, Boxes
from espnetv2.data.sample import Sample
from espnetv2.tasks import ranks
from espnetv2.tasks.detection_metric import DetectionAveragePrecision
from espnetv2.tasks.evaluate import evaluate
from espnetv2.tasks.multilabel import MultiLabelMetric
from espnetv2.tasks.results import Detections

CLASSES = ("cat", "dog", "owl")
PICTURES = 7


class Made:
    """Pictures whose red is their number, with a truth for each."""

    classes = CLASSES
    palette, ignore, scored, groups = None, 255, 3, {}

    def __init__(self, truth):
        self.truth = truth
        self.read = []

    def __len__(self):
        return len(self.truth)

    def __getitem__(self, index):
        self.read.append(index)
        kind = BoxedSample if isinstance(self.truth[index], Boxes) else Sample
        return kind(Image.new("RGB", (8, 8), (index, 0, 0)), self.truth[index], str(index))


def _stored(answers):
    """A predictor that knows a picture by its red."""

    def predict(images):
        chosen = [answers[image.getpixel((0, 0))[0]] for image in images]
        return chosen if isinstance(chosen[0], Detections) else torch.stack(chosen)

    return predict


def _boxes(random):
    size = int(random.integers(0, 4))
    low = random.uniform(0, 100, (size, 2))
    corners = torch.from_numpy(np.concatenate([low, low + random.uniform(10, 60, (size, 2))], 1))
    labels = torch.from_numpy(random.integers(1, 4, size))
    flags = torch.from_numpy(random.random(size) < 0.2)
    return Boxes(corners.float(), labels, flags, ~flags & False, labels * 0.0, (200, 200), "a")


def _found(boxes, random):
    again = np.repeat(np.arange(len(boxes.labels)), 2)
    moved = boxes.boxes.numpy()[again] + random.normal(0, 4, (len(again), 4))
    scores = random.random(len(again)).astype(np.float32)
    return Detections(moved.astype(np.float32), boxes.labels.numpy()[again] - 1, scores, CLASSES)


def cases():
    """Name -> data set, predictor and protocols."""
    random = np.random.default_rng(5)
    torch.manual_seed(5)
    boxes = [_boxes(random) for _ in range(PICTURES)]
    masks = list(random.choice([0, 1, 2, 255], (PICTURES, 8, 8)).astype(np.uint8))
    several = list((random.random((PICTURES, 3)) < 0.5).astype(np.float32))
    logits = list(torch.randn(PICTURES, 3))
    return {
        "detection": (
            Made(boxes),
            _stored([_found(one, random) for one in boxes]),
            ["voc-11-point", "voc-all-point", "coco"],
        ),
        "segmentation": (
            Made(masks),
            _stored(list(torch.randn(PICTURES, 3, 4, 4))),
            ["void-counted", "train-size"],
        ),
        "classification": (
            Made([n % 3 for n in range(PICTURES)]),
            _stored(logits),
            ["center-crop"],
        ),
        "multilabel": (Made(several), _stored(logits), ["f1"]),
    }


def judged():
    """All scores, and which pictures this process read."""
    scores, read = {}, {}
    for name, (dataset, predict, protocols) in cases().items():
        found = evaluate(predict, dataset, protocols, batch_size=2)
        scores[name] = {key: {**score.to_json(), "seconds": 0} for key, score in found.items()}
        read[name] = dataset.read
    scores["metrics"] = _metrics()
    dataset, predict, protocols = cases()["multilabel"]
    scores["one picture"] = evaluate(predict, dataset, protocols, limit=1)["f1"].metrics
    return {"scores": scores, "read": read}


def _metrics():
    """The validation metrics of training, each process with its share."""
    rank, world = ranks.place()
    everything = cases()
    boxes, predict, _ = everything["detection"]
    metric, several = DetectionAveragePrecision(3), MultiLabelMetric(3)
    for index in range(rank, PICTURES, world):
        sample = boxes[index]
        truth = (sample.target.boxes, sample.target.labels - 1, sample.target.difficult)
        metric.update(predict([sample.image]), [truth])
        dataset, told, _ = everything["multilabel"]
        one = dataset[index]
        several.update(told([one.image]), torch.from_numpy(one.target)[None])
    values = {**metric.compute(), **several.compute()}
    return {name: round(float(value), 6) for name, value in values.items()}


if __name__ == "__main__":
    with ranks.joined():
        found = judged()
        rank = ranks.place()[0]
    (pathlib.Path(sys.argv[1]) / f"{rank}.json").write_text(json.dumps(found), encoding="utf-8")
