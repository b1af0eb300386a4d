"""For `torch.hub.load(REPOSITORY, "espnetv2_s1_0", ...)`: every network by its name."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent / "src"))

from espnetv2.models.catalog import list_models
from espnetv2.weights.load import create_model, load_network

dependencies = ["torch", "torchvision", "numpy", "PIL", "safetensors"]


def _entrypoint(name):
    def build(pretrained=False, num_classes=None, in_channels=3):
        return create_model(
            name, pretrained=pretrained, num_classes=num_classes, in_channels=in_channels
        )

    build.__name__ = name
    build.__doc__ = f"The network {name} of the package espnetv2."
    return build


def official(name):
    """A published checkpoint by name and tag, such as `espnetv2_seg_s1_0.edgenets_voc_384`."""
    return load_network(name).network


globals().update({name: _entrypoint(name) for name in list_models()})
