"""Networks of this package as programs of the native engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import nn

from espnetv2.deploy.native_int8 import Bytes
from espnetv2.deploy.native_layers import (
    conv_norm_act,
    eesp,
    esp,
    gated_skip,
    halves,
    pooling_pyramid,
    pyramid_pool,
    shuffle_unit,
    strided,
)
from espnetv2.deploy.native_steps import IMAGE, Writer, relu, slopes_of
from espnetv2.deploy.outputs import PER_CLASS, Boxes, Mask, Probabilities
from espnetv2.errors import UserError
from espnetv2.models.espnet import ESPNet, ESPNetC
from espnetv2.models.espnetv2 import ESPNetv2, ESPNetv2Backbone
from espnetv2.models.espnetv2_seg import ESPNetv2Seg
from espnetv2.models.espnetv2_seg_arxiv import ESPNetv2SegArxiv
from espnetv2.models.espnetv2_ssd import SSD
from espnetv2.models.shufflenetv1 import ShuffleNetV1


def write(network: nn.Module, ranges: Mapping[nn.Module, Bytes] | None = None) -> Writer:
    """The program of a network.

    Args:
        network: In the deploy form; its task's decoding may be around it (`deploy.outputs`).
        ranges: Of the layers to compute in bytes.

    Raises:
        UserError: It is not of this package, or has a part that the engine lacks.
    """
    inner: Any = undecoded(network)
    rule = _NETWORKS.get(type(inner))
    if rule is None:
        raise UserError(
            f"the native engine has no {type(inner).__name__}; it runs "
            + ", ".join(kind.__name__ for kind in _NETWORKS)
        )
    with torch.no_grad():
        writer = Writer(next(inner.parameters()).shape[1], ranges)
        _give(writer, network, inner, rule(writer, inner))
    return writer


def undecoded(network: nn.Module) -> nn.Module:
    """The network within its task's decoding."""
    around = isinstance(network, Probabilities | Mask | Boxes)
    return network.network if around else network  # type: ignore[return-value]


def _give(w: Writer, network: nn.Module, inner: nn.Module, made: list[str]) -> None:
    if isinstance(network, Boxes) and isinstance(inner, SSD):
        w.output(
            "boxes",
            made,
            "boxes",
            values=inner.num_classes,
            smallest=inner.smallest_prior,
            score_threshold=network.score_threshold,
            overlap=network.iou_threshold,
            per_class=PER_CLASS,
            most=network.max_detections,
        )
    elif isinstance(network, Mask):
        w.output("mask", made, "classes")
    elif isinstance(network, Probabilities):
        w.output("probabilities", made, "probabilities", multi_label=network.multi_label)
    elif isinstance(inner, SSD):
        half = len(made) // 2
        w.output("scores", made[:half], "places", values=inner.num_classes)
        w.output("offsets", made[half:], "places", values=4)
    elif isinstance(inner, ESPNetv2 | ShuffleNetV1):
        w.output("logits", made, "vector")
    else:
        enlarged = isinstance(inner, ESPNetv2Seg | ESPNetv2SegArxiv)
        w.output("logits", made, "map", enlarged=enlarged)


def runs(network: nn.Module) -> bool:
    """Whether the engine has such a network, and its backbone."""
    backbone = getattr(network, "backbone", None)
    own = not isinstance(network, ESPNetv2Seg | ESPNetv2SegArxiv | SSD)
    return type(network) in _NETWORKS and (own or type(backbone) is ESPNetv2Backbone)


# ---- networks: each gives its last map; a detector those of scores, then those of offsets ------


def _classifier(w: Writer, network: Any) -> list[str]:
    return _vector(w, _backbone(w, network.backbone)[-1], network.classifier)


def _shufflenet(w: Writer, network: Any) -> list[str]:
    backbone = network.backbone
    x = w.conv(IMAGE, backbone.stem.conv, act=relu(backbone.channels[0]))
    x = w.simple("maximum", x)
    before = backbone.channels[1]
    for stage, channels in zip(backbone.stages, backbone.channels[2:], strict=True):
        for unit in stage:
            x = shuffle_unit(w, x, unit, before, channels)
            before = channels
    return _vector(w, x, network.classifier)


def _vector(w: Writer, x: str, classifier: nn.Module) -> list[str]:
    means = w.simple("mean", x)
    if isinstance(classifier, nn.Linear):
        conv = nn.Conv2d(classifier.in_features, classifier.out_features, 1)
        conv.weight = nn.Parameter(classifier.weight[:, :, None, None])
        conv.bias = classifier.bias
        if classifier in w.ranges:
            w.ranges[conv] = w.ranges[classifier]
        means = w.conv(means, conv)
    return [means]


def _segmenter(w: Writer, network: Any) -> list[str]:
    *fine, x = _backbone(w, network.backbone)[:4]
    for pyramid, skip, norm in zip(network.pyramids, network.skips, network.norms, strict=False):
        finer = fine.pop()
        body, gate = gated_skip(w, finer, skip)
        coarse = w.resize(pyramid_pool(w, x, pyramid, lanes_of=body), like=finer)
        x = w.combine(body, gate=gate, other=coarse, norm=norm.norm, act=norm.act)
    return [pyramid_pool(w, x, network.pyramids[-1])]


def _segmenter_arxiv(w: Writer, network: Any) -> list[str]:
    stem, quarter, eighth, sixteenth = _backbone(w, network.backbone)[:4]
    coarse = w.resize(conv_norm_act(w, sixteenth, network.project_16), like=eighth)
    x = eesp(w, w.simple("concat", eighth, coarse), network.unit)
    x = pooling_pyramid(w, x, network.pyramid)
    x = w.conv(x, network.classify_8[-1], act=network.norm_8.act)
    x = w.simple("concat", quarter, w.resize(x, like=quarter))
    x = conv_norm_act(w, x, network.classify_4)
    x = w.simple("concat", stem, w.resize(x, like=stem))
    return [w.conv(x, network.classify_2[-1])]


def _detector(w: Writer, network: Any) -> list[str]:
    maps = _backbone(w, network.backbone)[-3:]
    for extra in (network.extras[0], network.extras[1]):
        maps.append(conv_norm_act(w, conv_norm_act(w, maps[-1], extra[0]), extra[1]))
    whole = network.extras[2][1]
    maps.append(w.conv(w.simple("mean", maps[-1]), whole, act=relu(whole.out_channels)))
    for step, pool in enumerate(network.pyramid):
        level = 3 - step
        coarse = w.resize(maps[level + 1], like=maps[level])
        maps[level] = pyramid_pool(w, w.simple("concat", coarse, maps[level]), pool)
    scores = [w.conv(x, head.scores) for x, head in zip(maps, network.heads, strict=True)]
    offsets = [w.conv(x, head.offsets) for x, head in zip(maps, network.heads, strict=True)]
    return scores + offsets


def _espnet_c(w: Writer, network: Any) -> list[str]:
    return [w.conv(_espnet_backbone(w, network.backbone)[-1], network.classify)]


def _espnet(w: Writer, network: Any) -> list[str]:
    fine, middle, coarse = _espnet_backbone(w, network.encoder.backbone)
    x = w.conv(coarse, network.encoder.classify)
    slopes = slopes_of(network.norm2.act)
    assert slopes is not None
    first, second = (halves(slopes, part) for part in (0, 1))
    doubled = w.enlarge(x, network.double3, like=middle, act=second)
    side = w.conv(middle, network.project2, act=first)
    x = esp(w, w.simple("concat", side, doubled), network.merge2)
    x = w.enlarge(x, network.double2, like=fine, act=network.norm1.act)
    x = conv_norm_act(w, w.simple("concat", x, fine), network.merge1)
    return [w.enlarge(x, network.double1, like=IMAGE)]


_NETWORKS: dict[type[nn.Module], Callable[[Writer, Any], list[str]]] = {
    ESPNetv2: _classifier,
    ESPNetv2Seg: _segmenter,
    ESPNetv2SegArxiv: _segmenter_arxiv,
    SSD: _detector,
    ESPNetC: _espnet_c,
    ESPNet: _espnet,
    ShuffleNetV1: _shufflenet,
}


# ---- backbones ------------------------------------------------------------------------------


def _backbone(w: Writer, backbone: Any) -> list[str]:
    if type(backbone) is not ESPNetv2Backbone:
        raise UserError(f"the native engine has no backbone {type(backbone).__name__}")
    stages = cast(Any, backbone.stages)
    # first all looks at the image, which are small; then what is large stays together
    shortcuts: list[str | None] = []
    shrunk = IMAGE
    for stage in stages:
        shortcuts.append(None)
        if stage.sees_image:
            for _ in range(2 if shrunk == IMAGE else 1):  # the first stage looks at a quarter
                shrunk = w.simple("shrink", shrunk)
            shortcuts[-1] = conv_norm_act(w, shrunk, stage.down.image[0])
    features = [conv_norm_act(w, IMAGE, backbone.stem)]
    for stage, shortcut in zip(stages, shortcuts, strict=True):
        features.append(strided(w, features[-1], stage.down, shortcut))
        for unit in stage.units:
            features[-1] = eesp(w, features[-1], unit)
    if backbone.final is not None:
        for part in backbone.final:
            features[-1] = conv_norm_act(w, features[-1], part)
    return features


def _espnet_backbone(w: Writer, backbone: Any) -> list[str]:
    stem = conv_norm_act(w, IMAGE, backbone.stem)
    half = w.halve(IMAGE, backbone.stem.conv.in_channels)
    joined = w.simple("concat", stem, half)
    with_image = w.combine(joined, norm=backbone.norm1.norm, act=backbone.norm1.act)
    first = last = esp(w, with_image, backbone.down2)
    for unit in backbone.level2:
        last = esp(w, last, unit)
    quarter = w.halve(half, backbone.stem.conv.in_channels)
    joined = w.simple("concat", last, first, quarter)
    middle = w.combine(joined, norm=backbone.norm2.norm, act=backbone.norm2.act)
    first = last = esp(w, middle, backbone.down3)
    for unit in backbone.level3:
        last = esp(w, last, unit)
    joined = w.simple("concat", first, last)
    coarse = w.combine(joined, norm=backbone.norm3.norm, act=backbone.norm3.act)
    return [stem if backbone.skip == "stem" else with_image, middle, coarse]
