"""Which memory holds which value or stored tensor."""

import pytest
import torch

from micronet_cli.trace.known_tensors import KnownTensors, layout_of, tensors_in
from micronet_cli.trace.layouts import Layout, Read
from micronet_cli.trace.records import Stored


def meta(*shape, dtype=torch.float32):
    return torch.empty(*shape, device="meta", dtype=dtype)


def test_views_are_the_value_they_look_at():
    known, x = KnownTensors(), meta(2, 6)
    assert known.activation(x) is None
    assert known.add_value(x, None) == 0
    assert known.activation(x[:, 1:3]) == 0
    assert known.activation(meta(2, 6)) is None


def test_a_value_made_in_place_takes_over_the_buffer():
    known, x = KnownTensors(), meta(4)
    known.add_value(meta(1), None)
    assert known.add_value(x, None) == 1
    assert known.add_value(x, frozenset("q")) == 2
    assert [value.buffer for value in known.values] == [0, 1, 1]
    assert known.activation(x) == 2


def test_a_new_buffer_forgets_the_value_before():
    known, x = KnownTensors(), meta(4)
    known.add_value(x, None)
    assert known.add_value_in_new_buffer(x, frozenset()) == 1
    assert known.values[1].buffer == 1


def test_same_value_keeps_what_is_known_already():
    known, x, y, z = KnownTensors(), meta(4), meta(4), meta(4)
    known.add_value(x, None)
    known.add_value(y, None)
    known.same_value(z, x)
    known.same_value(y, x)
    assert [known.activation(tensor) for tensor in (x, y, z)] == [0, 1, 0]


def test_reads_tell_layouts_apart_and_leave_constants_out():
    known, x = KnownTensors(), meta(2, 3)
    known.add_value(x, None)
    whole = Read(0, Layout((2, 3), (3, 1)))
    turned = Read(0, Layout((3, 2), (1, 3)))
    column = Read(0, Layout((2,), (3,), 2))
    tree = [x, {"again": x, "turned": (x.t(),)}, meta(2, 3), 5, x[:, 2]]
    assert known.reads(tree) == (whole, turned, column)


def test_roots_of_views_are_listed_once_in_order():
    known, a, b = KnownTensors(), torch.zeros(4), torch.zeros(4)
    known.add_stored(a, "a", "")
    known.add_stored(b, "b", "")
    assert known.roots([b[:2], a, b, torch.zeros(4)]) == (1, 0)
    assert known.roots([]) == ()
    assert known.sources[0] is a
    assert known.sources[1] is b


def test_a_moved_tensor_shares_the_root():
    known, table = KnownTensors(), torch.zeros(4)
    known.add_stored(table, "table", "")
    gathered = table[torch.tensor([0, 0])]
    known.same_root(gathered, 0)
    assert known.root(gathered) == 0
    assert len(known.stored) == 1


def test_a_made_up_tensor_has_no_source():
    known = KnownTensors()
    assert known.add_made_up(Stored("permutation", "", 4, 2)) == 0
    assert known.sources == [None]


def test_a_stand_in_counts_as_its_tensor():
    known, weight = KnownTensors(), torch.nn.Parameter(torch.zeros(2, 3))
    known.add_stored(weight, "weight", "")
    stand_in = known.stand_in(weight)
    assert stand_in.is_meta
    assert stand_in.shape == (2, 3)
    assert known.root(stand_in) == 0
    assert known.root(known.stand_in(torch.zeros(1))) is None


def test_renaming_replaces_name_layer_and_origin_only():
    known, weight = KnownTensors(), torch.zeros(2, 3)
    known.add_stored(weight, "original", "part")
    known.rename_stored(weight, "layer.weight", "layer", derived=True)
    assert known.stored == [Stored("layer.weight", "layer", 6, 6, derived=True)]
    known.rename_stored(torch.zeros(1), "nothing", "")
    assert len(known.stored) == 1


@pytest.mark.parametrize(
    ("values", "stored", "codes"),
    [
        pytest.param((0,), (), {"a"}, id="one quantiser"),
        pytest.param((0, 1), (), {"a", "b"}, id="two quantisers"),
        pytest.param((0, 2), (), None, id="a float value"),
        pytest.param((0,), (0,), {"a", "w"}, id="a quantised stored tensor"),
        pytest.param((0,), (1,), None, id="a float stored tensor"),
        pytest.param((), (), set(), id="nothing"),
    ],
)
def test_codes_together(values, stored, codes):
    known = KnownTensors()
    for quantizers in (frozenset("a"), frozenset("b"), None):
        known.add_value(meta(1), quantizers)
    known.add_stored(torch.zeros(1), "w", "", "w")
    known.add_stored(torch.zeros(1), "float", "")
    assert known.codes_of(values, stored) == codes


@pytest.mark.parametrize(
    ("dtype", "bits"),
    [
        pytest.param(torch.float16, 16, id="half"),
        pytest.param(torch.float64, 32, id="double counts as float"),
        pytest.param(torch.int8, 32, id="integers count as float"),
    ],
)
def test_float_bits_follow_the_type(dtype, bits):
    known = KnownTensors()
    known.add_value(meta(1, dtype=dtype), None)
    assert known.values[0].float_bits == bits


def test_layout_of_a_view_has_its_strides_and_offset():
    assert layout_of(torch.zeros(2, 3)[:, 1:].t()) == Layout((2, 2), (1, 3), 1)


def test_tensors_are_found_in_nested_containers_in_order():
    a, b, c = (torch.zeros(1) for _ in range(3))
    found = list(tensors_in((a, [None, {"key": (b, "text")}], c)))
    assert [id(tensor) for tensor in found] == [id(a), id(b), id(c)]
