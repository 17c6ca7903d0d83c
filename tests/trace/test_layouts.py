"""How a value lies in memory: equality and element counts."""

import pytest

from micronet_cli.trace.layouts import Layout, Read


@pytest.mark.parametrize(
    ("shape", "elements"),
    [
        pytest.param((), 1, id="scalar"),
        pytest.param((2, 3), 6, id="matrix"),
        pytest.param((2, 0, 3), 0, id="empty"),
    ],
)
def test_elements_are_the_product_of_the_shape(shape, elements):
    assert Layout(shape, (1,) * len(shape)).elements == elements


def test_layouts_differ_by_strides_and_by_offset():
    layout = Layout((2, 2), (2, 1))
    assert layout == Layout((2, 2), (2, 1), 0)
    assert layout != Layout((2, 2), (1, 2))
    assert layout != Layout((2, 2), (2, 1), 1)


def test_reads_of_one_value_in_one_layout_are_one():
    layout = Layout((2,), (1,))
    assert len({Read(0, layout), Read(0, Layout((2,), (1,))), Read(1, layout)}) == 2
