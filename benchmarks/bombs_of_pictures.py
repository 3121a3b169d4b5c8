"""Bombs in PNG, JPEG, WebP and TIFF."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from bomb_readers import MIB, bomb, image, single
from PIL import Image, PngImagePlugin, TiffImagePlugin


def png(width: int, height: int, rows: int, depth: int = 8) -> bytes:
    """A grey PNG of ``rows`` rows of zeros whose header claims ``height``."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        """Chunk."""
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(1)
    row = bytes(1 + width * depth // 8)
    packed = b"".join(packer.compress(row) for _ in range(rows)) + packer.flush()
    header = struct.pack(">2I5B", width, height, depth, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


for reader, limit in ((image, 64 * MIB), (single, 2**27)):

    @bomb(reader, honest=limit)
    def png_claims_pixels(folder: Path) -> Path:
        """PNG claims pixels."""
        (folder / "a.png").write_bytes(png(2**16, 2**16, 1))
        return folder / "a.png"

    @bomb(reader, honest=limit)
    def png_of_zeros(folder: Path) -> Path:
        """PNG of zeros."""
        (folder / "a.png").write_bytes(png(8192, 8192, 8192, 16))
        return folder / "a.png"

    @bomb(reader, honest=limit)
    def png_with_long_texts(folder: Path) -> Path:
        """PNG with long texts."""
        about = PngImagePlugin.PngInfo()
        for number in range(60):
            about.add_text(f"medvar-{number}", "0" * (MIB - 100), zip=True)
        Image.fromarray(np.eye(8, dtype=np.uint8)).save(folder / "a.png", pnginfo=about)
        return folder / "a.png"

    @bomb(reader, honest=limit)
    def png_with_a_deep_trace(folder: Path) -> Path:
        """PNG with a deep trace."""
        about = PngImagePlugin.PngInfo()
        about.add_text("medvar", "[" * 60_000_000, zip=False)
        Image.fromarray(np.eye(8, dtype=np.uint8)).save(folder / "a.png", pnginfo=about)
        return folder / "a.png"

    @bomb(reader, honest=limit)
    def png_with_a_wide_trace(folder: Path) -> Path:
        """PNG with a wide trace."""
        about = PngImagePlugin.PngInfo()
        about.add_text("medvar", "[" + "1e1," * 15_000_000 + "1]", zip=False)
        Image.fromarray(np.eye(8, dtype=np.uint8)).save(folder / "a.png", pnginfo=about)
        return folder / "a.png"


def jpeg(rows: int, columns: int) -> bytes:
    """A baseline JPEG of 8 × 8 pixels whose header claims more."""
    content = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(content, "JPEG")
    found = bytearray(content.getvalue())
    at = found.index(b"\xff\xc0")
    found[at + 5 : at + 9] = struct.pack(">2H", rows, columns)
    return bytes(found)


@bomb(single, honest=2**27)
def jpeg_claims_pixels(folder: Path) -> Path:
    """JPEG claims pixels."""
    (folder / "a.jpg").write_bytes(jpeg(65_500, 65_500))
    return folder / "a.jpg"


@bomb(single, honest=2**27)
def jpeg_claims_what_is_allowed(folder: Path) -> Path:
    """JPEG claims what is allowed."""
    (folder / "a.jpg").write_bytes(jpeg(8192, 8192))
    return folder / "a.jpg"


@bomb(single, honest=2**27)
def jpeg_of_many_progressive_passes(folder: Path) -> Path:
    """JPEG of many progressive passes."""
    content = io.BytesIO()
    Image.new("L", (8000, 8000)).save(content, "JPEG", progressive=True)
    found = content.getvalue()
    at = found.rindex(b"\xff\xda")
    (folder / "a.jpg").write_bytes(found[:at] + found[at:-2] * 20 + found[-2:])
    return folder / "a.jpg"


@bomb(single, honest=2**27)
def webp_of_zeros(folder: Path) -> Path:
    """WebP of zeros."""
    Image.new("L", (4000, 4000)).save(folder / "a.webp", lossless=True)
    return folder / "a.webp"


@bomb(single, honest=2**27)
def webp_of_many_frames(folder: Path) -> Path:
    """WebP of many frames."""
    frames = [Image.new("L", (4000, 4000), value) for value in range(8)]
    frames[0].save(folder / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    return folder / "a.webp"


@bomb(single, honest=2**27)
def tiff_of_zeros(folder: Path) -> Path:
    """TIFF of zeros."""
    Image.new("I;16", (8192, 8192)).save(folder / "a.tif", compression="tiff_adobe_deflate")
    return folder / "a.tif"


@bomb(single, honest=2**27)
def tiff_of_many_pages(folder: Path) -> Path:
    """TIFF of many pages."""
    page = struct.pack("<H", 1) + struct.pack("<2H2I", 256, 4, 1, 8)
    pages = b"".join(page + struct.pack("<I", 8 + 18 * (number + 1)) for number in range(200_000))
    (folder / "a.tif").write_bytes(b"II*\0" + struct.pack("<I", 8) + pages[:-4] + bytes(4))
    return folder / "a.tif"


@bomb(single, honest=2**27)
def tiff_of_huge_tags(folder: Path) -> Path:
    """TIFF of huge tags."""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[65_000] = tuple([0] * 8_000_000)
    info.tagtype[65_000] = 3
    Image.new("L", (64, 64)).save(folder / "a.tif", tiffinfo=info)
    return folder / "a.tif"


@bomb(single, honest=2**27)
def tiff_in_one_strip_that_claims(folder: Path) -> Path:
    """TIFF in one strip that claims."""
    Image.new("L", (64, 64)).save(folder / "a.tif", compression="tiff_lzw")
    found = bytearray((folder / "a.tif").read_bytes())
    for tag, value in ((256, 8000), (257, 8000), (278, 8000)):
        at = found.find(struct.pack("<2H", tag, 4)) if found.find(struct.pack("<2H", tag, 4)) >= 0 else None
        if at is not None:
            found[at + 8 : at + 12] = struct.pack("<I", value)
        elif (at := found.find(struct.pack("<2H", tag, 3))) >= 0:
            found[at + 8 : at + 10] = struct.pack("<H", value)
    (folder / "a.tif").write_bytes(found)
    return folder / "a.tif"
