"""What a resumed training goes on from: tensors, counters and random numbers."""

import logging

import pytest
import torch
from torch import nn

from micronet_cli import checkpoint
from micronet_cli.errors import UserError
from micronet_cli.training.state import Place, Stateful, read_state, restore_state, state_of


def parts(seed, average=True, inputs=2, scaled=True, **options):
    """A network after a step of its own."""
    torch.manual_seed(seed)
    model = nn.Linear(inputs, 2)
    own = [nn.Parameter(torch.randn(3))]
    optimizer = torch.optim.SGD([*model.parameters(), *own], **{"lr": 0.1, "momentum": 0.9} | options)
    (model(torch.randn(4, inputs)).sum() + own[0].sum()).backward()
    optimizer.step()
    averaged = nn.Linear(inputs, 2) if average else None
    return Stateful(model, averaged, own, optimizer, torch.amp.GradScaler("cpu", enabled=scaled))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "state.pt"


def test_everything_comes_back(file):
    first, second = parts(0), parts(1)
    place = Place(step=3, total=9, best={"epoch": 0, "val_top1": 50.0})
    checkpoint.save_state(file, state_of(first, place))
    drawn = torch.rand(3)
    assert read_state(second, file, total=9) == place
    assert torch.equal(torch.rand(3), drawn)
    for one, other in ((first.model, second.model), (first.average, second.average)):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert torch.equal(first.objective_parameters[0], second.objective_parameters[0])
    momenta = [p.optimizer.state_dict()["state"][0]["momentum_buffer"] for p in (first, second)]
    assert torch.equal(*momenta)


def test_objective_parameters_stay_the_optimisers():
    first, second = parts(0), parts(1)
    kept = second.objective_parameters[0]
    restore_state(second, state_of(first, Place(1, 2, None)))
    assert second.optimizer.param_groups[0]["params"][-1] is kept


def test_keys_are_those_of_earlier_versions():
    state = state_of(parts(0, average=False), Place(1, 2, None))
    assert list(state) == ["total", "step", "best", "model", "ema", "objective", "optimizer", "scaler", "rng"]
    assert state["ema"] is None


def test_random_numbers_of_another_number_of_processes_are_left_alone():
    state = state_of(parts(0), Place(1, 2, None))
    state["rng"] = state["rng"] * 2
    second = parts(1)
    torch.manual_seed(7)
    expected = torch.rand(2)
    torch.manual_seed(7)
    restore_state(second, state)
    assert torch.equal(torch.rand(2), expected)


def test_another_length_is_told(file, caplog):
    checkpoint.save_state(file, state_of(parts(0), Place(1, 9, None)))
    caplog.set_level(logging.WARNING)
    assert read_state(parts(1), file, total=12).step == 1
    assert "the run was 9 steps long and is 12 now" in caplog.text


@pytest.mark.parametrize(
    ("options", "drop"),
    [
        pytest.param({"inputs": 3}, None, id="another network"),
        pytest.param({"average": False}, "model", id="a key is missing"),
        pytest.param({}, "objective", id="another objective"),
    ],
)
def test_a_state_that_does_not_fit_is_a_mistake(file, options, drop):
    state = state_of(parts(0), Place(1, 9, None))
    if drop == "objective":
        state["objective"] = []
    elif drop:
        del state[drop]
    checkpoint.save_state(file, state)
    with pytest.raises(UserError, match=r"resume=true: the state in .* is of another network or optimiser \(.+\)"):
        read_state(parts(1, **options), file, total=9)


def test_a_state_without_an_average_does_not_fit_a_run_with_one(file):
    checkpoint.save_state(file, state_of(parts(0, average=False), Place(1, 9, None)))
    with pytest.raises(UserError, match="of another network or optimiser"):
        read_state(parts(1), file, total=9)


def test_a_damaged_file_is_a_mistake(file):
    file.write_bytes(b"x")
    with pytest.raises(UserError, match="is damaged"):
        read_state(parts(0), file, total=9)


def test_the_optimiser_has_the_options_of_now_and_the_state_of_then(file):
    first, second = parts(0), parts(1, momentum=0.5, weight_decay=0.01)
    checkpoint.save_state(file, state_of(first, Place(1, 9, None)))
    read_state(second, file, total=9)
    (group,) = second.optimizer.param_groups
    assert (group["momentum"], group["weight_decay"]) == (0.5, 0.01)
    kept = second.optimizer.state_dict()["state"][0]["momentum_buffer"]
    assert torch.equal(kept, first.optimizer.state_dict()["state"][0]["momentum_buffer"])


def test_the_next_step_is_made_with_the_options_of_now():
    first, second = parts(0, momentum=0.0), parts(1, momentum=0.0, weight_decay=0.5)
    restore_state(second, state_of(first, Place(1, 9, None)))
    weight = second.model.weight
    before = weight.detach().clone()
    second.optimizer.zero_grad()
    weight.grad = torch.zeros_like(weight)
    second.optimizer.step()
    assert torch.allclose(weight, before * (1 - 0.1 * 0.5))


def test_what_an_optimiser_keeps_in_its_groups_goes_on():
    first, second = parts(0), parts(1)
    first.optimizer.param_groups[0]["counter"] = 7
    second.optimizer.param_groups[0]["counter"] = 0
    restore_state(second, state_of(first, Place(1, 9, None)))
    assert second.optimizer.param_groups[0]["counter"] == 7


@pytest.mark.parametrize("then", [True, False])
@pytest.mark.parametrize("now", [True, False])
def test_a_loss_scale_may_be_switched_on_and_off(then, now):
    second = parts(1, scaled=now)
    restore_state(second, state_of(parts(0, scaled=then), Place(1, 9, None)))
    assert second.scaler.is_enabled() is now


@pytest.mark.parametrize("total", [1, 3])
def test_a_run_is_not_cut_shorter_than_it_is(file, total):
    checkpoint.save_state(file, state_of(parts(0), Place(3, 9, None)))
    with pytest.raises(UserError, match=f"resume=true: 3 steps are done and the run is to have {total}; give more"):
        read_state(parts(1), file, total)


def test_a_run_that_has_ended_is_read(file):
    checkpoint.save_state(file, state_of(parts(0), Place(3, 3, None)))
    assert read_state(parts(1), file, total=3).step == 3
