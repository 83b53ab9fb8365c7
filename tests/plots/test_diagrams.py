"""Diagrams: every equation is named once, every text stays in its box."""

import re

import matplotlib.pyplot as plt
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import FancyBboxPatch

from vgmr.plots.diagrams import ARROWS, BLOCKS, LIT, METHOD, architecture, method_line


def boxes(ax):
    return [patch for patch in ax.patches if isinstance(patch, FancyBboxPatch)]


@pytest.mark.parametrize("draw", [architecture, lambda: method_line([])], ids=["architecture", "line"])
def test_every_text_stays_in_its_box(draw):
    ax = draw()
    renderer = FigureCanvasAgg(ax.figure).get_renderer()
    outlines = [box.get_window_extent(renderer) for box in boxes(ax)]
    inside = 0
    for text in ax.texts:
        extent = text.get_window_extent(renderer)
        home = [box for box in outlines if box.contains(*extent.get_points().mean(0))]
        for box in home:
            assert box.x0 <= extent.x0 and extent.x1 <= box.x1, text.get_text()
            assert box.y0 <= extent.y0 and extent.y1 <= box.y1, text.get_text()
        inside += bool(home)
    assert inside == len(outlines)
    plt.close(ax.figure)


def test_the_equations_are_named_in_their_order():
    found = [int(number) for *_, text in BLOCKS.values() for number in re.findall(r"\((\d+)\)", text)]
    assert found == [1, 2, 3, 4, 8, 9, 10, 11, 12, 13]
    assert {name for pair in ARROWS for name in pair} == set(BLOCKS)


def test_the_line_holds_the_blocks_in_their_order():
    assert [name for name, _ in METHOD] == list(BLOCKS)
    lit = [
        name
        for (name, _), box in zip(METHOD, boxes(method_line(["value"])), strict=True)
        if box.get_facecolor() == plt.matplotlib.colors.to_rgba(LIT)
    ]
    assert lit == ["value"]
    with pytest.raises(ValueError, match="unknown blocks \\['fusion'\\]; there are: input, projection"):
        method_line(["fusion"])
    plt.close("all")
