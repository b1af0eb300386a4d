"""Registers the classifiers with timm: `import espnetv2.timm`, then `timm.create_model(...)`.

>>> import timm, espnetv2.timm
>>> timm.create_model("espnetv2_s1_0", features_only=True).feature_info.channels()
[32, 64, 128, 256, 1024]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from espnetv2.data.preprocess import CONVENTIONS
from espnetv2.errors import UserError, unknown
from espnetv2.extras import require
from espnetv2.models.backbone import Backbone
from espnetv2.models.catalog import entry, list_models
from espnetv2.weights.load import create_model
from espnetv2.weights.published import SHIPPED, Published, published_for

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


def _config(name: str, row: Published | None = None) -> dict[str, Any]:
    """What timm wants to know of a network, or of one with published weights."""
    spec = CONVENTIONS["imagenet" if row is None else row.convention]
    assert spec.resize == "pil"
    assert spec.size is not None
    size, source = spec.size, {}
    if row is not None:
        size = row.size or size
        source = {"file": str(SHIPPED / row.path)} if row.shipped else {"url": row.url}
        source["license"] = row.licence
    options = {} if row is None else row.options
    return {
        "input_size": (3, *size),
        "interpolation": "bilinear",
        "crop_pct": spec.crop_share,
        "mean": spec.mean,
        "std": spec.std,
        "num_classes": options.get("num_classes", entry(name).num_classes),
        "first_conv": "backbone.stem.conv",
        "classifier": "classifier",
        **source,
    }


def _entrypoint(name: str) -> Callable[..., nn.Module]:
    def build(
        pretrained: bool = False,
        *,
        num_classes: int | None = None,
        in_chans: int = 3,
        drop_rate: float | None = None,
        features_only: bool = False,
        out_indices: Sequence[int] | None = None,
        pretrained_cfg: str | None = None,
        pretrained_cfg_overlay: Any = None,
        cache_dir: Any = None,
    ) -> nn.Module:
        if pretrained_cfg_overlay or cache_dir:
            raise UserError(
                f"{name}: pretrained_cfg_overlay and cache_dir are timm's own; set ESPNETV2_CACHE"
            )
        names = [row.name for row in published_for(name)] or [name]
        weights = f"{name}.{pretrained_cfg}" if pretrained_cfg else names[0]
        if weights not in names:
            raise unknown("weights", weights, names)
        config = _timm_models.get_pretrained_cfg(weights).to_dict()
        network: Any = create_model(
            weights if pretrained else name,
            pretrained=pretrained,
            num_classes=config["num_classes"] if num_classes is None else num_classes,
            in_channels=in_chans,
            features_only=features_only,
        )
        if features_only:
            network = Features(network, out_indices=out_indices or range(len(network.channels)))
        else:
            network.num_features = network.backbone.channels[-1]
        if hasattr(network, "dropout") and drop_rate is not None:
            network.dropout = nn.Dropout(drop_rate)
        elif drop_rate:
            raise UserError(f"{name} has no dropout here; leave drop_rate={drop_rate:g} out")
        network.pretrained_cfg = network.default_cfg = config
        return network  # type: ignore[no-any-return]

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"`espnetv2.create_model({name!r})` under timm's argument names."
    return build


_NAMES = list_models(task="classification")
default_cfgs = _timm_models.generate_default_cfgs(
    {row.name: _config(row.model, row) for name in _NAMES for row in published_for(name)}
    | {name: _config(name) for name in _NAMES if not published_for(name)}
)
"""By name, then by weight tag, where `register_model` looks for them."""

for _name in _NAMES:
    _timm_models.register_model(_entrypoint(_name))
