"""Registers the classifiers with timm: `import espnetv2.timm`, then `timm.create_model(...)`.

>>> import timm, espnetv2.timm
>>> timm.create_model("espnetv2_s1_0", features_only=True).feature_info.channels()
[32, 64, 128, 256, 1024]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from espnetv2.errors import UserError
from espnetv2.extras import require
from espnetv2.models.backbone import Backbone
from espnetv2.models.catalog import list_models
from espnetv2.weights.load import create_model

_timm_models = require("timm.models", extra="timm")

__all__: list[str] = []


class Features(nn.Module):
    """A backbone in the form that timm's users of `features_only=True` expect.

    Shape: (B, in_chans, H, W) -> the chosen stage outputs, finest first
    """

    def __init__(self, backbone: Backbone, *, out_indices: Sequence[int]) -> None:
        super().__init__()
        self.backbone = backbone
        self.out_indices = tuple(out_indices)
        rows = [
            {"num_chs": channels, "reduction": stride, "module": f"backbone.{i}"}
            for i, (channels, stride) in enumerate(
                zip(backbone.channels, backbone.strides, strict=True)
            )
        ]
        self.feature_info = _timm_models.FeatureInfo(rows, self.out_indices)

    def forward(self, image: Tensor) -> list[Tensor]:
        """See the class."""
        outputs = self.backbone(image)
        return [outputs[i] for i in self.out_indices]


def _entrypoint(name: str) -> Callable[..., nn.Module]:
    def build(
        pretrained: bool = False,
        *,
        num_classes: int | None = None,
        in_chans: int = 3,
        features_only: bool = False,
        out_indices: Sequence[int] | None = None,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: Any = None,
        cache_dir: Any = None,
    ) -> nn.Module:
        if pretrained_cfg_overlay or cache_dir:
            raise UserError(
                f"{name}: pretrained_cfg_overlay and cache_dir are timm's own; set ESPNETV2_CACHE"
            )
        network: Any = create_model(
            name,
            pretrained=pretrained,
            num_classes=num_classes,
            in_channels=in_chans,
            features_only=features_only,
        )
        if not features_only:
            return network  # type: ignore[no-any-return]
        return Features(network, out_indices=out_indices or range(len(network.channels)))

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"`espnetv2.create_model({name!r})` under timm's argument names."
    return build


for _name in list_models(task="classification"):
    _timm_models.register_model(_entrypoint(_name))
