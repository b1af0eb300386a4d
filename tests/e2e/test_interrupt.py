"""Ctrl-C while predicting leaves whole files only."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image


def listens_to_ctrl_c():
    """A shell may have told its background jobs to ignore it; a terminal's programs never do."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.data
def test_ctrl_c_leaves_no_half_file(shared, tmp_path):
    clip = shared / "data" / "video" / "car_768x432.mp4"
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(60):
        Image.effect_noise((640, 480), 60).convert("RGB").save(pictures / f"{number}.png")
    out = tmp_path / "out"
    words = ["predict", "espnetv2_seg_s0_5.edgenets_voc_256", str(pictures), str(clip)]
    process = subprocess.Popen(
        [sys.executable, "-m", "espnetv2", *words, "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "ESPNETV2_WEIGHTS": str(shared / "weights"), "OMP_NUM_THREADS": "1"},
        preexec_fn=listens_to_ctrl_c,
        start_new_session=True,
    )
    while not list(out.glob("*.png")) and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    written = sorted(out.iterdir())
    assert written, "nothing was done before the end"
    assert len(written) < 180, "it was over before Ctrl-C"
    for path in written:
        assert ".part" not in path.name
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix != ".mp4":
            Image.open(path).load()
