"""Guards the grid of captioned pictures: its size, its order, and captions that keep to their tile."""

from io import BytesIO

from PIL import Image

from micronet_cli.stages.picture_grid import COLUMNS, GAP, LINE, SIDE, Captioned, draw

RED, BLUE = (255, 0, 0), (0, 0, 255)


def grid_of(*pictures):
    return Image.open(BytesIO(draw(pictures)))


def captioned(colour, *lines, size=(32, 32)):
    return Captioned(Image.new("RGB", size, colour), lines)


def centre(column, row, lines):
    height = SIDE + LINE * lines
    return (GAP + column * (SIDE + GAP) + SIDE // 2, GAP + row * (height + GAP) + SIDE // 2)


def test_pictures_stand_row_by_row():
    colours = [RED] * COLUMNS + [BLUE]
    grid = grid_of(*(captioned(colour, "a", "b") for colour in colours))
    assert grid.size == (COLUMNS * (SIDE + GAP) + GAP, 2 * (SIDE + 2 * LINE + GAP) + GAP)
    assert grid.getpixel(centre(COLUMNS - 1, 0, lines=2)) == RED
    assert grid.getpixel(centre(0, 1, lines=2)) == BLUE
    assert grid.getpixel(centre(1, 1, lines=2)) == (255, 255, 255)


def test_picture_that_is_no_square_keeps_its_shape():
    grid = grid_of(captioned(RED, "a", size=(10, 40)))
    middle, row = centre(0, 0, lines=1)
    assert grid.getpixel((middle, row)) == RED
    assert grid.getpixel((middle - SIDE // 4, row)) == (255, 255, 255)


def test_long_caption_is_cut_at_its_tile():
    grid = grid_of(captioned(RED, "a class whose name goes on and on and on"), captioned(BLUE, ""))
    gap_between_tiles = grid.crop((GAP + SIDE, 0, 2 * GAP + SIDE, grid.height))
    assert gap_between_tiles.getcolors() == [(GAP * grid.height, (255, 255, 255))]
