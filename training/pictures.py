"""The one reader of picture files: the right values in [0, 1], or a refusal that names the file and the remedy."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

if TYPE_CHECKING:
    from PIL import Image, ImageFile

#: What Pillow may open. Others are left out: EPS starts another program, JPEG 2000 has depths that Pillow cuts off.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")

#: Modes of 8 bits a channel, and of one bit, whose conversion to grey or RGB loses nothing.
_PLAIN = frozenset({"1", "L", "P", "RGB"})

_TRANSPARENT = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})

_SAVE = "save it as PNG of 8 or 16 bits a channel"


@dataclass(frozen=True)
class PictureBytes:
    """The content of a picture file, and what errors call it.

    Attributes
    ----------
    content : bytes
    name : str
    most : int
        Most pixels; a picture of more is refused before it is decoded.
    """

    content: bytes
    name: str
    most: int

    def __str__(self) -> str:
        return self.name


#: Where a picture is.
Source = Path | PictureBytes


def read_picture(file: Source, *, size: int | None = None) -> Float32[np.ndarray, "c h w"]:
    """Read a picture file as the values that it stores, divided by their largest possible value (255 or 65535).

    The orientation that a camera noted is applied. Colour profiles and gamma are not: values stay as stored.

    Parameters
    ----------
    file : Path or PictureBytes
        PNG, JPEG, WebP, BMP, GIF, TIFF, PGM or PPM.
    size : int, optional
        Scale the shorter side to this and take the middle square.

    Returns
    -------
    float32 array of shape (C, H, W)
        One channel of a grey picture, or red, green and blue.

    Raises
    ------
    ValueError
        Where the file is no such picture, or where its values are not certain: transparent pixels, several frames, CMYK
        and other colour spaces, depths that would be cut off.
    """
    return _values(_oriented(file), size)


def values_of(picture: "Image.Image", name: str, *, size: int | None = None) -> Float32[np.ndarray, "c h w"]:
    """Return the values of a Pillow image as `read_picture` does those of a file, but for an orientation noted in it.

    Parameters
    ----------
    picture : PIL.Image.Image
        Of 8 bits a channel.
    name : str
        What errors call it.
    size : int, optional
        Scale the shorter side to this and take the middle square.

    Raises
    ------
    ValueError
        Where it has transparent pixels, or is of a mode whose conversion to grey or RGB could lose something.
    """
    try:
        return _values([_plain(name, picture)], size)
    except _RefusedError:
        raise
    except Exception as error:  # whatever a picture that was not decoded yet makes its decoder raise
        raise ValueError(f"{name}: not a readable image ({str(error)[:200] or type(error).__name__})") from error


def _values(bands: list["Image.Image"], size: int | None) -> Float32[np.ndarray, "c h w"]:
    if size is not None:
        from PIL import Image, ImageOps

        bands = [ImageOps.fit(band, (size, size), Image.Resampling.BILINEAR) for band in bands]
    # An 8-bit picture is one Pillow image; a deeper one is a float image for each channel, already in [0, 1].
    planes = np.stack([np.asarray(band, dtype=np.float32) for band in bands])
    if bands[0].mode == "RGB":
        planes = planes[0].transpose(2, 0, 1)
    if bands[0].mode != "F":
        planes = planes / np.float32(255)
    return np.ascontiguousarray(planes)


def with_channels(
    picture: Float32[np.ndarray, "c h w"], channels: int, file: Source | str
) -> Float32[np.ndarray, "d h w"]:
    """Return a picture with 1 or 3 channels: a grey one has three that are equal, and is grey where they are.

    Raises
    ------
    ValueError
        Where a colour picture is to have one channel: there are several ways to turn it grey.
    """
    if len(picture) > channels:
        if (picture != picture[:1]).any():
            raise ValueError(f"{file} is a colour picture, but grey ones are needed: turn it grey in the way you want")
        picture = picture[:channels]
    return np.ascontiguousarray(np.broadcast_to(picture, (channels, *picture.shape[1:])))


def _oriented(file: Source) -> list["Image.Image"]:
    """Return the picture upright: one 8-bit image, L or RGB, or a float image (F) for each channel."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(file, Path) and not file.is_file():
        raise ValueError(f"{file}: not a regular file; replace it by an image")
    try:
        with Image.open(_content(file), formats=FORMATS) as opened:
            if isinstance(file, PictureBytes) and opened.width * opened.height > file.most:
                raise _RefusedError(f"{file} has {opened.width}x{opened.height} pixels, at most {file.most} are read")
            _check_frames(file, opened)
            deep = _is_deep(file, opened)
            opened.load()
            bands = _deep_bands(file, opened) if deep else [_plain(file, opened)]
            orientation = int(opened.getexif().get(0x0112) or 1)
    except _RefusedError:
        raise
    except Exception as error:  # whatever a damaged or hostile file makes a decoder raise
        reason = "" if isinstance(error, UnidentifiedImageError) else f" ({str(error)[:200] or type(error).__name__})"
        raise ValueError(f"{file}: not a readable image{reason}; remove or replace it") from error
    turns = Image.Transpose
    turn = {
        2: turns.FLIP_LEFT_RIGHT,
        3: turns.ROTATE_180,
        4: turns.FLIP_TOP_BOTTOM,
        5: turns.TRANSPOSE,
        6: turns.ROTATE_270,
        7: turns.TRANSVERSE,
        8: turns.ROTATE_90,
    }.get(orientation)
    return bands if turn is None else [band.transpose(turn) for band in bands]


def _content(file: Source) -> Path | io.BytesIO:
    return file if isinstance(file, Path) else io.BytesIO(file.content)


class _RefusedError(ValueError):
    """A message of our own, as against one of a decoder."""


def _check_frames(file: Source, opened: "ImageFile.ImageFile") -> None:
    # The second picture of a camera's MPO is a preview or another view: by that format the first is the picture.
    if opened.format != "MPO" and getattr(opened, "n_frames", 1) > 1:
        raise _RefusedError(f"{file} holds several pictures: save the one that is meant, as PNG")


def _is_deep(file: Source, opened: "ImageFile.ImageFile") -> bool:
    """Whether the file has 16 bits a channel. Looks at what the decoder is told, before it cuts anything off."""
    args = opened.tile[0][3] if opened.tile else ()
    told = args if isinstance(args, tuple) else (args,)
    raw = str(told[0]) if told else ""
    if opened.format == "PNG":
        return ";16" in raw
    if opened.format == "PPM":
        if opened.mode in ("L", "RGB") and opened.tile[0][0] != "raw" and told[-1] != 255:
            raise _RefusedError(f"{file} counts its grey levels to {told[-1]}, not to 255: {_SAVE}")
        if opened.mode == "I" and not raw.startswith("I;16") and told[-1] != 65535:
            raise _RefusedError(f"{file} counts its grey levels to {told[-1]}, not to 65535: {_SAVE}")
        return opened.mode == "I"
    if opened.format == "TIFF":
        return _is_deep_tiff(file, opened)
    return False


def _is_deep_tiff(file: Source, opened: "ImageFile.ImageFile") -> bool:
    tags = opened.tag_v2  # type: ignore[attr-defined]
    if tags.get(274, 1) != 1:  # Pillow 13 turns uncompressed ones into other pixels
        raise _RefusedError(f"{file} is a TIFF that lies on its side or upside down: turn it, and {_SAVE}")
    bits, samples, kinds = (tags.get(tag, (1,)) for tag in (258, 277, 339))
    depth = max(bits) if isinstance(bits, tuple) else bits
    signed = any(kind != 1 for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
    if opened.mode.startswith("I;16") and depth == 16 and tags.get(262) == 1 and not signed:
        return True
    if depth > 8 or signed:
        raise _RefusedError(f"{file} is a TIFF of {depth} bits a channel, whose scale is not certain: {_SAVE}")
    count = samples[0] if isinstance(samples, tuple) else samples
    if count != len(opened.getbands()):
        raise _RefusedError(f"{file} has {count} channels, of which {len(opened.getbands())} have a meaning: {_SAVE}")
    return False


def _plain(file: Source | str, image: "Image.Image") -> "Image.Image":
    """Return an 8-bit picture as L or RGB."""
    if image.mode in _TRANSPARENT or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            raise _transparent(file)
    elif image.mode not in _PLAIN:
        kind = "of 32 bits a pixel, whose scale is not certain" if image.mode in ("I", "F") else f"a {image.mode} image"
        raise _RefusedError(f"{file} is {kind}: {_SAVE}, grey or RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _deep_bands(file: Source, image: "Image.Image") -> list["Image.Image"]:
    """Return a float image in [0, 1] for each channel of a 16-bit picture."""
    from PIL import Image

    if "transparency" in image.info:
        raise _transparent(file)
    pixels = np.asarray(image, dtype=np.float32)
    if image.mode in ("RGB", "RGBA"):
        pixels = 256 * pixels + _low_bytes(file)
        if pixels.shape[2] == 4 and (pixels[..., 3] != 65535).any():
            raise _transparent(file)
    planes = np.atleast_3d(pixels)[..., :3].transpose(2, 0, 1) / np.float32(65535)
    return [Image.fromarray(np.ascontiguousarray(plane)) for plane in planes]


def _low_bytes(file: Source) -> Float32[np.ndarray, "h w c"]:
    """Return the lower byte of each value of a 16-bit colour PNG, of which Pillow gives the higher.

    PNG puts the higher byte first. A decoder that is told that the lower one comes first gives the other byte.
    """
    from PIL import Image

    with Image.open(_content(file), formats=("PNG",)) as opened:
        *where, raw = opened.tile[0]
        if not isinstance(raw, str) or raw not in ("RGB;16B", "RGBA;16B"):
            raise _RefusedError(f"{file} is grey with alpha, of 16 bits: save it without alpha")
        opened.tile = [(*where, f"{raw[:-1]}L")]  # type: ignore[list-item]  # a named tuple since Pillow 11
        return np.asarray(opened, dtype=np.float32)


def _transparent(file: Source | str) -> _RefusedError:
    return _RefusedError(
        f"{file} has transparent pixels, which have no colour: put it on a background, save without alpha"
    )
