"""Two choices on one picture, in turns, so that a busy machine slows both."""

from __future__ import annotations

from statistics import median
from time import perf_counter

from espnetv2.demo.look import Upload, difference_of, look
from espnetv2.demo.schema import Comparison
from espnetv2.demo.shelf import Ready
from espnetv2.predict.predictor import Result
from espnetv2.tasks.results import Classification, SegmentationMask

RUNS, LONGEST_SECONDS = 7, 4.0


def compare(first: Ready, second: Ready, upload: Upload, *, wait: float) -> Comparison:
    """Answers, medians, speed ratio and where the two differ."""
    one, seen = look(first, upload, wait=wait, mask=True, preview=False)
    two, other = look(second, upload, wait=wait, mask=True, preview=False)
    slow, fast = _in_turns(first, second, upload)
    agreement, difference, note = _difference(seen, other)
    return Comparison(
        first=one,
        second=two,
        runs=len(slow),
        first_milliseconds=round(median(slow), 2),
        second_milliseconds=round(median(fast), 2),
        speed_ratio=round(median(slow) / median(fast), 3),
        agreement=agreement,
        difference=difference,
        note=note,
    )


def _in_turns(first: Ready, second: Ready, upload: Upload) -> tuple[list[float], list[float]]:
    pairs = [(one.predictor, one.predictor.preprocess(upload.image)) for one in (first, second)]
    times: tuple[list[float], list[float]] = ([], [])
    begin = perf_counter()
    while len(times[0]) < RUNS and (not times[0] or perf_counter() - begin < LONGEST_SECONDS):
        for (predictor, tensor), measured in zip(pairs, times, strict=True):
            start = perf_counter()
            predictor.run(tensor)
            measured.append(1000 * (perf_counter() - start))
    return times


def _difference(first: Result, second: Result) -> tuple[float | None, str | None, str]:
    if isinstance(first, SegmentationMask) and isinstance(second, SegmentationMask):
        if first.classes != second.classes:
            return None, None, "The two name different classes, so pixels cannot be compared."
        agreement, picture = difference_of(first.mask, second.mask)
        return round(agreement, 6), picture, ""
    if isinstance(first, Classification) and isinstance(second, Classification):
        theirs = dict(zip(second.labels, second.scores, strict=True))
        pairs = zip(first.labels, first.scores, strict=True)
        common = sum(min(score, theirs.get(label, 0.0)) for label, score in pairs)
        return round(common, 6), None, "A difference map is for segmentation."
    return None, None, "A difference map is for two segmentations with the same classes."
