"""Guards ``ptq.rescue`` and ``ptq.max_drop``: more bits for the worst layers, in files that load, pack and go on."""

from typing import NamedTuple

import pytest
import torch

import micronet_cli
from micronet_cli.checkpoint import load
from micronet_cli.compression.quantization.layer_by_layer import LayerByLayer
from micronet_cli.layers.effective_weight import effective_weight
from tests.conftest import TINY, history_of, metrics_of
from tests.stages.test_diagnosis import SPOILT

QUICK = ("ptq.images=64", "ptq.rows=1024", "ptq.adaround.iterations=20", "ptq.adaround.batch_size=128")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from micronet_cli.command.cli import main

    run = tmp_path_factory.mktemp("rescue") / "train"
    main(["stage=train", *TINY, "trainer.epochs=3", f"hydra.run.dir={run}"])
    return f"init_from={run}"


def bits_of(run):
    model = load(str(run)).model
    weights = {}
    for name, layer in model.named_modules():
        parts = effective_weight(layer)
        if parts is not None and parts.fake_quantize is not None:
            weights[name] = (parts.fake_quantize.bits, layer.input_fake_quantize.bits)
    return weights


def test_the_worst_layer_gets_a_bit_more(trained, micronet, capsys):
    plain = micronet("stage=ptq", trained, *QUICK, *SPOILT)
    capsys.readouterr()
    run = micronet("stage=ptq", trained, *QUICK, *SPOILT, "ptq.rescue=1")
    said = capsys.readouterr().out
    metrics, before = metrics_of(run), metrics_of(plain)
    assert bits_of(plain)["layer2.0.conv2"] == (2, 4)
    assert bits_of(run) == bits_of(plain) | {"layer2.0.conv2": (3, 5)}
    assert metrics["rescued_layers"] == 1
    assert metrics["logits_snr_db"] > metrics["logits_snr_db_before"] + 1
    assert metrics["micronet_score_before"] == before["micronet_score"] < metrics["micronet_score"]
    assert metrics["agreement_images"] == 64
    assert "takes as long again" in said
    assert "1 layers rescued: agreement with float" in said
    steps = [line["step"] for line in history_of(run)]
    assert steps == list(range(1, 15))
    # What is written loads, evaluates and packs; the rules are an option of their own.
    evaluated = micronet("stage=eval", f"init_from={run}")
    for key in ("top1", "loss", "micronet_score"):
        assert metrics_of(evaluated)[key] == metrics[key]
    exported = micronet("stage=export", f"init_from={run}", "export.onnx=false")
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        packed = micronet_cli.load(str(exported / "model.mnet"))(images)
        torch.testing.assert_close(packed, micronet_cli.load(str(run))(images), rtol=1e-3, atol=1e-3)
    rules = run / "rules"
    again = micronet("--config-dir", str(rules), "stage=ptq", trained, *QUICK, "quantize=rescue")
    assert metrics_of(again)["logits_snr_db"] == pytest.approx(metrics["logits_snr_db"], abs=3)
    ends = [load(str(each)).model.state_dict() for each in (run, again)]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_as_many_as_it_takes(trained, micronet, capsys):
    run = micronet("stage=ptq", trained, *QUICK, *SPOILT, "ptq.adaround=null", "ptq.max_drop=0.05")
    metrics = metrics_of(run)
    assert metrics["float_agreement"] >= 95 > metrics["float_agreement_before"]
    assert metrics["rescued_layers"] >= 1
    said = capsys.readouterr().out
    assert "ptq.max_drop=0.05: " in said
    assert "of 64 predictions change" in said


def test_what_is_good_enough_stays(trained, micronet):
    run = micronet("stage=ptq", trained, "quantize=w8a8", "ptq.images=64", "ptq.adaround=null", "ptq.max_drop=0.5")
    assert "rescued_layers" not in metrics_of(run)
    assert not (run / "rules").exists()


def test_a_target_out_of_reach_is_said(trained, micronet, capsys):
    bits = ("quantize=w8a8", "ptq.images=32", "ptq.adaround=null", "ptq.correct_bias=false", "ptq.max_drop=0")
    # 16 images, one of which two outputs of the network tie on: predictions need not agree even at 8 bits.
    run = micronet("stage=ptq", trained, *bits)
    reached = metrics_of(run)["float_agreement"] == 100
    assert reached or "not reached, every quantised layer has 8 bits" in capsys.readouterr().out


def stopped(monkeypatch, micronet, layers, *arguments, directory):
    """A run that is killed when that many layers are done, over all rounds."""
    whole = LayerByLayer.run
    done = iter(range(1, 100))

    def cut_off(work, batches):
        for line in whole(work, batches):
            yield line
            if next(done) == layers:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LayerByLayer, "run", cut_off)
        with pytest.raises(SystemExit):
            micronet(*arguments, directory=directory)


@pytest.mark.parametrize("layers", [7, 10], ids=["between the rounds", "in the second round"])
def test_an_interrupted_rescue_ends_in_the_same_network(layers, trained, micronet, monkeypatch, tmp_path, capsys):
    arguments = ("stage=ptq", trained, *QUICK, *SPOILT, "ptq.rescue=2")
    whole = micronet(*arguments)
    directory = tmp_path / "stopped"
    stopped(monkeypatch, micronet, layers, *arguments, directory=directory)
    capsys.readouterr()
    micronet(*arguments, "resume=true", directory=directory)
    assert "of 7 layers are done" in capsys.readouterr().out
    assert history_of(directory) == history_of(whole)
    ends = [load(str(run)).model.state_dict() for run in (whole, directory)]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    for key in ("float_agreement_before", "logits_snr_db_before", "micronet_score_before", "float_agreement"):
        assert metrics_of(directory)[key] == metrics_of(whole)[key]


class Mistake(NamedTuple):
    arguments: tuple[str, ...]
    said: str


MISTAKES = {
    "negative": Mistake(("ptq.rescue=-1",), "ptq.rescue=-1: must be at least 1 layer, or null"),
    "text": Mistake(("ptq.rescue=worst",), "ptq.rescue"),
    "a share above one": Mistake(("ptq.max_drop=2",), "ptq.max_drop=2: must be a share of the predictions in [0, 1)"),
    "both": Mistake(("ptq.rescue=1", "ptq.max_drop=0.1"), "ptq.rescue=1 is given too; take one of them"),
    "more than there are": Mistake(("ptq.rescue=99",), "ptq.rescue=99: must be at most 7, the layers of fewer"),
    "nothing to raise": Mistake(("ptq.rescue=1", "quantize=w8a8"), "every quantised layer has 8 bits already"),
    "rule without a layer": Mistake(("ptq.rescue=1", "quantize.rules.a.match=nothing"), "matches no layer"),
}


@pytest.mark.parametrize("case", MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_are_answered(case, mistake):
    assert case.said in mistake("stage=ptq", *TINY, *case.arguments)
