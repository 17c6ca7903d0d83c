"""What the layers cost beside each other: the work between them, their rows, and a clock that tells the time left."""

import pytest
import torch
from torch import nn

from micronet_cli.compression.quantization import layer_costs
from micronet_cli.compression.quantization.adaround import AdaRound
from micronet_cli.compression.quantization.layer_costs import PER_ELEMENT, LayerWork, layer_work
from micronet_cli.compression.quantization.post_training import PostTraining
from micronet_cli.compression.quantization.quantizer import BitsRule, Quantizer
from micronet_cli.stages import ptq
from micronet_cli.stages.ptq import Pace

SHAPE = (3, 8, 8)


def mixed():
    """A wide stem on a large image, a layer of groups, a large classifier: none costs what another does."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 16, 3, stride=4, groups=16), nn.ReLU(), nn.Flatten(), nn.Linear(64, 100),
    )  # fmt: skip


def layer_by_layer(bits=4):
    model = mixed()
    sweep = PostTraining(rows=64, adaround=AdaRound()).prepare(model, SHAPE)
    Quantizer({"all": BitsRule(".*")}, bits, 8).attach(model)
    batches = [torch.randn(8, *SHAPE)]
    sweep.calibrate(model.eval(), batches)
    return sweep.layer_by_layer(model), batches


def test_work_before_a_layer_is_what_runs_since_the_last_one():
    work = layer_work(mixed().eval(), torch.randn(1, *SHAPE), ["0", "2", "5"])
    stem = 16 * 64 * 27 + PER_ELEMENT * (3 * 64 + 16 * 64)
    relu = PER_ELEMENT * 2 * 16 * 64
    grouped = 16 * 4 * 9 + PER_ELEMENT * (16 * 64 + 16 * 4)
    after = PER_ELEMENT * (2 * 64 + 2 * 64)
    assert work == {"0": LayerWork(0, 64), "2": LayerWork(stem + relu, 4), "5": LayerWork(grouped + after, 1)}


def test_costs_follow_the_rows_that_are_read_and_the_products(monkeypatch):
    for name in ("PER_LAYER", "PER_JUDGED", "PER_MOMENT", "PER_PAIR"):
        monkeypatch.setattr(layer_costs, name, 0)
    work, batches = layer_by_layer()
    before = layer_work(work.reference, batches[0][:1], work.names)
    read = [cost - 2 * 8 * before[name].before for name, cost in zip(work.names, work.costs(batches), strict=True)]
    # 8 positions an image of 64, 4 of 4, 1 of 1; a row reads 27 numbers, 16 * 9, 64; both networks.
    rows_and_values = [(8 * 8, 27), (8 * 4, 16 * 9), (8 * 1, 64)]
    assert read == [2 * 30 * rows * values for rows, values in rows_and_values]


def test_learned_rounding_costs_the_square_of_what_a_channel_reads(monkeypatch):
    monkeypatch.setattr(layer_costs, "PER_MOMENT", 0)
    few, batches = layer_by_layer(bits=4)
    many, _ = layer_by_layer(bits=8)
    more = [one - other for one, other in zip(few.costs(batches), many.costs(batches), strict=True)]
    assert more == [70 * 16 * 27**2, 70 * 16 * 9**2, 70 * 100 * 64**2]


def test_the_time_left_is_right_after_every_layer(monkeypatch):
    for name in ("PER_LAYER", "PER_ELEMENT", "PER_JUDGED", "PER_MOMENT", "PER_PAIR"):
        monkeypatch.setattr(layer_costs, name, 0)
    monkeypatch.setattr(layer_costs, "PER_VALUE", 1e6)  # a machine on which it takes nothing but to read rows
    seconds = [8 * 8 * 27, 8 * 4 * 16 * 9, 8 * 1 * 64]
    work, batches = layer_by_layer()
    clock = [100.0]
    monkeypatch.setattr(ptq.time, "perf_counter", lambda: clock[0])
    pace = Pace(work.costs(batches), done=0)
    for number, taken in enumerate(seconds, 1):
        clock[0] += taken
        assert pace.seconds_left(number) == pytest.approx(sum(seconds[number:]), rel=0.01)
