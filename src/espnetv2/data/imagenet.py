"""ImageNet's 1000 classes: names by index, and the index of a WordNet id.

The names come from torchvision's weights, the ids beyond a handful from timm; both are imported
only when asked for, so that this file stays light.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from espnetv2.extras import require

IMAGENETTE = {
    "n01440764": 0,
    "n02102040": 217,
    "n02979186": 482,
    "n03000684": 491,
    "n03028079": 497,
    "n03394916": 566,
    "n03417042": 569,
    "n03425413": 571,
    "n03445777": 574,
    "n03888257": 701,
}
"""Index by WordNet id of the ten classes of imagenette."""


@cache
def classes() -> tuple[str, ...]:
    """The 1000 names by index."""
    from torchvision.models import MobileNet_V2_Weights

    return tuple(MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"])


def is_wordnet_id(name: str) -> bool:
    """Whether a folder's name looks like "n01440764".

    >>> is_wordnet_id("n01440764"), is_wordnet_id("tench")
    (True, False)
    """
    return re.fullmatch(r"n\d{8}", name) is not None


def indices(wordnet_ids: Sequence[str]) -> list[int | None]:
    """The class index of each WordNet id; None for one that is not among the 1000.

    A complete set of 1000 needs no table, since the indices follow the order of the ids; nor
    does imagenette. Any other subset asks timm.

    Raises:
        UserError: timm is needed but not installed.
    """
    if len(set(wordnet_ids)) == 1000:
        order = {name: index for index, name in enumerate(sorted(wordnet_ids))}
    elif set(wordnet_ids) <= set(IMAGENETTE):
        order = IMAGENETTE
    else:
        info = require("timm.data", extra="timm").ImageNetInfo("imagenet-1k")
        order = {name: index for index, name in enumerate(info.label_names())}
    return [order.get(name) for name in wordnet_ids]
