"""Which network an official checkpoint belongs to, told by its own keys and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from espnetv2.errors import UserError
from espnetv2.models.espnetv2 import ABLATIONS, LAYOUTS
from espnetv2.weights import keys
from espnetv2.weights.keys import Family, strip_data_parallel

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Recognized:
    """What an official checkpoint is.

    Attributes:
        model: Name in the catalog.
        options: For the network's builder.
        family: Whose names the file uses.
        convention: Of preprocessing, a key of `data.preprocess.CONVENTIONS`.
        size: (height, width) of the input it was trained for; None for the picture's own.
        labels: Key of `data.catalog.LABELS`, None where the class count fits no known set.
    """

    model: str
    options: dict[str, Any]
    family: Family
    convention: str
    size: tuple[int, int] | None
    labels: str | None


def recognize(state: State, *, file_name: str = "") -> Recognized:
    """Tell network, width, classes and preprocessing.

    Args:
        state: As read from the official file.
        file_name: Only for what no tensor says: the training resolution, `1024x512`.

    Raises:
        UserError: No network of the three repositories has such keys.
    """
    state = strip_data_parallel(state)
    for sign, describe in _SIGNS:
        if sign in state:
            try:
                return describe(state, _size_in(file_name))
            except (IndexError, KeyError) as error:
                raise UserError(
                    "its tensors have other names or shapes than a network with a "
                    f"{sign} has; it is damaged, download or save it again"
                ) from error
    some = ", ".join(list(state)[:3])
    raise UserError(
        f"no ESPNet, ESPNetv2 or EdgeNets network has keys such as {some}; expected an official "
        "checkpoint of these repositories"
    )


def _classifier(state: State, size: tuple[int, int] | None) -> Recognized:
    classes = state["classifier.weight"].shape[0]
    return Recognized(
        model=f"espnetv2_{_width(state, '')}",
        options={"num_classes": classes},
        family=keys.CLASSIFIER,
        convention="imagenet",
        size=size or (224, 224),
        labels="imagenet" if classes == 1000 else None,
    )


def _edgenets_segmenter(state: State, size: tuple[int, int] | None) -> Recognized:
    classes = state["bu_dec_l4.merge_layer.3.weight"].shape[0]
    labels, default = {21: ("voc", (384, 384)), 20: ("cityscapes", (512, 1024))}.get(
        classes, (None, None)
    )
    return Recognized(
        model=f"espnetv2_seg_{_width(state, 'base_net.')}",
        options={
            "num_classes": classes,
            "base_width": state["bu_dec_l1.merge_layer.3.weight"].shape[0] // 4,
        },
        family=keys.EDGENETS_SEGMENTER,
        convention="edgenets-segmentation",
        size=size or default,
        labels=labels,
    )


def _arxiv_segmenter(state: State, size: tuple[int, int] | None) -> Recognized:
    classes = state["project_l1.1.conv.weight"].shape[0]
    return Recognized(
        model=f"espnetv2_seg_arxiv_{_width(state, 'net.')}",
        options={"num_classes": classes},
        family=keys.ARXIV_SEGMENTER,
        convention="espnet-cityscapes",
        size=size or (512, 1024),
        labels="cityscapes" if classes == 20 else None,
    )


def _detector(state: State, size: tuple[int, int] | None) -> Recognized:
    classes = state["cls_layers.0.weight"].shape[0] // 6
    side = size[0] if size else 300
    return Recognized(
        model=f"espnetv2_ssd{512 if side == 512 else 300}_{_width(state, 'base_net.basenet.')}",
        options={"num_classes": classes},
        family=keys.DETECTOR,
        convention="edgenets-detection",
        size=size or (300, 300),
        labels={21: "voc-detection", 81: "coco"}.get(classes),
    )


def _espnet_c(state: State, size: tuple[int, int] | None) -> Recognized:
    return _espnet_v1(state, size, model="espnet_c", prefix="", options={})


def _espnet(state: State, size: tuple[int, int] | None) -> Recognized:
    classes = state["classifier.weight"].shape[1]
    beside = state["conv.conv.weight"].shape[1] - classes
    skip = {16: "stem", 19: "stem+image"}.get(beside)
    if skip is None:
        raise UserError(f"conv.conv.weight has {beside} channels beside the classes, not 16 or 19")
    return _espnet_v1(state, size, model="espnet", prefix="encoder.", options={"skip": skip})


def _espnet_v1(
    state: State,
    size: tuple[int, int] | None,
    *,
    model: str,
    prefix: str,
    options: dict[str, Any],
) -> Recognized:
    classes = state[f"{prefix}classifier.conv.weight"].shape[0]
    p, q = (_count(state, rf"{prefix}level{level}\.(\d+)\.c1\.conv\.weight") for level in (2, 3))
    camvid = classes == 12
    return Recognized(
        model=f"{model}_p{p}_q{q}",
        options={"num_classes": classes, **options},
        family=keys.ESPNET,
        convention="espnet-camvid" if camvid else "espnet-cityscapes",
        size=size if camvid else size or (512, 1024),
        labels={12: "camvid", 20: "cityscapes"}.get(classes),
    )


_SIGNS = (
    # a key that only this network has
    ("base_net.basenet.level1.conv.weight", _detector),
    ("bu_dec_l4.merge_layer.3.weight", _edgenets_segmenter),
    ("project_l1.1.conv.weight", _arxiv_segmenter),
    ("level5.4.conv.weight", _classifier),
    ("up_l3.0.weight", _espnet),
    ("level3_0.d16.conv.weight", _espnet_c),
)


def _width(state: State, prefix: str) -> str:
    """The layout whose channels and kinds of convolution a backbone has."""

    def shape(key: str) -> tuple[int, ...]:
        if prefix + key not in state:
            raise UserError(f"{prefix}{key} is missing: the file is not complete")
        return tuple(state[prefix + key].shape)

    channels = [shape(f"{key}.weight")[0] for key in ("level1.act", "level2_0.act", "level4_0.act")]
    grouped = shape("level3_0.eesp.proj_1x1.conv.weight")[1] < channels[1]
    depthwise = shape("level3_0.eesp.spp_dw.0.conv.weight")[1] == 1
    shortcut = f"{prefix}level2_0.inp_reinf.0.conv.weight" in state
    for name, layout in {**LAYOUTS, **ABLATIONS}.items():
        if (
            [layout.channels[0], layout.channels[1], layout.channels[3]] == channels
            and layout.grouped_reduction == grouped
            and (layout.convolution != "dilated") == depthwise
            and layout.image_shortcut == shortcut
        ):
            return name
    raise UserError(f"no published width has {channels} channels at strides 2, 4 and 16")


def _count(state: State, pattern: str) -> int:
    return len({match.group(1) for key in state if (match := re.fullmatch(pattern, key))})


def _size_in(file_name: str) -> tuple[int, int] | None:
    """(height, width) from a name with `<width>x<height>`."""
    match = re.search(r"(\d{3,4})x(\d{3,4})", file_name)
    return (int(match.group(2)), int(match.group(1))) if match else None
