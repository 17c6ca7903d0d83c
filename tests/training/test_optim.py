"""Optimisers and learning-rate schedules, rates by hand."""

import pytest
from torch import nn

from micronet_cli.errors import UserError
from micronet_cli.training.optim import Optim


def test_unknown_argument_of_an_optimiser_is_answered():
    with pytest.raises(UserError, match=r"optim\.args=.*momentum does not take them"):
        Optim("momentum", args={"betta": 0.9}).optimizer(nn.Linear(2, 2))


def test_exponential_schedule_holds_then_decays():
    model = nn.Linear(2, 2)
    optim = Optim("momentum", lr=1.0, schedule="exponential", gamma=0.5, hold_epochs=2)
    optimizer = optim.optimizer(model)
    scheduler = optim.scheduler(optimizer, steps=50, steps_per_epoch=10)
    rates = []
    for step in range(50):
        scheduler.step_update(step)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [1.0] * 20 + [0.5] * 10 + [0.25] * 10 + [0.125] * 10


@pytest.mark.parametrize("per_epoch", [50, 1000])  # whole epochs, and less than one
def test_cosine_schedule_ends_near_zero(per_epoch):
    optim = Optim("momentum", lr=1.0)
    optimizer = optim.optimizer(nn.Linear(2, 2))
    scheduler = optim.scheduler(optimizer, steps=100, steps_per_epoch=per_epoch)
    scheduler.step_update(50)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5)
    scheduler.step_update(99)
    assert optimizer.param_groups[0]["lr"] < 0.001


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"name": "adamv"}, r"name='adamv': no such optimiser; did you mean", id="name"),
        pytest.param({"lr": 0.0}, r"lr=0\.0: must be more than 0", id="lr"),
        pytest.param({"weight_decay": -1.0}, r"weight_decay=-1\.0: must be at least 0", id="weight_decay"),
    ],
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Optim(**options)


def test_biases_and_norms_get_no_weight_decay():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    groups = Optim("momentum", weight_decay=0.1).optimizer(model).param_groups
    decayed = [p for group in groups if group["weight_decay"] for p in group["params"]]
    assert [p is model[0].weight for p in decayed] == [True]


def rates_of(optim, steps, steps_per_epoch):
    optimizer = optim.optimizer(nn.Linear(2, 2))
    scheduler = optim.scheduler(optimizer, steps, steps_per_epoch)
    found = []
    for step in range(steps):
        scheduler.step_update(step)
        found.append(optimizer.param_groups[0]["lr"])
    return found


def test_constant_schedule_stays():
    assert set(rates_of(Optim("momentum", lr=0.5, schedule="constant"), 6, 2)) == {0.5}


def test_multistep_schedule_decays_from_its_epochs_on():
    optim = Optim("momentum", lr=1.0, schedule="multistep", milestones=[1, 2], gamma=0.5)
    assert rates_of(optim, 6, 2) == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_warmup_is_linear_from_its_rate():
    optim = Optim("momentum", lr=1.0, schedule="constant", warmup_epochs=1, warmup_lr=0.2)
    assert rates_of(optim, 8, 4)[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])


def test_a_rate_is_a_function_of_the_step_alone():
    optim = Optim("momentum", lr=1.0)
    rates = rates_of(optim, 10, 5)
    optimizer = optim.optimizer(nn.Linear(2, 2))
    optim.scheduler(optimizer, 10, 5).step_update(7)
    assert optimizer.param_groups[0]["lr"] == rates[7]
