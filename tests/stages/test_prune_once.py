"""Guards ``stage=ptq prune=obc`` as a user types it, on the embedded digits: alone, joint, scored, packed, resumed."""

from typing import NamedTuple

import pytest
import torch

import micronet_cli
from micronet_cli.checkpoint import load, read_header, resolve
from micronet_cli.compression.quantization.layer_by_layer import LayerByLayer
from micronet_cli.layers.effective_weight import effective_weight
from tests.conftest import TINY, history_of, metrics_of

# The layers of long sums stay whole, and quick.
OBC = (
    "stage=ptq", "prune=obc", "prune.rules.conv.sparsity=0.5", "prune.rules.conv.match=layer[12].*|linear",
    "ptq.images=128", "ptq.rows=2048",
)  # fmt: skip
# Two rounds, each of which prunes.
QUICK = ("quantize=w4a4", "ptq.rescue=1", "ptq.adaround.iterations=10", "ptq.adaround.batch_size=128")
NM = "prune.granularity._target_=micronet_cli.functional.granularity.NM"


@pytest.fixture(scope="module")
def runs(tmp_path_factory, trained):
    """What becomes of a dense network without training."""
    from micronet_cli.command.cli import main

    root = tmp_path_factory.mktemp("once")

    def call(name, *arguments):
        main([*arguments, f"hydra.run.dir={root / name}"])

    start = f"init_from={trained}"
    call("pruned", *OBC, start, "quantize=none")
    call("half", *OBC, start, NM, "quantize=none", "prune.rules.conv.match=layer2.*")
    call("joint", *OBC, start, *QUICK)
    return root


def test_half_of_the_weights_go_and_the_network_stays(runs, trained):
    dense, pruned = (metrics_of(run) for run in (trained, runs / "pruned"))
    assert pruned["status"] == "completed"
    assert pruned["weight_sparsity"] == pytest.approx(0.125, abs=0.01)
    assert pruned["top1"] > dense["top1"] - 3
    assert pruned["micronet_score"] < dense["micronet_score"]
    lines = history_of(runs / "pruned")
    assert [line["layer"] for line in lines][::2] == ["layer1.0.conv1", "layer2.0.conv1", "linear"]
    assert all(line["error"] < line["error_before"] for line in lines)
    assert "conv" in (runs / "pruned" / "layers.csv").read_text()


def test_two_of_every_four(runs):
    model = load(str(runs / "half")).model
    kept = effective_weight(model.layer2[0].conv1).mask.movedim(1, -1).unflatten(-1, (-1, 4))
    assert (kept.sum(-1) == 2).all()


def test_quantised_behind_it_the_zeros_stay(runs):
    assert metrics_of(runs / "joint")["weight_sparsity"] >= metrics_of(runs / "pruned")["weight_sparsity"]
    pruned, joint = (load(str(runs / name)).model for name in ("pruned", "joint"))
    masks = [effective_weight(model.layer2[0].conv2).mask for model in (pruned, joint)]
    assert (joint.layer2[0].conv2.weight[~masks[1]] == 0).all()
    assert masks[1].sum() == masks[0].sum()
    header = read_header(resolve(str(runs / "joint")))
    kinds = [compressor["_target_"].rpartition(".")[2] for compressor in header["compressors"]]
    assert kinds == ["Masks", "Quantizer", "FixedGrids"]
    assert not [name for name in joint.state_dict() if "hessian" in name]


@pytest.mark.parametrize("name", ["pruned", "joint"])
def test_a_packed_file_computes_the_same(runs, micronet, name):
    packed = micronet("stage=export", f"init_from={runs / name}", "export.onnx=false")
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = micronet_cli.load(str(runs / name))(images)
        found = micronet_cli.load(str(packed / "model.mnet"))(images)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_an_interrupted_run_ends_as_the_whole_one(runs, trained, micronet, monkeypatch, tmp_path):
    whole = LayerByLayer.run

    def cut_off(work, batches):
        for line in whole(work, batches):
            yield line
            if work.done == 2:
                raise KeyboardInterrupt

    arguments = (*OBC, f"init_from={trained}", *QUICK)
    directory = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(LayerByLayer, "run", cut_off)
        with pytest.raises(SystemExit):
            micronet(*arguments, directory=directory)
    micronet(*arguments, "resume=true", directory=directory)
    assert history_of(directory) == history_of(runs / "joint")
    ends = [load(str(run)).model.state_dict() for run in (runs / "joint", directory)]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


class Mistake(NamedTuple):
    argument: str
    said: str


MISTAKES = {
    "a pruner that trains": Mistake("prune=agp", "prunes with prune=obc alone, for it does not train"),
    "nothing to do": Mistake("prune=none", "quantize=none: stage=ptq needs an option"),
    "too large": Mistake("prune.max_inputs=100", "at most prune.max_inputs=100 are allowed"),
    "rule without a layer": Mistake("prune.rules.conv.match=nothing", "matches no layer"),
    "too sparse for 2:4": Mistake(NM, "prune.rules.conv.sparsity=0.65: must be at most 0.5"),
}


@pytest.mark.parametrize("case", MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_answered(mistake, case):
    assert case.said in mistake("stage=ptq", "prune=obc", "quantize=none", *TINY, case.argument)


def test_a_mistake_in_the_quantiser_is_answered_before_the_pruning(mistake, capsys):
    said = mistake(*OBC, *TINY, "quantize=w4a4", "quantize.rules.conv.match=nothing")
    assert "matches no layer" in said
    assert "pruned, error" not in capsys.readouterr().out
