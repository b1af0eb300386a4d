"""Opening picture files: whatever is in the file, 8-bit RGB comes out, upright, or a UserError."""

from __future__ import annotations

import io
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, ImageOps

from espnetv2.errors import UserError

MAX_PIXELS = 1_000_000_000
"""A picture with more is refused before it is decoded; RGB takes 4 bytes of memory a pixel."""

# fmt: off
PICTURE_SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".mpo", ".png", ".webp", ".bmp", ".gif", ".tif",
    ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif",
))
# fmt: on
"""What a picture's file name ends with, lower case."""

# a closed list: PIL would hand an EPS file to Ghostscript
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")
_patience = threading.Lock()


def is_picture(path: str | Path) -> bool:
    """Whether the name ends as pictures' names do; the file is not looked at."""
    return Path(path).suffix.lower() in PICTURE_SUFFIXES


def open_picture(
    path: str | Path, *, max_pixels: int = MAX_PIXELS, content: bytes | None = None
) -> Image.Image:
    """Read a picture as upright 8-bit RGB.

    The first frame of an animation; turned as its EXIF orientation says. Transparent parts show
    white. 16-bit values are divided by 257, floats are taken to lie in 0-1. Colour profiles are
    not applied.

    Shape: picture (W, H), mode RGB

    Args:
        path: Its name need not tell the format.
        max_pixels: More than this, by the file's header, is refused before decoding.
        content: The file's bytes where they are at hand; `path` then only names it in errors.

    Raises:
        UserError: The file is missing, empty, cut short, too large or no picture.
    """
    path = Path(path)
    try:
        with path.open("rb") if content is None else io.BytesIO(content) as file:
            image = _header(file, path, max_pixels)
            if image.width * image.height > max_pixels:
                raise UserError(
                    f"{path}: {image.width} x {image.height} pixels are more than the limit of "
                    f"{max_pixels:,}; make the picture smaller"
                )
            usual = Image.MAX_IMAGE_PIXELS
            large = usual is not None and image.width * image.height > usual
            with _limit(max_pixels) if large else nullcontext():
                image.load()
            upright = _upright(image)
        rgb = _to_rgb(upright)
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; check the path") from error
    except IsADirectoryError as error:
        raise UserError(f"{path}: is a folder, not a picture; name a file in it") from error
    except PermissionError as error:
        raise UserError(f"{path}: no permission to read it; change its mode") from error
    except Exception as error:  # a hostile file raises anything in the decoders
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{path}: damaged or cut short ({reason}); save the picture again"
        ) from error
    rgb.info.clear()  # nobody downstream may turn it a second time
    return rgb


def upright_rgb(image: Image.Image) -> Image.Image:
    """What `open_picture` makes of a file, of a picture that PIL has opened; the picture stays.

    Raises:
        UserError: It is damaged, or its values have no known brightness.
    """
    try:
        rgb = _to_rgb(_upright(image.copy()))
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"cannot look at this picture ({reason}); convert it to RGB") from error
    rgb.info.clear()  # nobody downstream may turn it a second time
    return rgb


def _header(file: BinaryIO, path: Path, max_pixels: int) -> ImageFile.ImageFile:
    """The picture before decoding; unlike PIL.Image.open it checks no size and warns of none."""
    start = file.read(16)
    if not start:
        raise UserError(f"{path}: the file is empty; replace it")
    Image.init()
    place = str(getattr(file, "name", ""))  # PIL may map the pixels from a file of this name
    refusals = []
    for name in _FORMATS:
        factory, accept = Image.OPEN.get(name, (None, None))
        if factory is None or accept is None or accept(start) is not True:
            continue
        file.seek(0)
        try:
            try:
                return factory(file, place)
            except Image.DecompressionBombError:  # WebP looks at the size already here
                file.seek(0)
                with _limit(max_pixels):
                    return factory(file, place)
        except (SyntaxError, IndexError, TypeError, struct.error) as error:
            refusals.append(f"{name}: {error}")
    known = ", ".join(_FORMATS)
    reason = f"looks like a damaged {refusals[0]}" if refusals else f"is none of {known}"
    raise UserError(f"{path}: not a picture that can be read ({reason}); convert it to PNG")


@contextmanager
def _limit(max_pixels: int) -> Iterator[None]:
    """PIL's own limit raised while a large picture decodes, one at a time, and put back."""
    with _patience:
        usual = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = max_pixels
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = usual


def _upright(image: Image.Image) -> Image.Image:
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # broken EXIF is common and no reason to refuse sound pixels
        return image
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        return _deep_to_rgb(image)
    if image.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in image.info:
        return _on_white(image)
    return image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    image = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
    alpha = image.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return image.convert("RGB")
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=alpha)
    return white


def _deep_to_rgb(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and float grey, scaled rather than clipped."""
    values = np.asarray(image)
    if image.mode == "F":
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise ValueError("float values outside 0-1 have no known brightness")
        grey = (values * 255 + 0.5).astype(np.uint8)
    else:
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("integers outside 0-65535 have no known brightness")
        grey = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")
