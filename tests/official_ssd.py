"""The official SSD300: its stored outputs, and ours with the same deterministic weights."""

import functools

import numpy as np
import torch

from crcfill import crcfill, read_shapes
from espnetv2.models.espnetv2_ssd import espnetv2_ssd
from espnetv2.weights.keys import DETECTOR, to_ours

IMAGENET_MEAN = np.float32([0.485, 0.456, 0.406]) * 255
IMAGENET_STD = np.float32([0.229, 0.224, 0.225]) * 255


@functools.cache
def official_ssd300(shared):
    """The stored arrays, and our outputs for the stored picture."""
    stored = np.load(shared / "parity" / "espnetv2_ssd300_voc_s_2.0_crcfill.npz")
    with torch.no_grad():
        return stored, filled_ssd(shared)(picture(stored))


@functools.cache
def filled_ssd(shared):
    """Our network with the weights that the official one had."""
    shapes = read_shapes(shared / "facts" / "keys" / "det_ssd300_voc_s_2.0.tsv")
    state = {key: torch.from_numpy(crcfill(key, shape)) for key, shape in shapes.items()}
    network = espnetv2_ssd("s2_0").eval()
    network.load_state_dict(to_ours(state, DETECTOR))
    return network


def picture(stored):
    """The network input of the stored picture."""
    rgb = stored["input_rgb_uint8"].astype(np.float32)
    return torch.from_numpy((rgb - IMAGENET_MEAN) / IMAGENET_STD).permute(2, 0, 1)[None]
