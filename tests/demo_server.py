"""The demo as people start it: a process of its own, with runs, a temporary folder, an address."""

import contextlib
import csv
import http.client
import io
import json
import os
import re
import subprocess
import sys
import time
import urllib.parse
import uuid
from fractions import Fraction
from pathlib import Path

import torch
from PIL import Image

from espnetv2.data.catalog import LABELS
from espnetv2.data.preprocess import CONVENTIONS
from espnetv2.predict.video import VideoWriter
from espnetv2.weights.files import Header, write_safetensors
from espnetv2.weights.load import create_model

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "examples" / "pictures"
READY_SECONDS = 300  # of a machine that does other things at the same time


class Server:
    """A running server.

    Attributes:
        port: It listens at.
        temporary: Its folder for temporary files; empty when nothing is going on.
        up: Seconds until the first page was there.
        ready: Seconds until the first network was loaded.
        processor: Processor seconds that it had used by then.
    """

    def __init__(self, place, *words):
        self.temporary = place / "temporary"
        self.temporary.mkdir(parents=True)
        self.log = place / "log.txt"
        words = [sys.executable, "-m", "espnetv2", "demo", "--port", "0", "--threads", "2", *words]
        environment = {**os.environ, "TMPDIR": str(self.temporary), "OMP_NUM_THREADS": "1"}
        environment |= {"ESPNETV2_CACHE": str(place / "cache"), "ESPNETV2_WEIGHTS": ""}
        environment |= {"TORCHINDUCTOR_CACHE_DIR": str(place / "inductor")}  # torch's own habit
        start = time.perf_counter()
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                words, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
            )
        line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
        assert found, line + self.log.read_text()
        self.port = int(found[1])
        self.get("/")
        self.up = time.perf_counter() - start
        while not self.get("/health")[1]["ready"]:
            assert time.perf_counter() - start < READY_SECONDS
            time.sleep(0.1)
        self.ready = time.perf_counter() - start
        self.processor = processor_seconds(self.process.pid)

    @property
    def address(self):
        return f"http://127.0.0.1:{self.port}"

    def request(self, method, path, body=None, headers=None, *, host=None):
        """(status, headers, content)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        with contextlib.closing(connection):
            headers = {"Host": host or f"127.0.0.1:{self.port}", **(headers or {})}
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()

    def get(self, path, **options):
        """(status, JSON or bytes)."""
        status, headers, content = self.request("GET", path, **options)
        return status, told(headers, content)

    def post(self, path, content, name="picture.jpg", headers=None, **fields):
        """Send a form with a file; (status, JSON)."""
        body, kind = form(content, name, fields)
        status, told_headers, answer = self.request(
            "POST", path, body, {"Content-Type": kind, **(headers or {})}
        )
        return status, told(told_headers, answer)

    def left(self):
        """Names in the temporary folder."""
        return sorted(entry.name for entry in self.temporary.iterdir())

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=120)
        self.process.stdout.close()


@contextlib.contextmanager
def serving(place):
    """A server with runs of our own; nothing of it may be left, and nothing may have failed."""
    write_runs(place / "runs")
    running = Server(place, "--runs", str(place / "runs"))
    yield running
    running.stop()
    assert running.left() == []
    assert "Traceback" not in running.log.read_text()


def processor_seconds(process):
    """Of a process and its threads, so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def told(headers, content):
    kind = headers.get("content-type", "")
    return json.loads(content) if kind.startswith("application/json") else content


def form(content, name, fields):
    mark = uuid.uuid4().hex
    parts = [
        f'--{mark}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in fields.items()
    ]
    quoted = urllib.parse.quote(name, safe=" <>/.=()'") if '"' in name else name
    parts.append(
        f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="{quoted}"\r\n'
        f"Content-Type: image/jpeg\r\n\r\n".encode()
        + content
        + b"\r\n"
    )
    return b"".join(parts) + f"--{mark}--\r\n".encode(), f"multipart/form-data; boundary={mark}"


def picture(width=480, height=360, kind="JPEG", source="cat.jpg"):
    """A real picture of some size, as a file's bytes."""
    buffer = io.BytesIO()
    with Image.open(PICTURES / source) as image:
        image.convert("RGB").resize((width, height)).save(buffer, kind)
    return buffer.getvalue()


def write_run(folder, model, labels, size, convention, **options):
    """What `espnetv2 train` leaves, with a network that nobody has trained."""
    torch.manual_seed(0)
    network = create_model(model, **options)
    if "ssd" in model:
        see_something(network, options["num_classes"])
    known = LABELS[labels]
    header = Header(
        model=model,
        options=options,
        classes=known.classes[: options["num_classes"]],
        palette=known.palette and known.palette[: options["num_classes"]],
        preprocessing=CONVENTIONS[convention].resized(size).to_json(),
    )
    write_safetensors(network.state_dict(), header, folder / "model.safetensors")
    summary = {"model": model, "task": "segmentation", "data": labels, "metrics": {"miou": 12.5}}
    (folder / "summary.json").write_text(json.dumps(summary))
    with (folder / "history.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["epoch", "loss", "val_loss"], [0, 2.5, 2.75], [1, 2.0, ""]])


def see_something(detector, num_classes):
    """Background everywhere but in the coarsest map, where class 7 is seen."""
    with torch.no_grad():
        for head in detector.heads:
            last = head is detector.heads[-1]
            head.scores.bias.view(-1, num_classes)[:, 7 if last else 0] = 6.0


def write_runs(folder):
    """A wider segmenter and a detector."""
    write_run(
        folder / "wide", "espnetv2_seg_s1_0", "camvid", (192, 256), "edgenets-segmentation",
        num_classes=11,
    )  # fmt: skip
    write_run(
        folder / "boxes", "espnetv2_ssd300_s0_5", "voc-detection", (300, 300),
        "edgenets-detection", num_classes=21,
    )  # fmt: skip


def write_clip(path, frames=12):
    """A walk over a real picture."""
    with Image.open(PICTURES / "astronaut.jpg") as image:
        wide = image.convert("RGB").resize((400, 400))
    with VideoWriter(path, rate=Fraction(12)) as writer:
        for step in range(frames):
            writer.write(wide.crop((8 * step, 60, 8 * step + 240, 240)))
