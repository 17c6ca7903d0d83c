"""Image files: the pixels that a viewer shows, in 8 bits and as many channels as are asked for, or a named refusal."""

import io
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from micronet_cli.data.images import (
    UndecodableImage,
    UnusableImage,
    eight_bits,
    known_suffixes,
    read_image,
    with_channels,
)

GREY = np.arange(0, 256, dtype=np.uint8).reshape(16, 16)
COLOUR = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)


def file_of(image: Image.Image, image_format: str = "PNG", **options) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    file.seek(0)
    return file


def pixels(image: Image.Image, channels: int = 3) -> np.ndarray:
    return np.asarray(with_channels(image, channels))


def test_sixteen_bits_are_divided_by_257_and_rounded():
    values = np.array([[0, 128, 129, 257, 385, 386, 65406, 65407, 65535]], np.uint16)
    assert np.asarray(eight_bits(Image.fromarray(values))).tolist() == [[0, 0, 1, 1, 1, 2, 254, 255, 255]]


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_sixteen_bit_files_have_the_pixels_of_their_eight_bit_twins(image_format):
    deep = Image.fromarray(GREY.astype(np.uint16) * 257)
    read = read_image(file_of(deep, image_format))
    assert (pixels(read, 1) == GREY).all()
    assert (pixels(read, 3) == GREY[..., None]).all()


def test_big_endian_sixteen_bits_are_read_as_well():
    deep = (GREY.astype(np.uint16) * 257).astype(">u2")
    image = Image.frombytes("I;16B", (16, 16), deep.tobytes())
    assert (np.asarray(eight_bits(image)) == GREY).all()


WIDE = {
    "32-bit integers": np.array([[0, 70000]], np.int32),
    "floating-point numbers": np.array([[0.0, 0.5]], np.float32),
}


@pytest.mark.parametrize(("what", "values"), WIDE.items(), ids=WIDE.keys())
def test_values_without_a_known_range_are_refused(what, values):
    with pytest.raises(UnusableImage, match=f"it holds {what}; convert it to 8 or 16 bits"):
        read_image(file_of(Image.fromarray(values), "TIFF"))


@dataclass(frozen=True)
class Mode:
    """An image as it is saved."""

    mode: str
    image_format: str


MODES = [
    Mode("1", "PNG"),
    Mode("L", "PNG"),
    Mode("LA", "PNG"),
    Mode("P", "PNG"),
    Mode("RGBA", "PNG"),
    Mode("CMYK", "TIFF"),
    Mode("YCbCr", "TIFF"),
    Mode("LAB", "TIFF"),
]


@pytest.mark.parametrize("case", MODES, ids=lambda case: case.mode)
def test_other_modes_are_converted_as_pillow_does(case):
    colour = Image.fromarray(COLOUR)
    image = Image.new("LAB", (5, 6), (50, 20, 30)) if case.mode == "LAB" else colour.convert(case.mode)
    file = file_of(image, case.image_format)
    expected = np.asarray(Image.open(io.BytesIO(file.getvalue())).convert("RGB"))
    assert (pixels(read_image(file)) == expected).all()


def test_a_cmyk_jpeg_keeps_its_colours():
    red = Image.new("RGB", (16, 16), (200, 30, 40)).convert("CMYK")
    found = pixels(read_image(file_of(red, "JPEG", quality=95)))
    assert np.abs(found.astype(int) - (200, 30, 40)).max() <= 4


def test_a_transparent_palette_gives_its_colours_without_a_warning():
    image = Image.fromarray(COLOUR).quantize(8)
    file = file_of(image, transparency=bytes([0, 128, 255]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="Palette images with Transparency")  # as the module sets it
        found = pixels(read_image(file))
    assert (found == np.asarray(image.convert("RGB"))).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rotated_image_is_upright(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    stored = Image.fromarray(COLOUR)
    # What a viewer undoes: the stored image is the upright one turned the other way.
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }[orientation]
    upright = stored if undo is None else stored.transpose(undo)
    found = read_image(file_of(stored, exif=exif))
    assert found.size == upright.size
    assert (pixels(found) == np.asarray(upright)).all()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_damaged_exif_block_leaves_the_pixels_as_they_are():
    image = Image.fromarray(COLOUR)
    file = file_of(image, exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert (pixels(read_image(file)) == COLOUR).all()


@pytest.mark.parametrize("image_format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_stands_for_an_animation(image_format):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    options = {"lossless": True} if image_format == "WEBP" else {}
    file = file_of(frames[0], image_format, save_all=True, append_images=frames[1:], **options)
    assert (pixels(read_image(file)) == (255, 0, 0)).all()


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
def test_a_truncated_file_does_not_decode(image_format):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = file_of(Image.fromarray(noise), image_format).getvalue()
    with pytest.raises(UndecodableImage):
        read_image(io.BytesIO(whole[: len(whole) // 2]))


DAMAGE = {
    "an error that is no ValueError": ("DDS", lambda whole: whole[:80] + bytes(4) + whole[84:]),
    "no image at all": ("PNG", lambda whole: b"text" * 100),
    "empty": ("PNG", lambda whole: b""),
    "an image of a billion pixels": ("BMP", lambda whole: whole[:18] + (10**5).to_bytes(4, "little") * 2 + whole[26:]),
}


@pytest.mark.parametrize(("image_format", "damage"), DAMAGE.values(), ids=DAMAGE.keys())
def test_every_kind_of_damage_is_one_error(image_format, damage):
    whole = file_of(Image.fromarray(COLOUR), image_format).getvalue()
    with pytest.raises(UndecodableImage):
        read_image(io.BytesIO(damage(whole)))


def test_a_four_channel_image_keeps_its_alpha():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 5, 4), dtype=np.uint8), "RGBA")
    read = read_image(file_of(image))
    assert (pixels(read, 4) == np.asarray(image)).all()
    assert (pixels(read, 2)[..., 1] == np.asarray(image)[..., 3]).all()
    assert pixels(read, 1).ndim == 2


def test_an_image_without_alpha_is_refused_where_it_is_asked_for():
    with pytest.raises(UnusableImage, match=r"no alpha channel \(RGB\), and the network takes 4 channels"):
        with_channels(Image.fromarray(COLOUR), 4)


def test_an_image_in_the_right_mode_is_not_copied():
    image = Image.fromarray(COLOUR)
    assert with_channels(eight_bits(image), 3) is image


def test_suffixes_are_of_formats_that_pillow_decodes():
    suffixes = known_suffixes()
    assert {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"} <= suffixes
    assert not {".pdf", ".mpg", ".h5", ".hdf", ".grib", ".txt", ".npy"} & suffixes
