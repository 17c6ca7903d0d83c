"""Second moments of a layer's inputs in two networks, against the outputs themselves."""

import pytest
import torch

from micronet_cli.compression.pruning.layer_moments import Moments
from micronet_cli.trace.layer_inputs import product


def rows(groups=2, count=300, inputs=6):
    generator = torch.Generator().manual_seed(0)
    seen = torch.randn(groups, count, inputs, generator=generator)
    disturbed = seen + 0.3 * torch.randn(groups, count, inputs, generator=generator)
    return torch.randn(4, inputs, generator=generator), seen, disturbed


def squared(outputs):
    return float(outputs.square().sum()) / outputs.shape[1]


def test_error_is_that_of_the_outputs():
    weight, seen, disturbed = rows()
    moments = Moments.of(weight, seen, disturbed, seen.shape[1])
    wanted = product(seen, weight)
    for other in (weight, 0.5 * weight, torch.zeros_like(weight)):
        found = squared(wanted - product(disturbed, other)) / squared(wanted)
        assert moments.error(weight, other) == pytest.approx(found, rel=1e-4)


def test_nearest_weight_is_that_of_least_squares():
    weight, seen, disturbed = rows()
    moments = Moments.of(weight, seen, disturbed, seen.shape[1])
    found = moments.nearest_weight(weight, moments.hessian.double())
    for group in range(2):
        channels = slice(2 * group, 2 * group + 2)
        wanted = torch.linalg.lstsq(disturbed[group], seen[group] @ weight[channels].T).solution.T
        torch.testing.assert_close(found[channels], wanted, atol=1e-4, rtol=1e-4)


def test_undisturbed_inputs_leave_the_weight():
    weight, seen, _ = rows()
    moments = Moments.of(weight, seen, seen, seen.shape[1])
    assert torch.equal(moments.nearest_weight(weight, moments.hessian.double()), weight)
    assert moments.error(weight, weight) == 0


def test_an_output_that_is_always_zero_divides_nothing():
    weight, seen, disturbed = rows()
    moments = Moments.of(weight, torch.zeros_like(seen), disturbed, 300)
    assert moments.error(weight, torch.zeros_like(weight)) == pytest.approx(0, abs=1e-5)


def test_few_rows_of_many_inputs_are_drawn_towards_the_identity():
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(40, 40, generator=generator)
    shares = []
    for count in (20, 2000):
        seen = torch.randn(1, count, 40, generator=generator) @ mixed
        moments = Moments.of(torch.randn(3, 40, generator=generator), seen, seen, count)
        shares.append(float(moments.shrinkage))
        # What it is for: the inverse of the true moments is nearer.
        true = (mixed.T @ mixed).double()
        drawn = (1 - shares[-1]) * moments.hessian[0].double() + shares[-1] * true.trace() / 40 * torch.eye(40)
        assert (drawn - true).norm() < (moments.hessian[0] - true).norm()
    assert 0.3 < shares[0] < 0.9
    assert shares[1] < 0.02


def test_shrinkage_by_hand():
    # x = (1, 0), (1, 0), (0, 1): H = diag(2/3, 1/3); E|x|^4 = 1, |H|^2 = 5/9, so the noise is (4/9) / 3 = 4/27;
    # |H - I/2|^2 = 1/18. 4/27 over 1/18 is more than 1.
    seen = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
    weight = torch.ones(1, 2)
    assert Moments.of(weight, seen, seen, seen.shape[1]).shrinkage.tolist() == pytest.approx([0.99])
    # Nine times the rows: a ninth, (4/243) / (1/18) = 8/27.
    often = seen.repeat(1, 9, 1)
    assert Moments.of(weight, often, often, 27).shrinkage.tolist() == pytest.approx([8 / 27])
    # No input at all.
    nothing = torch.zeros(2, 3, 2)
    assert Moments.of(torch.ones(2, 2), nothing, nothing, 3).shrinkage.tolist() == [0, 0]


@pytest.mark.parametrize("positions", [2, 7], ids=["fewer than inputs", "more than inputs"])
def test_positions_of_an_image_that_are_alike_count_once(positions):
    rows = torch.randn(2, 12, 4, generator=torch.Generator().manual_seed(0))
    weight = torch.ones(2, 4)
    once = Moments.of(weight, rows, rows, 12)
    repeated = rows.repeat_interleave(positions, dim=1)
    often = Moments.of(weight, repeated, repeated, 12)
    assert often.shrinkage.tolist() == pytest.approx(once.shrinkage.tolist(), rel=1e-4)
    assert (Moments.of(weight, repeated, repeated, 12 * positions).shrinkage < 0.9 * once.shrinkage).all()
