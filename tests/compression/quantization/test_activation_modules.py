"""Learned activation quantisers: where step and offset start, their gradients, zeros and checkpoints."""

import copy

import pytest
import torch

from micronet_cli.compression.quantization.activation_modules import LearnedOffsetActivation, LearnedStepActivation
from micronet_cli.compression.quantization.activation_quantizers import PACT, ActivationLSQ, ActivationLSQPlus


def test_pact_starts_at_the_range_and_lsq_plus_at_both_ends():
    for data, size, zero_point in (([0.0, 15.0], 1, 0), ([-8.0, 3.5], 1, -8), ([-4.0, 7.0], 1, -8)):
        pact = PACT()(4).train()
        pact(torch.tensor([data]))
        assert (pact.step.item(), pact.zero_point().item()) == (size, zero_point)
    plus = ActivationLSQPlus()(2).train()
    plus(torch.tensor([[-1.0, 0.0, 1.0, 2.0]]))
    assert (plus.step.item(), plus.zero_point().item(), plus.beta.item()) == (1, -1, -1)


@pytest.mark.parametrize("bits", [4, 8])
def test_pact_learns_alpha_at_the_pace_of_its_gradient(bits):
    quantizer = PACT()(bits).train()
    top = 2**bits - 1
    quantizer(torch.tensor([[0.0, 2.0]]))
    alpha = quantizer.step.item() * top
    (0.1 * quantizer(torch.tensor([[0.5, 3.0]]))).sum().backward()  # d loss / d alpha = 0.1 (equation 3)
    quantizer.step.data -= 0.01 * quantizer.step.grad
    assert quantizer.step.item() * top == pytest.approx(alpha - 0.01 * 0.1, abs=1e-6)


@pytest.mark.parametrize(
    ("first", "top"), [pytest.param(0.0, 15, id="unsigned data"), pytest.param(-1.0, 7, id="signed data")]
)
def test_lsq_scales_the_gradient_of_the_step_by_features_and_levels(first, top):
    quantizer = ActivationLSQ()(4).train()
    quantizer(torch.tensor([[first, 1.0, 3.0]]))
    quantizer(torch.tensor([[0.0, 50.0, 0.0]])).sum().backward()
    assert quantizer.step.grad.item() == pytest.approx(top / (3 * top) ** 0.5)  # section 2.2


def test_an_empty_first_batch_leaves_a_usable_step():
    quantizer = ActivationLSQ()(4).train()
    assert quantizer(torch.zeros(2, 3)).tolist() == [[0, 0, 0]] * 2
    assert quantizer.step == 1


@pytest.fixture(params=["lsq", "lsq_plus", "pact"])
def started(request):
    made = {"lsq": ActivationLSQ(), "lsq_plus": ActivationLSQPlus(), "pact": PACT()}[request.param](4).train()
    made(torch.tensor([[-1.0, 0.5, 3.0]]))
    return made


def test_zeros_survive(started):
    assert started(torch.zeros(2, 3)).tolist() == [[0, 0, 0]] * 2


def test_a_loaded_step_does_not_start_anew(started):
    loaded = copy.deepcopy(started)
    loaded.started = False
    loaded.load_state_dict(started.state_dict())
    x = torch.tensor([[-70.0, 50.0]])
    assert torch.equal(loaded(x), started(x))
    assert loaded.step == started.step


def test_copies_have_steps_of_their_own(started):
    copied = copy.deepcopy(started)
    copied.step.data.fill_(9.0)
    assert started.step != 9


def test_evaluation_does_not_start_the_step():
    quantizer = LearnedStepActivation(4).eval()
    quantizer(torch.ones(1, 2))
    assert not quantizer.started
    assert quantizer.step == 1


def test_a_negative_step_counts_by_its_magnitude():
    quantizer = LearnedStepActivation(2).eval()
    quantizer.step.data.fill_(-2.0)
    assert quantizer(torch.tensor([-1.0, 0.9, 3.0, 99.0])).tolist() == [0, 0, 4, 6]
    assert quantizer.qparams()[0] == 0.5


@pytest.mark.parametrize(
    ("beta", "first"),
    [
        pytest.param(-1.2, -1, id="inside"),
        pytest.param(5.0, 0, id="above 0"),
        pytest.param(-50.0, -3, id="below all integers"),
    ],
)
def test_an_offset_keeps_zero_inside_the_range(beta, first):
    quantizer = LearnedOffsetActivation(2).eval()
    quantizer.beta.data.fill_(beta)
    assert quantizer.zero_point() == first
    assert quantizer(torch.zeros(1)) == 0
