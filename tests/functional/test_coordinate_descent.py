"""Rounding of a quadratic form's weights: against every possibility, by hand, and with masks."""

import itertools

import pytest
import torch

from micronet_cli.functional.coordinate_descent import Grid, QuadraticForm, best_steps, descend, rounded_in_turn


def random_form(groups=2, rows=3, inputs=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    read = torch.randn(groups, 40, inputs, generator=generator)
    read[..., 1] += read[..., 0]
    curvature = torch.bmm(read.transpose(1, 2), read) / 40
    wished = 2 * torch.randn(groups, rows, inputs, generator=generator)
    return QuadraticForm(curvature, wished @ curvature), wished


def grid_of(like, step=1.0, largest=3, kept=None):
    ones = torch.ones(*like.shape[:2], 1)
    if kept is None:
        kept = torch.ones_like(like)
    return Grid(step * ones, -ones, largest, kept)


def test_the_form_by_hand():
    form = QuadraticForm(torch.tensor([[[2.0, 1.0], [1.0, 3.0]]]), torch.tensor([[[1.0, -1.0]]]))
    # 2 + 2 * 2 + 12 of w H w, 2 (1 - 2) of 2 w b
    assert form(torch.tensor([[[1.0, 2.0]]])).tolist() == [[2 + 4 + 12 + 2]]


def test_a_grid_holds_codes_zero_points_and_masks():
    grid = grid_of(torch.zeros(1, 1, 3), step=0.5, kept=torch.tensor([[[1.0, 1.0, 0.0]]]))
    codes = grid.codes(torch.tensor([[[-9.0, 0.6, 0.6]]]))
    assert codes.tolist() == [[[0, 2, 2]]]
    assert grid.weight(codes).tolist() == [[[-0.5, 0.5, 0.0]]]


@pytest.mark.parametrize("seed", range(5))
def test_no_single_change_is_better_than_what_descent_ends_with(seed):
    form, wished = random_form(seed=seed)
    grid = grid_of(wished)
    codes = rounded_in_turn(form, grid)
    start = form(grid.weight(codes))
    while descend(form, grid, codes):
        pass
    ended = form(grid.weight(codes))
    assert (ended <= start + 1e-5).all()
    for column, code in itertools.product(range(4), range(4)):
        changed = codes.clone()
        changed[..., column] = code
        assert (form(grid.weight(changed)) >= ended - 1e-4).all()


def test_rounding_together_is_near_the_best_of_all_and_beats_the_nearest():
    descended, nearest, best = 0.0, 0.0, 0.0
    for seed in range(20):
        form, wished = random_form(groups=1, rows=1, seed=seed)
        grid = grid_of(wished)
        codes = rounded_in_turn(form, grid)
        while descend(form, grid, codes):
            pass
        least = (wished @ form.curvature * wished).sum()  # what the wished weight itself would give, negative
        descended += float(form(grid.weight(codes)) + least)
        nearest += float(form(grid.weight(grid.codes(wished))) + least)
        every = [torch.tensor([[choice]]).float() for choice in itertools.product(range(4), repeat=4)]
        best += min(float(form(grid.weight(each)) + least) for each in every)
    assert best <= descended <= 1.1 * best
    assert descended < 0.9 * nearest


def test_wide_layers_go_block_by_block_to_the_same_end(monkeypatch):
    form, wished = random_form(groups=1, rows=5, inputs=11)
    grid = grid_of(wished)
    ends = []
    for size in (64, 3):
        monkeypatch.setattr("micronet_cli.functional.coordinate_descent.BLOCK", size)
        codes = rounded_in_turn(form, grid)
        descend(form, grid, codes)
        ends.append(codes)
    assert torch.equal(*ends)


def test_masked_weights_stay_zero_and_the_others_make_up_for_them():
    form, wished = random_form()
    kept = torch.ones_like(wished)
    kept[..., 0] = 0
    grid = grid_of(wished, kept=kept)
    codes = rounded_in_turn(form, grid)
    descend(form, grid, codes)
    weight = grid.weight(codes)
    assert (weight[..., 0] == 0).all()
    dropped = grid.codes(wished)
    assert form(weight).sum() < form(grid.weight(dropped)).sum()


def test_steps_are_the_least_squares_ones_and_shared_where_asked():
    form, wished = random_form()
    grid = grid_of(wished)
    codes = grid.codes(wished)
    steps = best_steps(form, grid, codes)
    moved = (steps != grid.step)[..., 0]
    assert moved.any()
    own = form(Grid(steps, grid.zero_point, 3, grid.kept).weight(codes))
    for factor in (0.98, 1.02):
        other = Grid(steps * factor, grid.zero_point, 3, grid.kept)
        assert (form(other.weight(codes)) > own)[moved].all()
    shared = best_steps(form, grid, codes, shared=True)
    assert shared.unique().numel() == 1


def test_a_row_of_zeros_keeps_its_step():
    form, wished = random_form()
    grid = grid_of(wished, step=0.25)
    zeros = torch.ones_like(wished)  # the code of 0
    assert torch.equal(best_steps(form, grid, zeros), grid.step)
