"""``stage=shrink`` on the command line: the smaller network saves, loads, scores and trains like any other."""

import pytest

import micronet_cli
from tests.conftest import TINY, metrics_of


@pytest.fixture
def pruned(micronet):
    return micronet("stage=prune", *TINY, "prune=filter", "prune.rules.conv.sparsity=0.5", "trainer.max_steps=12")


def test_shrunk_network_is_smaller_and_answers_the_same(micronet, pruned):
    run = micronet("stage=shrink", f"init_from={pruned}")
    before, after = metrics_of(pruned), metrics_of(run)
    assert after["status"] == "completed"
    assert after["removed_params"] > 0
    assert after["params"] == sum(p.numel() for p in micronet_cli.load(str(run)).parameters())
    assert (after["split"], after["top1"]) == (before["split"], before["top1"])
    assert after["micronet_score"] <= before["micronet_score"]
    again = metrics_of(micronet("stage=eval", f"init_from={run}"))
    assert (again["top1"], again["micronet_score"]) == (after["top1"], after["micronet_score"])
    quantised = micronet("stage=qat", f"init_from={run}", "trainer.max_steps=2")
    assert metrics_of(quantised)["status"] == "completed"
    assert metrics_of(quantised)["weight_bits_mean"] < 32
    packed = micronet("stage=export", f"init_from={quantised}", "export.onnx=false")
    scored = metrics_of(micronet("stage=score", f"init_from={packed}"))
    assert scored["micronet_score"] == metrics_of(quantised)["micronet_score"]


def test_a_network_without_dead_channels_says_so(micronet, capsys):
    dense = micronet("stage=train", *TINY, "trainer.max_steps=2")
    run = micronet("stage=shrink", f"init_from={dense}")
    assert "Nothing to remove" in capsys.readouterr().out
    assert metrics_of(run)["removed_params"] == 0
    assert metrics_of(run)["top1"] == metrics_of(dense)["top1"]


def test_a_multiple_that_is_none_is_a_mistake(mistake):
    assert "stage.multiple=0: must be at least 1" in mistake("stage=shrink", *TINY, "stage.multiple=0")
