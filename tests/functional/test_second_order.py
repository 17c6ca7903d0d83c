"""Optimal Brain Compression by hand, and against trying every choice."""

import itertools

import pytest
import torch

from micronet_cli.functional import second_order
from micronet_cli.functional.masks import shrink_mask
from micronet_cli.functional.pruning import magnitude
from micronet_cli.functional.second_order import damped, obs_importance, obs_update

HESSIAN = torch.tensor([[2.0, 1.0], [1.0, 2.0]])  # its inverse: [[2, -1], [-1, 2]] / 3


def ones(*shape):
    return torch.ones(shape, dtype=torch.bool)


def correlated(rows=6, d=8):
    torch.manual_seed(0)
    inputs = torch.randn(200, d) @ torch.randn(d, d)
    return torch.randn(rows, d), damped(2 * inputs.T @ inputs / 200, 1e-4)


def error(weight, pruned, hessian):
    difference = (weight - pruned).double()
    return float((difference @ hessian * difference).sum() / 2)


def test_golden_two_weights():
    # 1 / (2/3) = 1.5 against 4 / (2/3) = 6: the first goes, the second becomes 2 + 1/2; then it costs 2.5^2 * 2
    found = obs_importance(torch.tensor([[1.0, 2.0]]), HESSIAN, ones(1, 2))
    assert torch.allclose(found, torch.tensor([[1.5, 12.5]]))
    assert obs_update(torch.tensor([[1.0, 2.0]]), HESSIAN, torch.tensor([[False, True]])).tolist() == [[0.0, 2.5]]


def test_costs_are_twice_the_error_that_a_removal_adds():
    weight, hessian = correlated(rows=1)
    importance = obs_importance(weight, hessian, ones(1, 8))
    order = importance[0].argsort()
    pruned = [obs_update(weight, hessian, ones(1, 8).index_fill(1, order[:k], False)) for k in range(1, 9)]
    errors = [0.0] + [2 * error(weight, p, hessian) for p in pruned]
    added = torch.tensor([after - before for before, after in itertools.pairwise(errors)])
    assert torch.allclose(torch.cummax(added, 0).values, importance[0][order], rtol=1e-3)


def test_first_to_go_is_the_best_of_all_choices():
    weight, hessian = correlated(rows=5)
    for row in range(5):
        one = weight[row : row + 1]
        alone = [error(one, obs_update(one, hessian, ones(1, 8).index_fill(1, torch.tensor([i]), False)), hessian)
                 for i in range(8)]  # fmt: skip
        first = int(obs_importance(one, hessian, ones(1, 8)).argmin())
        assert first == min(range(8), key=alone.__getitem__)


def test_beats_magnitude_and_the_update_helps_by_itself():
    weight, hessian = correlated(rows=16)
    by_magnitude = shrink_mask(magnitude(weight), ones(16, 8), 0.5)
    ours = shrink_mask(obs_importance(weight, hessian, ones(16, 8)), ones(16, 8), 0.5)
    plain = error(weight, weight * by_magnitude, hessian)
    updated = error(weight, obs_update(weight, hessian, by_magnitude), hessian)
    best = error(weight, obs_update(weight, hessian, ours), hessian)
    assert best < updated < plain


def test_uncorrelated_inputs_make_it_the_magnitude():
    torch.manual_seed(0)
    weight = torch.randn(4, 6)
    importance = obs_importance(weight, torch.eye(6), ones(4, 6))
    assert torch.equal(importance, weight.square())
    mask = shrink_mask(importance, ones(4, 6), 0.5)
    assert torch.allclose(obs_update(weight, torch.eye(6), mask), weight * mask)


def test_ties_go_by_index():
    importance = obs_importance(torch.ones(2, 3), torch.eye(3), ones(2, 3))
    assert importance.tolist() == [[1.0] * 3] * 2
    assert shrink_mask(importance, ones(2, 3), 0.5).tolist() == [[False] * 3, [True] * 3]


def test_all_zero_and_one_element():
    assert obs_importance(torch.zeros(1, 2), HESSIAN, ones(1, 2)).tolist() == [[0.0, 0.0]]
    assert obs_update(torch.zeros(1, 2), HESSIAN, ones(1, 2)).tolist() == [[0.0, 0.0]]
    one = torch.tensor([[3.0]])
    assert obs_importance(one, torch.tensor([[2.0]]), ones(1, 1)).tolist() == [[18.0]]
    assert obs_update(one, torch.tensor([[2.0]]), ~ones(1, 1)).tolist() == [[0.0]]


def test_what_is_dropped_already_stays_zero_and_costs_nothing():
    weight, hessian = correlated()
    mask = torch.rand(6, 8) > 0.3
    importance = obs_importance(weight, hessian, mask)
    assert (importance[~mask] == 0).all()
    assert (importance[mask] > 0).all()
    assert (obs_update(weight * mask, hessian, mask)[~mask] == 0).all()
    assert torch.allclose(obs_update(weight * mask, hessian, mask), weight * mask, atol=1e-4)


def test_pieces_give_what_the_whole_gives(monkeypatch):
    weight, hessian = correlated()
    whole = obs_importance(weight, hessian, ones(6, 8))
    monkeypatch.setattr(second_order, "CHUNK_ELEMENTS", 64 * 4)
    assert torch.allclose(obs_importance(weight, hessian, ones(6, 8)), whole)


DAMPED = {
    "share of the mean diagonal": ([[4.0, 1.0], [1.0, 2.0]], 0.5, [[5.5, 1.0], [1.0, 3.5]]),
    "none": ([[4.0, 1.0], [1.0, 2.0]], 0.0, [[4.0, 1.0], [1.0, 2.0]]),
    "an input that was never seen": ([[0.0, 0.0], [0.0, 4.0]], 0.1, [[0.2, 0.0], [0.0, 4.2]]),
    "no input at all": ([[0.0, 0.0], [0.0, 0.0]], 0.1, [[1.0, 0.0], [0.0, 1.0]]),
}


@pytest.mark.parametrize(("hessian", "dampening", "expected"), DAMPED.values(), ids=DAMPED.keys())
def test_damped_by_hand(hessian, dampening, expected):
    found = damped(torch.tensor(hessian), dampening)
    assert found.dtype == torch.float64
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64))


def test_importance_rises_along_the_order_of_removal():
    # The greedy order's costs alone may fall: H^-1 = [[2, -1], [-1, 2]] / 3 costs 1.5 for the first, then
    # (1 + 1/2)^2 * 2 = 4.5 for the second.
    found = obs_importance(torch.tensor([[1.0, 1.0]]), HESSIAN, ones(1, 2))
    assert torch.allclose(found, torch.tensor([[1.5, 4.5]]))
    # Opposite signs: the second becomes -1 + 1/2, which would cost 0.5, below what has been paid: 1.5 stands.
    found = obs_importance(torch.tensor([[1.0, -1.0]]), HESSIAN, ones(1, 2))
    assert torch.allclose(found, torch.tensor([[1.5, 1.5]]))


def test_update_keeps_type_and_the_weight_where_all_is_kept():
    weight, hessian = correlated()
    found = obs_update(weight, hessian, ones(6, 8))
    assert found.dtype == weight.dtype
    assert torch.allclose(found, weight, atol=1e-4)


def test_update_of_each_row_follows_its_own_mask():
    masks = torch.tensor([[False, True], [True, False], [False, False]])
    found = obs_update(torch.tensor([[1.0, 2.0]] * 3), HESSIAN, masks)
    # H w = (4, 5): divided by the diagonal where one is left.
    assert found.tolist() == [[0, 2.5], [2, 0], [0, 0]]


@pytest.mark.parametrize("dampening", [0.01, 1.0])
def test_dampening_makes_a_singular_hessian_invertible(dampening):
    singular = torch.ones(3, 3)
    assert torch.linalg.eigvalsh(damped(singular, dampening)).min() == pytest.approx(dampening)


def test_each_group_follows_its_own_hessian():
    weight, hessian = correlated()
    hessians = torch.stack([hessian, torch.eye(8, dtype=torch.float64)])
    weights = torch.stack([weight, weight])
    masks = torch.stack([ones(6, 8), torch.rand(6, 8) > 0.5])
    importance, updated = obs_importance(weights, hessians, masks), obs_update(weights, hessians, masks)
    for group in range(2):
        alone = (weights[group], hessians[group], masks[group])
        torch.testing.assert_close(importance[group], obs_importance(*alone))
        torch.testing.assert_close(updated[group], obs_update(*alone))


def test_several_at_a_time_are_nearly_as_good(monkeypatch):
    weight, hessian = correlated(rows=16, d=32)
    errors = []
    for steps in (32, 8):
        monkeypatch.setattr(second_order, "STEPS", steps)
        mask = shrink_mask(obs_importance(weight, hessian, ones(16, 32)), ones(16, 32), 0.5)
        errors.append(error(weight, obs_update(weight, hessian, mask), hessian))
    assert errors[0] != errors[1]
    assert errors[1] < 1.1 * errors[0]
