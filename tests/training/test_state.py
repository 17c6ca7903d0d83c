"""What a resumed training goes on from: tensors, counters and random numbers."""

import logging

import pytest
import torch
from torch import nn

from micronet_cli import checkpoint
from micronet_cli.errors import UserError
from micronet_cli.training.state import Place, Stateful, read_state, restore_state, state_of


def parts(seed, average=True, inputs=2):
    """A network after a step of its own."""
    torch.manual_seed(seed)
    model = nn.Linear(inputs, 2)
    own = [nn.Parameter(torch.randn(3))]
    optimizer = torch.optim.SGD([*model.parameters(), *own], lr=0.1, momentum=0.9)
    (model(torch.randn(4, inputs)).sum() + own[0].sum()).backward()
    optimizer.step()
    averaged = nn.Linear(inputs, 2) if average else None
    return Stateful(model, averaged, own, optimizer, torch.amp.GradScaler("cpu", enabled=True))


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
