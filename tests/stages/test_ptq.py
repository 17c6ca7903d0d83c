"""Guards ``stage=ptq`` as a user types it, on the embedded digits: figures, saved networks, mistakes."""

from typing import NamedTuple

import pytest
import torch

import micronet_cli
from micronet_cli.checkpoint import load, read_header, resolve
from micronet_cli.compression.quantization.fixed_grid import FixedGrid
from micronet_cli.compression.quantization.layer_by_layer import LayerByLayer
from micronet_cli.layers.effective_weight import effective_weight
from micronet_cli.layers.rules import compressible_layers
from micronet_cli.stages.ptq import Pace
from tests.conftest import TINY, history_of, metrics_of

QUICK = ("ptq.images=128", "ptq.rows=4096", "ptq.adaround.iterations=60", "ptq.adaround.batch_size=256")
# Where the rounding is compared with itself, it need not be good.
FEW = ("ptq.images=128", "ptq.rows=4096", "ptq.adaround.iterations=10", "ptq.adaround.batch_size=64")
OFF = ("ptq.equalize=false", "ptq.correct_bias=false", "ptq.adaround=null")


@pytest.fixture(scope="module")
def chain(tmp_path_factory, trained):
    """prune -> ptq -> qat, and the same network rounded to the nearest."""
    from micronet_cli.command.cli import main

    root = tmp_path_factory.mktemp("ptq")

    def call(name, *arguments):
        main([*arguments, f"hydra.run.dir={root / name}"])

    call("prune", "stage=prune", f"init_from={trained}", "prune.rules.conv.sparsity=0.5", "trainer.epochs=1")
    bits = ("quantize=w4a4", "quantize.weight_bits=3")
    call("ptq", "stage=ptq", f"init_from={root / 'prune'}", *bits, *QUICK)
    call("nearest", "stage=ptq", f"init_from={root / 'prune'}", *bits, *QUICK[:1], *OFF)
    call("qat", "stage=qat", f"init_from={root / 'ptq'}", "quantize=lsq", "trainer.max_steps=3")
    return root


def test_metrics_are_those_of_every_stage(chain):
    metrics = metrics_of(chain / "ptq")
    assert metrics["status"] == "completed"
    assert metrics["stage"] == "ptq"
    assert metrics["images"] == 359
    assert metrics["calibration_images"] == 128
    assert metrics["weight_bits_mean"] < 32
    assert metrics["micronet_score"] < 0.5 * metrics_of(chain / "prune")["micronet_score"]
    assert "layer1.0.conv1" in (chain / "ptq" / "layers.csv").read_text()


def test_it_is_better_than_the_nearest_rounding(chain):
    dense, ptq, nearest = (metrics_of(chain / name)["loss"] for name in ("prune", "ptq", "nearest"))
    assert dense < ptq < nearest


def test_a_line_of_history_a_layer(chain):
    lines = history_of(chain / "ptq")
    assert [line["layer"] for line in lines][::3] == ["layer1.0.conv1", "layer2.0.conv2", "linear"]
    assert all(line["error"] <= line["error_before"] for line in lines)


def test_a_loaded_network_computes_the_same(chain, micronet):
    first, second = (micronet_cli.load(str(chain / "ptq")) for _ in range(2))
    images = torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(first(images), second(images))
    run = micronet("stage=eval", f"init_from={chain / 'ptq'}")
    for key in ("top1", "loss", "micronet_score"):
        assert metrics_of(run)[key] == metrics_of(chain / "ptq")[key]


def test_weights_keep_to_their_levels_and_masks_to_zero(chain):
    pruned, model = (load(str(chain / name)).model for name in ("prune", "ptq"))
    for name, layer in compressible_layers(model).items():
        if name == "conv1":
            continue
        parts = effective_weight(layer)
        assert isinstance(parts.fake_quantize, FixedGrid)
        assert torch.equal(parts.mask, effective_weight(pruned.get_submodule(name)).mask)
        assert (layer.weight[~parts.mask] == 0).all()
        assert max(channel.unique().numel() for channel in layer.weight) <= 8


def test_rounding_decisions_survive_the_checkpoint(chain):
    ptq, nearest = (load(str(chain / name)).model for name in ("ptq", "nearest"))
    layer = ptq.layer2[0].conv1
    rounded = layer.weight * effective_weight(layer).fake_quantize.scale
    assert torch.allclose(rounded, rounded.round(), atol=1e-4)
    original = layer.parametrizations.weight.original
    assert torch.allclose(original, layer.weight, atol=1e-6)
    assert not torch.equal(layer.weight, nearest.layer2[0].conv1.weight)


def test_training_goes_on_from_it(chain):
    header = read_header(resolve(str(chain / "qat")))
    kinds = [compressor["_target_"].rpartition(".")[2] for compressor in header["compressors"]]
    assert kinds == ["Pruner", "Quantizer", "FixedGrids", "Quantizer"]
    model = load(str(chain / "qat")).model
    assert effective_weight(model.linear).fake_quantize.step.numel() == 10


def test_a_network_without_a_run_of_its_own(micronet):
    run = micronet("stage=ptq", *TINY, *QUICK[:1], "ptq.adaround=null", "quantize.fold_batch_norm=true")
    assert metrics_of(run)["status"] == "completed"
    assert not [name for name in load(str(run)).model.state_dict() if "running_mean" in name]


class Mistake(NamedTuple):
    argument: str
    said: str


MISTAKES = {
    "nothing to quantise with": Mistake("quantize=none", "quantize=none: stage=ptq needs an option"),
    "no settings": Mistake("ptq=none", "ptq=none: stage=ptq needs an option"),
    "pruning": Mistake("prune=agp", "run stage=prune first"),
    "learned steps": Mistake("quantize=lsq", "layer1.0.conv1 has LearnedStepWeight; must be range-linear"),
    "key": Mistake("ptq.image=3", "ptq.image: unknown key; did you mean images"),
    "value": Mistake("ptq.adaround.iterations=0", "ptq.adaround.iterations=0: must be at least 1"),
    "a block's value": Mistake("ptq.block.drop=2", "ptq.block.drop=2: must be a probability in [0, 1]"),
    "rule without a layer": Mistake("quantize.rules.conv.match=nothing", "matches no layer"),
}


@pytest.mark.parametrize("case", MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_are_answered(mistake, case):
    assert case.said in mistake("stage=ptq", *TINY, case.argument)


def test_a_quantised_network_is_refused(chain, mistake):
    said = mistake("stage=ptq", f"init_from={chain / 'ptq'}")
    assert "quantised already; must be a network in float" in said


def stopped_after(layers, micronet, monkeypatch, directory, *arguments):
    """A run that is cut off while the layer after that is worked on."""
    whole = LayerByLayer.run

    def cut_off(work, batches):
        for line in whole(work, batches):
            yield line
            if work.done == layers:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LayerByLayer, "run", cut_off)
        patch.setattr("micronet_cli.stages.saved_layers.SAVED_EVERY", 0)  # however quick the layers are
        with pytest.raises(SystemExit) as stopped:
            micronet(*arguments, directory=directory)
    assert stopped.value.code == 130


def test_an_interrupted_run_goes_on_where_it_stopped(micronet, monkeypatch, tmp_path, capsys, mistake):
    arguments = ("stage=ptq", *TINY, *FEW)
    whole = micronet(*arguments)
    directory = tmp_path / "stopped"
    monkeypatch.setattr("micronet_cli.stages.saved_layers.SAVED_EVERY", 0)  # every layer, however slow the machine is
    stopped_after(3, micronet, monkeypatch, directory, *arguments)
    assert len(history_of(directory)) == 3
    said = mistake(*arguments, "resume=true", "ptq.rows=99", directory=directory)
    assert "has another ptq.rows" in said
    micronet(*arguments, "resume=true", "ptq.memory_mb=1", directory=directory)
    assert "3 of 7 layers are done" in capsys.readouterr().out
    assert history_of(directory) == history_of(whole)
    ends = [load(str(run)).model.state_dict() for run in (whole, directory)]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


BLOCKS = ("ptq=block", "ptq.images=64", "ptq.rows=4096", "ptq.block.iterations=8", "ptq.block.batch_size=8")


def test_blocks_are_reconstructed_and_the_rest_goes_layer_by_layer(micronet, monkeypatch, tmp_path, capsys):
    arguments = ("stage=ptq", *TINY, *BLOCKS, "ptq.adaround.iterations=8", "quantize.weight_bits=3")
    whole = micronet(*arguments)
    assert [line["layer"] for line in history_of(whole)] == ["layer1.0", "layer2.0", "layer3.0", "linear"]
    assert "layer 1/4 layer1.0: error" in capsys.readouterr().out
    directory = tmp_path / "stopped"
    stopped_after(2, micronet, monkeypatch, directory, *arguments)
    micronet(*arguments, "resume=true", "ptq.memory_mb=1", directory=directory)
    assert history_of(directory) == history_of(whole)
    ends = [load(str(run)).model.state_dict() for run in (whole, directory)]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


@pytest.mark.slow
def test_blocks_are_better_than_layers_at_few_bits(chain, micronet):
    few_bits = ("stage=ptq", f"init_from={chain / 'prune'}", "quantize.weight_bits=2", "quantize.activation_bits=3")
    losses = {}
    for preset in ("default", "block"):
        run = micronet(*few_bits, f"ptq={preset}", "ptq.images=256", "ptq.rows=8192")
        losses[preset] = metrics_of(run)["loss"]
    assert losses["block"] < losses["default"]


def test_the_time_left_follows_from_what_the_layers_cost(monkeypatch):
    clock = iter([100.0, 110.0, 140.0])
    monkeypatch.setattr("micronet_cli.stages.ptq.time.perf_counter", lambda: next(clock))
    pace = Pace([7, 1, 3, 6], done=1)
    assert pace.seconds_left(2) == 90
    assert pace.seconds_left(3) == 60
