"""Model files for the programs of `native/tests`."""

import numpy as np
import pytest

from deploy.lively import lively
from espnetv2.deploy.fold import fold
from espnetv2.deploy.outputs import with_decoding
from espnetv2.deploy.to_native import content_of
from espnetv2.models.catalog import entry

SMALL = {"espnetv2_s0_5": {"num_classes": 5}}
CLASS_MAPS = ("espnetv2_seg_s0_5",)
HALF = "espnetv2_s0_5"
"""Also as files that compute in bfloat16 and int8, by the names `half` and `bytes`."""


@pytest.fixture(scope="session")
def networks():
    """The networks of the files, by name."""
    names = ("espnetv2_s0_5", *CLASS_MAPS, "espnetv2_ssd300_s0_5")
    names += ("espnet_p2_q3", "shufflenetv1_g3_x0_25")
    return {name: lively(entry(name).build(**SMALL.get(name, {}))) for name in names}


@pytest.fixture(scope="session")
def files(networks, tmp_path_factory):
    """Paths of their files, by name."""
    folder = tmp_path_factory.mktemp("models")
    found = {}
    for name, network in networks.items():
        folded = fold(network)
        if name in CLASS_MAPS:
            folded = with_decoding(folded, task="segmentation", size=None)
        found[name] = folder / f"{name}.espnetv2"
        found[name].write_bytes(content_of(folded, notes={"model": name}))
    seen = [np.random.default_rng(0).normal(size=(1, 3, 64, 96)).astype("float32")]
    for name, precision in [("half", "bf16"), ("bytes", "int8")]:
        content = content_of(
            fold(networks[HALF]), precision=precision, notes={"model": HALF}, calibration=seen
        )
        found[name] = folder / f"{name}.espnetv2"
        found[name].write_bytes(content)
    return found
