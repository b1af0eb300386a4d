"""Every kind of picture file, sound or hostile, becomes upright 8-bit RGB or one line."""

import struct
import threading
import zlib

import numpy as np
import pytest
from PIL import Image

from espnetv2.data.pictures import is_picture, open_picture
from espnetv2.errors import UserError


def pixel(image, x=0, y=0):
    return image.getpixel((x, y))


def refuse(path, *words, **options):
    with pytest.raises(UserError) as caught:
        open_picture(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    for word in words:
        assert word in message
    return message


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_ends_upright(tmp_path, orientation):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16, 0] = 255  # red top left
    upright[8:, 16:, 2] = 255  # blue bottom right
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.jpg"
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation](upright)))
    stored.save(path, exif=exif, quality=95, subsampling=0)
    opened = open_picture(path)
    assert opened.size == (32, 16)
    assert np.abs(np.asarray(opened).astype(int) - upright).max() < 40
    assert opened.getexif().get(0x0112) in (None, 1)
    assert not opened.info


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    values = np.array([[0, 257, 32768, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    Image.fromarray(values).save(tmp_path / "deep.tif")
    (tmp_path / "deep.pgm").write_bytes(b"P5 4 1 65535\n" + values.astype(">u2").tobytes())
    for name in ("deep.png", "deep.tif", "deep.pgm"):
        grey = np.asarray(open_picture(tmp_path / name))
        assert grey[0].tolist() == [[v] * 3 for v in (0, 1, 128, 255)], name


def test_sixteen_bit_colour_png_keeps_its_high_bytes(tmp_path):
    row = struct.pack(">6H", 0, 32768, 65535, 65535, 0, 257)
    (tmp_path / "deep.png").write_bytes(png(2, 1, depth=16, colour=2, rows=b"\0" + row))
    opened = open_picture(tmp_path / "deep.png")
    assert pixel(opened) == (0, 128, 255)
    assert pixel(opened, 1) == (255, 0, 1)


def test_floats_between_0_and_1_are_read_and_others_refused(tmp_path):
    Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32)).save(tmp_path / "float.tif")
    assert np.asarray(open_picture(tmp_path / "float.tif"))[0, :, 0].tolist() == [0, 128, 255]
    Image.fromarray(np.array([[0.0, 500.0]], np.float32)).save(tmp_path / "heights.tif")
    refuse(tmp_path / "heights.tif", "outside 0-1")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    suffix = {"CMYK": "jpg", "YCbCr": "jpg"}.get(mode, "png")
    Image.new("RGB", (5, 4), "white").convert(mode).save(tmp_path / f"x.{suffix}")
    opened = open_picture(tmp_path / f"x.{suffix}")
    assert opened.mode == "RGB"
    assert opened.size == (5, 4)
    assert pixel(opened) == (255, 255, 255)


def test_cmyk_colours_are_not_inverted(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "red.jpg", quality=95)
    red, green, blue = pixel(open_picture(tmp_path / "red.jpg"))
    assert red > 245
    assert max(green, blue) < 10


def test_transparency_shows_white(tmp_path):
    clear = Image.new("RGBA", (2, 1), (10, 20, 30, 255))
    clear.putpixel((1, 0), (0, 0, 0, 0))
    clear.save(tmp_path / "clear.png")
    opened = open_picture(tmp_path / "clear.png")
    assert pixel(opened) == (10, 20, 30)
    assert pixel(opened, 1) == (255, 255, 255)
    palette = Image.new("P", (2, 1))
    palette.putpalette([1, 2, 3, 4, 5, 6])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "palette.png", transparency=bytes([255, 0]))
    opened = open_picture(tmp_path / "palette.png")
    assert pixel(opened) == (1, 2, 3)
    assert pixel(opened, 1) == (255, 255, 255)


def test_the_first_frame_of_an_animation_is_taken(tmp_path):
    frames = [Image.new("RGB", (9, 7), colour) for colour in ("red", "lime", "blue")]
    for suffix in ("gif", "webp", "png"):
        path = tmp_path / f"moving.{suffix}"
        options = {"lossless": True} if suffix == "webp" else {}
        frames[0].save(path, save_all=True, append_images=frames[1:], **options)
        assert pixel(open_picture(path)) == (255, 0, 0), suffix


def test_the_content_counts_and_not_the_name(tmp_path):
    Image.new("RGB", (3, 3), "red").save(tmp_path / "x.png")
    (tmp_path / "x.png").rename(tmp_path / "x.jpg")
    assert pixel(open_picture(tmp_path / "x.jpg")) == (255, 0, 0)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_exif_does_not_refuse_sound_pixels(tmp_path):
    Image.new("RGB", (3, 3), "red").save(tmp_path / "x.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert open_picture(tmp_path / "x.jpg").size == (3, 3)


def test_what_is_no_picture_is_refused_in_one_line(tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no picture\nat all")
    (tmp_path / "plot.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    refuse(tmp_path / "empty.jpg", "empty")
    refuse(tmp_path / "text.jpg", "not a picture")
    refuse(tmp_path / "plot.eps", "not a picture")
    refuse(tmp_path / "missing.jpg", "no such file")
    refuse(tmp_path, "folder")


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "tif", "bmp"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_a_file_cut_short_is_refused(tmp_path, suffix, share):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    path = tmp_path / f"whole.{suffix}"
    Image.fromarray(noise).save(path)
    data = path.read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(data[: int(len(data) * share)])
    refuse(cut)


def test_a_bomb_is_refused_by_its_header_without_decoding(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(60_000, 60_000, depth=8, colour=2, rows=b""))
    refuse(path, "60000 x 60000", "limit")


def test_the_limit_counts_pixels_exactly(tmp_path):
    Image.new("RGB", (10, 10)).save(tmp_path / "x.png")
    assert open_picture(tmp_path / "x.png", max_pixels=100).size == (10, 10)
    refuse(tmp_path / "x.png", max_pixels=99)


def test_pictures_over_pils_limit_open_without_warning_or_trace(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)  # stands in for PIL's 89 million
    Image.new("RGB", (20, 10), "red").save(tmp_path / "x.png")
    frames = [Image.new("P", (20, 10), 1), Image.new("P", (20, 10), 2)]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    Image.new("RGB", (20, 10), "red").save(tmp_path / "x.tif", compression="tiff_lzw")
    Image.new("RGB", (20, 10), "red").save(tmp_path / "x.webp")
    for suffix in ("png", "gif", "tif", "webp"):
        assert open_picture(tmp_path / f"x.{suffix}").size == (20, 10)
        assert Image.MAX_IMAGE_PIXELS == 50


def test_threads_may_open_large_pictures_together(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    Image.new("RGB", (200, 100), "red").save(tmp_path / "x.tif", compression="tiff_lzw")
    failures = []

    def read():
        try:
            for _ in range(30):
                open_picture(tmp_path / "x.tif")
        except Exception as error:  # handed to the main thread
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert Image.MAX_IMAGE_PIXELS == 50


def test_suffixes_in_any_case_are_pictures():
    assert is_picture("a/b.JPG")
    assert not is_picture("a/b.mp4")
    assert not is_picture("jpg")


def png(width, height, *, depth, colour, rows):
    """A PNG written by hand: what PIL would not write."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")
