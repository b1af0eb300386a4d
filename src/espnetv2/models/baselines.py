"""The networks that the papers compare with, from torchvision, timm and pytorchcv.

All are untrained and nothing is ever downloaded. Importing this does not import torch.

Not to be had: DeepLab v2 (v3 is here) and CondenseNet before pruning. ShuffleNet v1 and ESPNet v1
are networks of our own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from espnetv2.extras import require

if TYPE_CHECKING:
    from torch import nn

EXTRA = "baselines"
"""The extra with timm and pytorchcv."""

CONDENSENET_NOTE = "pytorchcv; as after pruning, which channels feed which group is not learned"


@dataclass(frozen=True)
class Baseline:
    """One row of the table.

    Attributes:
        build: Makes the untrained network from `num_classes` and `in_channels`, keyword-only; it
            returns logits (B, classes), or (B, classes, H, W) at the image's size.
        num_classes: What it usually has.
        input_size: (height, width) at which the papers count its multiply-adds.
        extra: The extra that must be installed, if any.
        note: Where it comes from and how it differs from the network of its paper.
    """

    task: Literal["classification", "segmentation"]
    build: Callable[..., nn.Module]
    num_classes: int
    input_size: tuple[int, int]
    extra: str | None
    note: str


def mobilenet_v2(*, width: float, num_classes: int, in_channels: int = 3) -> nn.Module:
    """MobileNetV2 of any width."""
    import torchvision

    network: nn.Module = torchvision.models.mobilenet_v2(width_mult=width, num_classes=num_classes)
    return _with_channels(network, in_channels)


def from_torchvision(*, name: str, num_classes: int, in_channels: int = 3) -> nn.Module:
    """A classifier by torchvision's name."""
    import torchvision

    network = torchvision.models.get_model(name, weights=None, num_classes=num_classes)
    return _with_channels(network, in_channels)


def from_timm(*, name: str, num_classes: int, in_channels: int = 3) -> nn.Module:
    """A classifier by timm's name."""
    timm = require("timm", extra=EXTRA)
    network: nn.Module = timm.create_model(name, num_classes=num_classes, in_chans=in_channels)
    return network


def from_pytorchcv(*, name: str, num_classes: int, in_channels: int = 3) -> nn.Module:
    """A classifier by pytorchcv's name; its last pooling, made for one size, pools over all."""
    from torch import nn

    network: nn.Module = _pytorchcv(name)(num_classes=num_classes, in_channels=in_channels)
    pools = [key for key, layer in network.named_modules() if isinstance(layer, nn.AvgPool2d)]
    network.set_submodule(pools[-1], nn.AdaptiveAvgPool2d(1))
    return network


def condensenet74(*, groups: int, num_classes: int, in_channels: int = 3) -> nn.Module:
    """CondenseNet-74 as it is after pruning, with plain channel choices for the learned ones.

    pytorchcv leaves every choice at channel 0 until weights are loaded, so that nothing would pass.
    Here the grouped convolutions take all channels in order, and the classifier every second one.
    Its code wraps them in `Variable`, which does nothing any more but stops `torch.compile`.
    """
    import torch

    require("pytorchcv", extra=EXTRA)
    import_module("pytorchcv.models.condensenet").Variable = lambda index: index  # type: ignore[attr-defined]
    network = from_pytorchcv(
        name=f"condensenet74_c{groups}_g{groups}", num_classes=num_classes, in_channels=in_channels
    )
    for key, choice in network.named_buffers():
        if key.endswith("index"):
            step = 2 if key.startswith("output") else 1
            choice.copy_(torch.arange(len(choice), device=choice.device) * step)
    return network


def segmenter_from_torchvision(*, name: str, num_classes: int, in_channels: int = 3) -> nn.Module:
    """A segmenter by torchvision's name."""
    import torchvision

    from espnetv2.models.any_size import AnySize

    network = torchvision.models.get_model(
        name, weights=None, weights_backbone=None, num_classes=num_classes, aux_loss=False
    )
    return AnySize(_with_channels(network, in_channels))


def segmenter_from_pytorchcv(
    *, name: str, multiple: int, num_classes: int, in_channels: int = 3
) -> nn.Module:
    """A segmenter by pytorchcv's name, which needs sizes that are multiples of `multiple`."""
    from espnetv2.models.any_size import AnySize

    network = _pytorchcv(name)(
        num_classes=num_classes, in_channels=in_channels, aux=False, fixed_size=False
    )
    return AnySize(_with_channels(network, in_channels), multiple=multiple)


def fcn8s(*, num_classes: int, in_channels: int = 3) -> nn.Module:
    """FCN-8s on VGG-16."""
    from espnetv2.models.fcn8s import FCN8s

    return FCN8s(num_classes=num_classes, in_channels=in_channels)


def _pytorchcv(name: str) -> Callable[..., Any]:
    require("pytorchcv", extra=EXTRA)
    from pytorchcv.model_provider import get_model

    return partial(get_model, name)


def _with_channels(network: nn.Module, in_channels: int) -> nn.Module:
    """Let every convolution that reads three maps, that is the image, read `in_channels`."""
    from torch import nn

    from espnetv2.layers.conv import conv

    if in_channels == 3:
        return network
    for key, layer in list(network.named_modules()):
        if isinstance(layer, nn.Conv2d) and layer.in_channels == 3:
            first = conv(
                in_channels,
                layer.out_channels,
                layer.kernel_size[0],
                stride=layer.stride[0],
                bias=layer.bias is not None,
            )
            nn.init.kaiming_normal_(first.weight, mode="fan_out")
            network.set_submodule(key, first)
    return network


def _classifier(
    build: Callable[..., nn.Module], note: str, *, size: int = 224, extra: str | None = None
) -> Baseline:
    return Baseline("classification", build, 1000, (size, size), extra, note)


def _segmenter(build: Callable[..., nn.Module], note: str, *, extra: str | None = None) -> Baseline:
    return Baseline("segmentation", build, 20, (224, 224), extra, note)


def _cv(name: str, note: str, *, size: int = 224) -> Baseline:
    return _classifier(partial(from_pytorchcv, name=name), note, size=size, extra=EXTRA)


def _cv_segmenter(name: str, note: str, *, multiple: int) -> Baseline:
    build = partial(segmenter_from_pytorchcv, name=name, multiple=multiple)
    return _segmenter(build, note, extra=EXTRA)


BASELINES: dict[str, Baseline] = {
    "mobilenet_v1_x0_25": _cv("mobilenet_wd4", "pytorchcv"),
    "mobilenet_v1_x0_5": _cv("mobilenet_wd2", "pytorchcv"),
    "mobilenet_v1_x0_75": _cv("mobilenet_w3d4", "pytorchcv"),
    "mobilenet_v1_x1_0": _cv("mobilenet_w1", "pytorchcv"),
    "mobilenet_v2_x0_35": _classifier(partial(mobilenet_v2, width=0.35), "torchvision"),
    "mobilenet_v2_x0_5": _classifier(partial(mobilenet_v2, width=0.5), "torchvision"),
    "mobilenet_v2_x0_75": _classifier(partial(mobilenet_v2, width=0.75), "torchvision"),
    "mobilenet_v2_x1_0": _classifier(partial(mobilenet_v2, width=1.0), "torchvision"),
    "mobilenet_v2_x1_4": _classifier(partial(mobilenet_v2, width=1.4), "torchvision"),
    **{
        name: _classifier(partial(from_torchvision, name=name), "torchvision")
        for name in (
            "shufflenet_v2_x0_5",
            "shufflenet_v2_x1_0",
            "shufflenet_v2_x1_5",
            "shufflenet_v2_x2_0",
            "densenet121",
            "densenet169",
        )
    },
    "igcv3_x0_25": _cv("igcv3_wd4", "pytorchcv"),
    "igcv3_x0_5": _cv("igcv3_wd2", "pytorchcv"),
    "igcv3_x0_75": _cv("igcv3_w3d4", "pytorchcv"),
    "igcv3_x1_0": _cv("igcv3_w1", "pytorchcv"),
    "condensenet74_g4": _classifier(
        partial(condensenet74, groups=4), CONDENSENET_NOTE, extra=EXTRA
    ),
    "condensenet74_g8": _classifier(
        partial(condensenet74, groups=8), CONDENSENET_NOTE, extra=EXTRA
    ),
    "xception": _cv("xception", "pytorchcv", size=299),
    "efficientnet_lite0": _classifier(
        partial(from_timm, name="efficientnet_lite0"), "timm", extra=EXTRA
    ),
    "enet": _cv_segmenter("enet_cityscapes", "pytorchcv", multiple=8),
    "erfnet": _cv_segmenter("erfnet_cityscapes", "pytorchcv", multiple=8),
    "segnet": _cv_segmenter("segnet_cityscapes", "pytorchcv", multiple=32),
    "sqnet": _cv_segmenter("sqnet_cityscapes", "pytorchcv", multiple=16),
    "icnet": _cv_segmenter(
        "icnet_resnetd50b_cityscapes", "pytorchcv; on ResNet-50, not pruned", multiple=32
    ),
    "pspnet": _cv_segmenter(
        "pspnet_resnetd101b_cityscapes",
        "pytorchcv; on ResNet-101, without the auxiliary head",
        multiple=8,
    ),
    "fcn8s": _segmenter(fcn8s, "torchvision's VGG-16, decoder ours"),
    "fcn_resnet50": _segmenter(
        partial(segmenter_from_torchvision, name="fcn_resnet50"),
        "torchvision; dilated to stride 8, without skips: not the FCN-8s of the papers",
    ),
    "deeplab_v3_resnet101": _segmenter(
        partial(segmenter_from_torchvision, name="deeplabv3_resnet101"),
        "torchvision; the papers compare with v2, which no library has",
    ),
    "deeplab_v3_mobilenet_v3": _segmenter(
        partial(segmenter_from_torchvision, name="deeplabv3_mobilenet_v3_large"),
        "torchvision; stride 16",
    ),
}
