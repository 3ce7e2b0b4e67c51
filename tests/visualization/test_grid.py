"""Sheets and grids of images: sizes, places of panels and legends."""

import numpy as np
import pytest
from PIL import Image

from err_seg.visualization.grid import GAP, GridRow, fitting_size, lay_out, sheet
from err_seg.visualization.legend import Entry, draw_legend
from err_seg.visualization.text import text_width


@pytest.mark.parametrize(
    ("size", "expected"), [((512, 256), (256, 128)), ((30, 60), (128, 256)), ((5000, 1), (256, 1))]
)
def test_images_are_scaled_to_the_cell(size, expected):
    assert fitting_size(size) == expected


def test_layout_places_panels_and_legends():
    red, blue = (255, 0, 0), (0, 0, 255)
    panels = [Image.new("RGB", (100, 60), color) for color in (red, blue)]
    headings = [["a"], ["b", "c"]]
    below_each = lay_out(headings, [GridRow(panels, [[], [Entry(blue, "sky")]])], cell=100)
    assert below_each.width == 3 * GAP + 2 * 100
    assert below_each.getpixel((GAP + 50, 80)) == red
    assert below_each.getpixel((2 * GAP + 150, 80)) == blue
    pixels = np.asarray(below_each)[50 + 60 :]
    assert (pixels[:, : GAP + 100] == 255).all()  # no legend below the first
    assert (pixels[:, 2 * GAP + 100 :] != 255).any()
    many = [Entry(red, f"class {i}") for i in range(12)]
    narrow = lay_out(headings, [GridRow(panels, [many, []])], cell=100)
    wide = lay_out(headings, [GridRow(panels, [many])], "note", cell=100)
    assert narrow.height > wide.height > below_each.height


def test_a_sheet_fills_its_cells_row_by_row():
    panels = [Image.new("RGB", (10, 8), (index, 0, 0)) for index in range(5)]
    paper = sheet(panels, 2, (12, 8))
    assert paper.size == (24, 24)
    assert [paper.getpixel((12 * (index % 2), 8 * (index // 2)))[0] for index in range(5)] == list(range(5))
    assert paper.getpixel((11, 0)) == paper.getpixel((12, 16)) == (255, 255, 255)


def test_a_long_name_is_not_cut_off_by_its_cell():
    name = "a name of 32 letters, all shown!"
    legend = draw_legend([Entry((255, 0, 0), name), Entry((0, 0, 255), "thing", 0.25)], 100, 13)
    assert legend.width > text_width(name, 13)
    assert legend.height == 2 * draw_legend([Entry((0, 0, 255), "thing")], 100, 13).height
