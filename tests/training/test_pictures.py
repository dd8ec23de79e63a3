"""Picture files: the values that were stored, or a refusal that names the file."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from training.pictures import read_picture, with_channels


def png(pixels, *, interlaced=False, chunks=b""):
    """A PNG of 16 bits a channel, made here: grey, grey with alpha, RGB, RGBA for 1 to 4 channels."""
    height, width, channels = pixels.shape
    passes = [(0, 0, 1, 1)]
    if interlaced:  # Adam7
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = [row for x, y, dx, dy in passes for row in pixels[y::dy, x::dx] if row.size]
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, interlaced)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunks
        + chunk(b"IDAT", zlib.compress(raw))
        + chunk(b"IEND", b"")
    )


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def planes(pixels, largest):
    return pixels.astype(np.float32).transpose(2, 0, 1) / np.float32(largest)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_all_sixteen_bits_are_read(tmp_path, rng, channels, interlaced):
    pixels = rng.integers(0, 2**16, (9, 11, channels)).astype(np.uint16)
    gamma = chunk(b"gAMA", struct.pack(">I", 45455))  # is not applied
    (tmp_path / "deep.png").write_bytes(png(pixels, interlaced=interlaced, chunks=gamma))
    np.testing.assert_array_equal(read_picture(tmp_path / "deep.png"), planes(pixels, 65535))


def test_sixteen_bits_of_other_formats(tmp_path, rng):
    pixels = rng.integers(0, 2**16, (5, 7)).astype(np.uint16)
    for compression in ("raw", "tiff_lzw"):
        Image.fromarray(pixels).save(tmp_path / f"{compression}.tif", compression=compression)
    (tmp_path / "deep.pgm").write_bytes(b"P5\n7 5\n65535\n" + pixels.astype(">u2").tobytes())
    (tmp_path / "text.pgm").write_text(f"P2\n7 5\n65535\n{' '.join(map(str, pixels.ravel()))}\n")
    files = list(tmp_path.iterdir())
    assert len(files) == 4
    for file in files:
        np.testing.assert_array_equal(read_picture(file), planes(pixels[..., None], 65535))


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm", "tif", "webp"])
def test_eight_bits_are_what_was_stored(tmp_path, rng, suffix):
    pixels = rng.integers(0, 256, (5, 7, 3)).astype(np.uint8)
    file = tmp_path / f"photo.{suffix}"
    Image.fromarray(pixels).save(file, **({"lossless": True} if suffix == "webp" else {}))
    np.testing.assert_array_equal(read_picture(file), planes(pixels, 255))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA"])
def test_palettes_single_bits_and_opaque_alpha_lose_nothing(tmp_path, mode):
    grey = np.array([[0, 255, 255], [255, 0, 255]], np.uint8)
    Image.fromarray(grey).convert(mode).save(tmp_path / "photo.png")
    read = with_channels(read_picture(tmp_path / "photo.png"), 1, tmp_path / "photo.png")
    np.testing.assert_array_equal(read[0], grey / np.float32(255))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_that_a_camera_noted(tmp_path, rng, orientation):
    # EXIF: what the stored row 0 and column 0 are of the picture that was seen.
    seen = rng.integers(0, 2**16, (4, 6, 3)).astype(np.uint16)
    stored = {
        1: lambda x: x,  # top, left
        2: lambda x: x[:, ::-1],  # top, right
        3: lambda x: x[::-1, ::-1],  # bottom, right
        4: lambda x: x[::-1],  # bottom, left
        5: lambda x: x.transpose(1, 0, 2),  # left, top
        6: lambda x: x.transpose(1, 0, 2)[::-1],  # right, top
        7: lambda x: x.transpose(1, 0, 2)[::-1, ::-1],  # right, bottom
        8: lambda x: x.transpose(1, 0, 2)[:, ::-1],  # left, bottom
    }[orientation](seen)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray((stored >> 8).astype(np.uint8)).save(tmp_path / "shallow.png", exif=exif)
    note = chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    (tmp_path / "deep.png").write_bytes(png(stored, chunks=note))
    np.testing.assert_array_equal(read_picture(tmp_path / "shallow.png"), planes(seen >> 8, 255))
    np.testing.assert_array_equal(read_picture(tmp_path / "deep.png"), planes(seen, 65535))


def test_grey_and_colour_are_never_mistaken(tmp_path, rng):
    grey = rng.random((1, 4, 5), dtype=np.float32)
    np.testing.assert_array_equal(with_channels(grey, 3, tmp_path), np.repeat(grey, 3, axis=0))
    np.testing.assert_array_equal(with_channels(np.repeat(grey, 3, axis=0), 1, tmp_path), grey)
    colour = rng.random((3, 4, 5), dtype=np.float32)
    with pytest.raises(ValueError, match=r"photo\.png is a colour picture, but grey ones are needed"):
        with_channels(colour, 1, tmp_path / "photo.png")


def test_deep_pictures_are_scaled_like_others(tmp_path):
    ramp = np.repeat(np.linspace(0, 65535, 16).astype(np.uint16)[:, None], 20, axis=1)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    Image.fromarray((ramp // 257).astype(np.uint8)).save(tmp_path / "shallow.png")
    deep, shallow = (read_picture(tmp_path / f"{name}.png", size=8) for name in ("deep", "shallow"))
    assert deep.shape == shallow.shape == (1, 8, 8)
    np.testing.assert_allclose(deep, shallow, atol=1.01 / 255)  # one rounding down before and one after scaling


def frames(file):
    first, second = (Image.new("L", (4, 4), value) for value in (0, 255))
    first.save(file, save_all=True, append_images=[second])


def white_is_zero(file):
    """A little-endian TIFF of 16 bits whose photometric interpretation, tag 262, is 0."""
    Image.fromarray(np.full((2, 3), 700, np.uint16)).save(file)
    content, entry = file.read_bytes(), struct.pack("<HHII", 262, 3, 1, 1)
    assert content.count(entry) == 1
    file.write_bytes(content.replace(entry, struct.pack("<HHII", 262, 3, 1, 0)))


def text_bomb(file):
    note = PngImagePlugin.PngInfo()
    note.add_text("x", "A" * 2**21, zip=True)
    Image.new("L", (4, 4)).save(file, pnginfo=note)


def transparent(file, mode):
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).convert(mode).save(file)


def colour_key(file):
    Image.new("RGB", (4, 4), (1, 2, 3)).save(file, transparency=(1, 2, 3))


def deep_alpha(file, values=(0, 0, 0, 7)):
    file.write_bytes(png(np.full((4, 4, len(values)), values, np.uint16)))


def huge(file):
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def cut(file, length):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 100), dtype=np.uint8)).save(file)
    file.write_bytes(file.read_bytes()[:length])


REFUSED = {
    "transparent": ("a.png", lambda file: transparent(file, "RGBA"), "has transparent pixels"),
    "grey and transparent": ("a.png", lambda file: transparent(file, "LA"), "has transparent pixels"),
    "a transparent colour": ("a.png", colour_key, "has transparent pixels"),
    "16 bits and transparent": ("a.png", deep_alpha, "has transparent pixels"),
    "16 bits, grey and alpha": ("a.png", lambda file: deep_alpha(file, (0, 7)), "is grey with alpha, of 16 bits"),
    "several frames": ("a.gif", frames, "holds several pictures"),
    "animated PNG": ("a.png", frames, "holds several pictures"),
    "animated WebP": ("a.webp", frames, "holds several pictures"),
    "several pages": ("a.tif", frames, "holds several pictures"),
    "CMYK": ("a.jpg", lambda file: Image.new("CMYK", (4, 4)).save(file), "is a CMYK image: save it as PNG"),
    "LAB": ("a.tif", lambda file: Image.new("LAB", (4, 4)).save(file), "is a LAB image: save it as PNG"),
    "32 bits": ("a.tif", lambda file: Image.new("I", (4, 4), 70_000).save(file), "is a TIFF of 32 bits a channel"),
    "floats": ("a.tif", lambda file: Image.new("F", (4, 4), 0.5).save(file), "is a TIFF of 32 bits a channel"),
    "a float map": ("a.ppm", lambda file: file.write_bytes(b"Pf\n1 1\n1.0\n\0\0\0\0"), "of 32 bits a pixel"),
    "16 bits of colour": (
        "a.ppm",
        lambda file: file.write_bytes(b"P6\n1 1\n65535\n" + bytes(6)),
        "65535, not to 255",
    ),
    "10 bits": ("a.pgm", lambda file: file.write_bytes(b"P5\n1 1\n1023\n\0\0"), "to 1023, not to 65535"),
    "16 levels": ("a.pgm", lambda file: file.write_bytes(b"P5\n1 1\n15\n\0"), "to 15, not to 255"),
    "white is 0": ("a.tif", white_is_zero, "whose scale is not certain"),
    "on its side": ("a.tif", lambda file: Image.new("L", (4, 5)).save(file, tiffinfo={274: 6}), "turn it, and save it"),
    "a bomb": ("a.png", huge, r"not a readable image \(Image size \(900000000 pixels\)"),
    "a bomb of text": ("a.png", text_bomb, r"not a readable image \(Decompressed data too large"),
    "a torn header": ("a.png", lambda file: cut(file, 40), "not a readable image"),
    "a torn PNG": ("a.png", lambda file: cut(file, 300), "not a readable image"),
    "a torn JPEG": ("a.jpg", lambda file: cut(file, 700), "not a readable image"),
    "a torn BMP": ("a.bmp", lambda file: cut(file, 1500), "not a readable image"),
    "empty": ("a.png", lambda file: file.write_bytes(b""), "not a readable image"),
    "a web page": ("a.png", lambda file: file.write_text("<html>404</html>"), "not a readable image"),
    "PostScript": ("a.png", lambda file: Image.new("RGB", (4, 4)).save(file, "EPS"), "not a readable image"),
    "JPEG 2000": ("a.png", lambda file: Image.new("RGB", (4, 4)).save(file, "JPEG2000"), "not a readable image"),
    "a folder": ("a.png", lambda file: file.mkdir(), "not a regular file"),
}


@pytest.mark.parametrize(("name", "write", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_certain_is_refused(tmp_path, name, write, message):
    write(tmp_path / name)
    with pytest.raises(ValueError, match=message) as caught:
        read_picture(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name))
