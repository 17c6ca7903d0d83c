"""Units of a weight by hand, and masks that drop exactly as many of them as asked."""

import pytest
import torch

from micronet_cli.functional.granularity import NM, Block, Element, Filter
from micronet_cli.functional.masks import shrink_mask, shrink_masks
from micronet_cli.functional.positions import used_blocks

SHAPES = [(6, 4), (5, 8, 3, 3), (1, 4, 1, 1)]
GRANULARITIES = [Element(), Block([2, 4]), Block([1, 1, 3, 3]), Filter(), NM(2, 4), NM(1, 2)]


def full(*shape):
    return torch.ones(shape, dtype=torch.bool)


def dropped_units(granularity, mask):
    if isinstance(granularity, Filter):
        return int((~mask.flatten(1).any(1)).sum())
    if isinstance(granularity, Block):
        sizes = (*granularity.shape, *(1 for _ in mask.shape[len(granularity.shape) :]))[: mask.dim()]
        return int((~used_blocks(mask.numpy(), sizes)).sum())
    return int((~mask).sum())


def test_block_golden_with_smaller_edges():
    importance = torch.tensor([[1.0, 1.0, 5.0], [1.0, 1.0, 0.0], [2.0, 3.0, 2.0]])
    # means: 1 and 2.5; 2.5 and 2
    values, numbers = Block([2, 2]).units(importance, full(3, 3))
    assert values.tolist() == [1.0, 2.5, 2.5, 2.0]
    assert numbers.tolist() == [[0, 0, 1], [0, 0, 1], [2, 2, 3]]
    kept = shrink_mask(importance, full(3, 3), 0.5, Block([2, 2]))
    assert kept.tolist() == [[False, False, True], [False, False, True], [True, True, False]]


def test_block_leaves_unnamed_dimensions_apart():
    assert Block([2, 2]).count(torch.Size((4, 4, 3, 3))) == 2 * 2 * 9
    assert Block([1, 1, 3, 3]).count(torch.Size((4, 4, 3, 3))) == 16
    assert Block([4, 4]).count(torch.Size((6,))) == 2


def test_filter_golden():
    importance = torch.tensor([[3.0, 3.0], [9.0, -4.0], [1.0, 2.0]])
    assert Filter().units(importance, full(3, 2))[0].tolist() == [3.0, 2.5, 1.5]
    kept = shrink_mask(importance, full(3, 2), 2 / 3, Filter())
    assert kept.tolist() == [[True, True], [False, False], [False, False]]


def test_nm_golden_along_the_input_dimension():
    importance = torch.tensor([[4.0, 1.0, 3.0, 2.0, 1.0, 1.0, 1.0, 1.0]])
    kept = shrink_mask(importance, full(1, 8), 0.5, NM(2, 4))
    assert kept.tolist() == [[True, False, True, False, False, False, True, True]]
    # a convolution: the same group at each place of the kernel
    kernel = torch.stack([importance[:, :4], importance[:, 4:]], -1)[..., None]
    kept = shrink_mask(kernel, full(1, 4, 2, 1), 0.5, NM(2, 4))
    assert kept[0, :, 0, 0].tolist() == [True, False, True, False]
    assert kept[0, :, 1, 0].tolist() == [False, False, True, True]


def test_nm_on_the_way_keeps_the_best_of_every_group():
    importance = torch.tensor([[0.1, 0.2, 0.3, 0.4, 5.0, 6.0, 7.0, 8.0]])
    kept = shrink_mask(importance, full(1, 8), 0.375, NM(2, 4))
    assert kept.tolist() == [[False, False, True, True, False, True, True, True]]


@pytest.mark.parametrize("granularity", GRANULARITIES, ids=str)
def test_ties_and_all_zero_go_by_index(granularity):
    zeros = torch.zeros(4, 4)
    kept = shrink_mask(zeros, full(4, 4), 0.5, granularity)
    assert torch.equal(kept, shrink_mask(zeros + 3, full(4, 4), 0.5, granularity))
    assert dropped_units(granularity, kept) == round(granularity.count(kept.shape) * 0.5)
    assert not kept[0, 0]


@pytest.mark.parametrize("granularity", [Element(), Block([2, 4]), Filter()], ids=str)
def test_one_element(granularity):
    one = torch.tensor([[2.0]])
    assert shrink_mask(one, full(1, 1), 0.4, granularity).all()
    assert not shrink_mask(one, full(1, 1), 0.6, granularity).any()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("granularity", GRANULARITIES, ids=str)
def test_sparsity_is_exact_and_masks_only_shrink(granularity, shape):
    torch.manual_seed(0)
    mask = full(*shape)
    for sparsity in (0.0, 0.1, 0.33, 0.5):
        shrunk = shrink_mask(torch.rand(shape), mask, sparsity, granularity)
        assert not (shrunk & ~mask).any()
        assert dropped_units(granularity, shrunk) == round(granularity.count(mask.shape) * sparsity)
        mask = shrunk


@pytest.mark.parametrize("granularity", GRANULARITIES, ids=str)
def test_same_sparsity_again_changes_nothing(granularity):
    torch.manual_seed(0)
    mask = shrink_mask(torch.rand(8, 8), full(8, 8), 0.4, granularity)
    assert torch.equal(shrink_mask(torch.rand(8, 8), mask, 0.4, granularity), mask)


def test_nm_holds_exactly_n_whatever_is_inherited():
    torch.manual_seed(0)
    mask = torch.rand(16, 32) > 0.3
    kept = shrink_mask(torch.rand(16, 32), mask, 0.5, NM(2, 4))
    left, before = (m.view(-1, 4).sum(1) for m in (kept, mask))
    assert torch.equal(left, before.clamp(max=2))


def test_elements_dropped_before_do_not_count_for_their_block():
    importance, mask = torch.tensor([[9.0, 1.0], [2.0, 2.0]]), torch.tensor([[False, True], [True, True]])
    kept = shrink_mask(importance, mask, 0.5, Filter())
    assert kept.tolist() == [[False, False], [True, True]]


def test_global_blocks_of_layers_of_different_size():
    torch.manual_seed(0)
    shapes = [(8, 3, 3, 3), (16, 8, 3, 3), (10, 16)]
    masks = shrink_masks([torch.rand(s) for s in shapes], [full(*s) for s in shapes], [0.5, 0.6, 0.7], Block([4, 4]))
    total = sum(Block([4, 4]).count(torch.Size(s)) * p for s, p in zip(shapes, (0.5, 0.6, 0.7), strict=True))
    assert sum(dropped_units(Block([4, 4]), m) for m in masks) == round(total)


IMPOSSIBLE = {
    "no size": (lambda: Block([]), r"shape=\[\]: must be positive sizes"),
    "size 0": (lambda: Block([0, 4]), r"shape=\[0, 4\]: must be positive sizes"),
    "a size that is no integer": (lambda: Block([2.5]), r"shape=\[2.5\]: must be positive sizes"),
    "all kept": (lambda: NM(4, 4), "n=4: must be at least 1 and below m, which is 4"),
    "none kept": (lambda: NM(0, 4), "n=0: must be at least 1"),
}


@pytest.mark.parametrize(("build", "message"), IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_impossible_units_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("granularity", [Element(), Block([2, 4]), Filter()], ids=str)
def test_any_sparsity_and_input_fits_all_but_groups(granularity):
    assert granularity.max_sparsity == 1
    assert granularity.input_multiple == 1


def test_nm_limits_sparsity_and_the_input_dimension():
    assert NM().max_sparsity == 0.5
    assert NM(1, 4).max_sparsity == 0.75
    assert NM(1, 8).input_multiple == 8


def test_element_numbers_run_in_memory_order():
    importance = torch.tensor([[3.0, 1.0], [2.0, 0.0]])
    values, numbers = Element().units(importance, full(2, 2))
    assert values.tolist() == [3, 1, 2, 0]
    assert numbers.tolist() == [[0, 1], [2, 3]]


COUNTS = {
    "elements": (Element(), (4, 3, 3, 3), 108),
    "blocks that do not fill the last row": (Block([4, 4]), (6, 5), 4),
    "a block larger than the weight": (Block([9, 9]), (2, 3), 1),
    "filters": (Filter(), (6, 3, 1, 1), 6),
    "groups count elements": (NM(2, 4), (2, 8), 16),
}


@pytest.mark.parametrize(("granularity", "shape", "units"), COUNTS.values(), ids=COUNTS.keys())
def test_count_by_hand(granularity, shape, units):
    assert granularity.count(torch.Size(shape)) == units


def test_block_sizes_name_every_dimension():
    assert Block([4, 2]).sizes(torch.Size((8, 8, 3, 3))) == [4, 2, 1, 1]
    assert Block([4, 2, 3]).sizes(torch.Size((8, 8))) == [4, 2]


def test_nm_numbers_what_is_dropped_first():
    # The third was dropped before, so it is the least important; of the others 1 comes next, and 3 and 4 have no unit.
    values, numbers = NM(2, 4).units(torch.tensor([[3.0, 1.0, 9.0, 4.0]]), torch.tensor([[True, True, False, True]]))
    assert values.tolist() == [-torch.inf, 1.0]
    assert numbers.tolist() == [[2, 1, 0, 2]]


def test_units_of_blocks_cover_every_element_once():
    granularity, shape = Block([2, 2]), (3, 5, 2)
    values, numbers = granularity.units(torch.ones(shape), full(*shape))
    assert numbers.shape == shape
    assert numbers.unique().tolist() == list(range(len(values)))
    assert len(values) == granularity.count(torch.Size(shape)) == 2 * 3 * 2
