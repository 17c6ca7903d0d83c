"""Layer after layer: the order, what a resumed run goes on with, what the time left is reckoned by."""

import copy

import pytest
import torch

from micronet_cli.compression.quantization import layer_by_layer
from micronet_cli.compression.quantization.adaround import AdaRound
from micronet_cli.compression.quantization.post_training import PostTraining
from micronet_cli.compression.quantization.quantizer import BitsRule, Quantizer
from tests.compression.quantization.test_post_training import SHAPE, images, network


def calibrated(weight_bits=3, **options):
    model = network()
    sweep = PostTraining(rows=512, adaround=AdaRound(iterations=20, batch_size=64, **options)).prepare(model, SHAPE)
    Quantizer({"all": BitsRule(".*")}, weight_bits, 8).attach(model)
    sweep.calibrate(model.eval(), images())
    return sweep, model


def same(one, other):
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.parametrize("done", [1, 2, 3, 4])
def test_a_resumed_run_ends_alike(done):
    sweep, whole = calibrated()
    lines = list(sweep.layer_by_layer(whole).run(images()))
    sweep, model = calibrated()
    work = sweep.layer_by_layer(model)
    before = [line for _, line in zip(range(done), work.run(images()), strict=False)]
    state = copy.deepcopy(work.state())
    sweep, model = calibrated()
    again = sweep.layer_by_layer(model)
    again.restore(state)
    assert again.done == done
    assert before + list(again.run(images())) == lines
    assert same(model, whole)


def test_little_memory_changes_nothing(tmp_path):
    sweep, model = calibrated()
    lines = list(sweep.layer_by_layer(model).run(images()))
    sweep, other = calibrated()
    work = sweep.layer_by_layer(other, tmp_path)
    work.memory_mb = 0
    assert list(work.run(images())) == lines
    assert same(model, other)


def test_a_state_of_another_network_is_refused():
    sweep, model = calibrated()
    work = sweep.layer_by_layer(model)
    state = work.state() | {"names": ["0"]}
    with pytest.raises(ValueError, match="other layers"):
        work.restore(state)


def test_eight_bits_are_rounded_to_the_nearest_unless_asked():
    learned = {}
    for when in ("auto", "always"):
        sweep, model = calibrated(weight_bits=8, when=when)
        learned[when] = [line["learned"] for line in sweep.layer_by_layer(model).run(images())]
    assert learned == {"auto": [False] * 4, "always": [True] * 4}


def test_few_rows_tell_the_error_of_what_all_rows_decide(monkeypatch):
    sweep, model = calibrated()
    by_all = list(sweep.layer_by_layer(model).run(images()))
    monkeypatch.setattr(layer_by_layer, "JUDGED", 256)
    sweep, other = calibrated()
    by_few = list(sweep.layer_by_layer(other).run(images()))
    assert same(model, other)
    errors, estimates = ([line["error"] for line in lines] for lines in (by_all, by_few))
    assert estimates == pytest.approx(errors, rel=0.3)
    assert estimates != errors


def test_a_layer_that_learns_costs_more():
    sweep, model = calibrated()
    few_bits = sweep.layer_by_layer(model).costs(images())
    sweep, model = calibrated(weight_bits=8)
    eight_bits = sweep.layer_by_layer(model).costs(images())
    assert all(few > eight for few, eight in zip(few_bits, eight_bits, strict=True))
