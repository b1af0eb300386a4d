"""Uploads and requests that mean harm: refused clearly, and nothing stays behind."""

import io
import json
import struct
import zlib

import pytest
from PIL import Image

import demo_server


def chunk(kind, content):
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def bomb():
    """A PNG of a few kilobytes that would be 2.5 thousand million pixels."""
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(5_000_000), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


HOSTILE = {
    "bomb": (bomb(), "limit of"),
    "text": (b"I am no picture at all, only words", "not a picture"),
    "empty": (b"", "empty"),
    "page": (b"<html><script>alert(1)</script></html>", "not a picture"),
    "drawing": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
    "cut short": (demo_server.picture()[:3000], "damaged"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_picture_is_refused_in_one_line(server, name):
    content, reason = HOSTILE[name]
    status, answer = server.post("/predict", content, "harmless.jpg")
    assert status == 422
    assert reason in answer["error"]
    assert "\n" not in answer["error"]
    assert str(server.temporary) not in answer["error"]
    assert server.left() == []


@pytest.mark.parametrize("path", ["/predict", "/compare", "/inside", "/clips"])
def test_100_megabytes_and_more_are_refused_before_they_are_read(server, path):
    size = 250_000_000 if path == "/clips" else 100_000_000
    status, answer = server.post(path, bytes(size), "large.jpg")
    assert status == 413
    assert "larger than" in answer["error"]
    assert server.left() == []


def test_body_without_a_length_is_cut_off_where_the_limit_is(server):
    def pieces():
        head, _ = demo_server.form(b"", "x.jpg", {})
        yield head.partition(b"--\r\n")[0][:-4]
        for _ in range(30):
            yield bytes(1_000_000)

    body, kind = demo_server.form(b"@", "x.jpg", {})
    before, _, after = body.partition(b"@")
    status, _, answer = server.request(
        "POST", "/predict", iter([before, *[bytes(1_000_000)] * 30, after]), {"Content-Type": kind}
    )
    assert status == 413
    assert "larger than" in json.loads(answer)["error"]
    assert server.left() == []


@pytest.mark.parametrize(
    "name",
    [
        "../../../../etc/passwd",
        "/etc/cron.d/evil.jpg",
        "..\\..\\evil.jpg",
        "<script>alert(1)</script>.jpg",
        "a\x01b.jpg",
        "x" * 3000 + ".jpg",
    ],
)
def test_names_of_files_are_never_used(server, name):
    status, answer = server.post("/predict", demo_server.picture(), name)
    assert status == 200
    assert "evil" not in json.dumps(answer)
    assert "script" not in json.dumps(answer)
    status, answer = server.post("/predict", b"words", name)
    assert status == 422
    assert "script" not in answer["error"]
    assert server.left() == []


@pytest.mark.parametrize(
    "content",
    [
        b"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"\x00\x00\x00\x18ftypmp42" + bytes(64),
        b"\x1aE\xdf\xa3" + bytes(200),
        demo_server.picture(),
    ],
    ids=["playlist", "concat", "mp4", "webm", "picture"],
)
def test_what_is_no_video_is_refused(server, content):
    """A list of other files is not even given to the decoders."""
    status, answer = server.post("/clips", content, "clip.mp4")
    assert status == 422, answer
    container = content[4:8] == b"ftyp" or content.startswith(b"\x1aE")
    expected = "your file is damaged" if container else "your file is not a video"
    assert expected in answer["error"]
    assert server.left() == []


def test_clip_that_breaks_off_ends_in_a_clear_state_or_in_its_frames(server, tmp_path):
    demo_server.write_clip(tmp_path / "clip.mp4", frames=40)
    content = (tmp_path / "clip.mp4").read_bytes()
    middle = len(content) // 2
    broken = content[:middle] + bytes(200) + content[middle + 200 :]
    status, clip = server.post("/clips", broken, "clip.mp4")
    assert status in (202, 422)
    while status == 202 and clip["state"] in ("waiting", "working"):
        clip = server.get(f"/clips/{clip['id']}")[1]
    if status == 202:
        assert clip["state"] == "done" or clip["error"]
        server.request("DELETE", f"/clips/{clip['id']}")
    assert server.left() == []


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e%2f%2e%2e%2f__init__.py",
        "/static//etc/passwd",
        "/static/..\\app.py",
        "/../app.py",
        "/static/",
        "/clips/../health",
        "/clips/%2e%2e%2f%2e%2e/video",
    ],
)
def test_nothing_outside_of_the_page_can_be_read(server, path):
    status, content = server.get(path)
    assert status == 404
    assert b"import" not in (
        content if isinstance(content, bytes) else json.dumps(content).encode()
    )


def test_network_is_a_name_and_never_a_path(server):
    run = server.temporary.parent / "runs" / "wide" / "model.safetensors"
    for name in (str(run), "../wide", "run:../wide", "run:/etc", "/etc/passwd"):
        status, answer = server.post("/predict", demo_server.picture(), network=name)
        assert status == 422
        assert "unknown network" in answer["error"]


def test_other_sites_are_not_served(server):
    assert server.get("/health", host="evil.example")[0] == 403
    assert server.get("/health", host=f"localhost:{server.port}")[0] == 200
    strange = {"Origin": "http://evil.example"}
    assert server.post("/predict", demo_server.picture(), headers=strange)[0] == 403
    own = {"Origin": server.address}
    assert server.post("/predict", demo_server.picture(), headers=own)[0] == 200


def test_page_loads_nothing_from_elsewhere(server):
    status, headers, page = server.request("GET", "/")
    assert status == 200
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert b"http://" not in page
    assert b"https://" not in page
    assert server.get("/docs")[0] == 404


def test_words_that_do_not_fit_are_one_line(server):
    for fields, expected in (
        ({"engine": "steam"}, "unknown engine"),
        ({"precision": "fp3"}, "unknown precision"),
        ({"mask": "perhaps"}, "mask"),
        ({"ticket": "t" * 100}, "ticket"),
    ):
        status, answer = server.post("/predict", demo_server.picture(), **fields)
        assert status == 422
        assert expected in answer["error"]


def test_formats_of_all_kinds_are_taken_by_content(server):
    for kind in ("PNG", "WEBP", "TIFF", "BMP", "GIF"):
        content = demo_server.picture(kind=kind)
        status, answer = server.post("/predict", content, "x.jpg", preview="true")
        assert status == 200, (kind, answer)
        assert answer["preview"].startswith("data:image/jpeg;base64,")
    turned = io.BytesIO()
    image = Image.open(io.BytesIO(demo_server.picture()))
    exif = image.getexif()
    exif[0x0112] = 6  # a quarter to the right
    image.save(turned, "JPEG", exif=exif)
    answer = server.post("/predict", turned.getvalue())[1]
    assert answer["picture"] == {"height": 480, "width": 360}
