"""Pictures of run folders: only a PNG of a sane size is read."""

import struct
import zlib

import imageio.v3 as iio
import numpy as np
import pytest

from sjc_debiased.making.pictures import read_picture, write_png


@pytest.mark.parametrize("side", [9000, 60000])
def test_an_image_bomb_is_refused_by_its_header(tmp_path, side):
    """A PNG of a few bytes that claims 81 million, or 3.6 billion, pixels."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path = tmp_path / "bomb.png"
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b""))
    with pytest.raises(ValueError, match="at most 67,108,864 pixels"):
        read_picture(path)


def test_another_format_is_refused_whatever_it_is_called(tmp_path):
    path = tmp_path / "sheet.png"
    iio.imwrite(path, np.zeros((2, 4, 4, 3), np.uint8), extension=".gif")
    with pytest.raises(ValueError, match="is a PNG of at most"):
        read_picture(path)


def test_a_picture_is_read_as_it_was_written(tmp_path):
    picture = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    write_png(tmp_path / "a.png", picture)
    assert (read_picture(tmp_path / "a.png") == picture).all()
