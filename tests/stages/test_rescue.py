"""Guards ``ptq.rescue`` and ``ptq.max_drop``: more bits for the worst layers, in files that load, pack and go on."""

from typing import NamedTuple

import pytest
import torch

import micronet_cli
from micronet_cli.checkpoint import load
from micronet_cli.compression.quantization.layer_by_layer import LayerByLayer
from micronet_cli.config import check_config
from micronet_cli.explore.diagnosis import Row
from micronet_cli.functional.logit_distance import LogitDistance
from micronet_cli.layers.effective_weight import effective_weight
from micronet_cli.runs.directory import Run
from micronet_cli.stages.diagnosis import Findings
from micronet_cli.stages.inherit import inherited
from micronet_cli.stages.job import Job
from micronet_cli.stages.rescue import Rescue
from tests.conftest import TINY, history_of, metrics_of
from tests.stages.test_diagnosis import SPOILT

QUICK = ("ptq.images=64", "ptq.rows=1024", "ptq.adaround.iterations=20", "ptq.adaround.batch_size=128")


@pytest.fixture(scope="module")
def chain(tmp_path_factory, trained):
    """ptq, with and without a rescue."""
    from micronet_cli.command.cli import main

    root = tmp_path_factory.mktemp("rescue")

    def call(name, *arguments):
        main([*arguments, f"hydra.run.dir={root / name}"])

    start = f"init_from={trained}"
    call("plain", "stage=ptq", start, *QUICK, *SPOILT)
    call("rescued", "stage=ptq", start, *QUICK, *SPOILT, "ptq.rescue=1")
    return root


def bits_of(run):
    model = load(str(run)).model
    weights = {}
    for name, layer in model.named_modules():
        parts = effective_weight(layer)
        if parts is not None and parts.fake_quantize is not None:
            weights[name] = (parts.fake_quantize.bits, layer.input_fake_quantize.bits)
    return weights


def test_the_worst_layer_gets_a_bit_more(chain):
    plain, rescued = chain / "plain", chain / "rescued"
    assert bits_of(plain)["layer2.0.conv2"] == (2, 4)
    assert bits_of(rescued) == bits_of(plain) | {"layer2.0.conv2": (3, 5)}
    metrics, before = metrics_of(rescued), metrics_of(plain)
    assert metrics["rescued_layers"] == 1
    assert metrics["logits_snr_db"] > metrics["logits_snr_db_before"]
    assert metrics["micronet_score_before"] == before["micronet_score"] < metrics["micronet_score"]
    assert metrics["agreement_images"] == 64
    assert [line["step"] for line in history_of(rescued)] == list(range(1, 15))


def test_what_is_written_evaluates_and_packs(chain, micronet):
    evaluated = micronet("stage=eval", f"init_from={chain / 'rescued'}")
    for key in ("top1", "loss", "micronet_score"):
        assert metrics_of(evaluated)[key] == metrics_of(chain / "rescued")[key]
    exported = micronet("stage=export", f"init_from={chain / 'rescued'}", "export.onnx=false")
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        packed, own = (micronet_cli.load(str(path))(images) for path in (exported / "model.mnet", chain / "rescued"))
    torch.testing.assert_close(packed, own, rtol=1e-3, atol=1e-3)


def test_the_rules_are_an_option_of_their_own(chain, trained, micronet):
    start = f"init_from={trained}"
    again = micronet("--config-dir", str(chain / "rescued" / "rules"), "stage=ptq", start, *QUICK, "quantize=rescue")
    assert_same_network(again, chain / "rescued")


def assert_same_network(one, other):
    ends = [load(str(run)).model.state_dict() for run in (one, other)]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_as_many_as_it_takes(chain, trained, micronet, capsys):
    start = f"init_from={trained}"
    run = micronet("stage=ptq", start, *QUICK[:2], *SPOILT, "ptq.adaround=null", "ptq.max_drop=0.02")
    metrics = metrics_of(run)
    assert metrics["float_agreement"] >= 98 > metrics["float_agreement_before"]
    assert metrics["rescued_layers"] >= 1
    said = capsys.readouterr().out
    assert "of 64 predictions change" in said
    assert "takes as long again" in said
    assert "of 7 layers: agreement with float" in said


class Round(NamedTuple):
    """What ``ptq.max_drop=0.1`` says after a round on 100 images."""

    bits: float
    changed: int
    goes_on: bool
    said: str


ROUNDS = {
    "reached": Round(4, 10, False, "10.00 % of 100 predictions change"),
    "not yet": Round(4, 20, True, "a bit more for linear"),
    "out of reach": Round(8, 20, False, "not reached, every quantised layer has 8 bits"),
}


@pytest.mark.parametrize("case", ROUNDS.values(), ids=ROUNDS.keys())
def test_a_round_decides_on_the_next(case, composed, tmp_path, caplog):
    caplog.set_level("INFO")
    bits = f"quantize.weight_bits={case.bits}"
    config = inherited(composed("stage=ptq", *TINY, "quantize=w8a8", bits, "ptq.max_drop=0.1"))
    job = Job(config, check_config(config), None, Run(tmp_path))
    network = job.network()
    rescue = Rescue(job, job.parts.ptq, network)
    findings = Findings(LogitDistance(1.0, 9.0, case.changed, 100), [Row("linear", 0.9, 0.9, 0)])
    assert rescue.goes_on(network, findings) is case.goes_on
    assert case.said in caplog.text
    assert rescue.bits == ({"linear": (5, 8)} if case.goes_on else {})
    assert not rescue.goes_on(network, Findings(findings.distance, []))  # logits that are not finite


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


PLACES = {
    "between the rounds": pytest.param(7, True, marks=pytest.mark.slow),
    "in the second round": pytest.param(10, False),
}


@pytest.mark.parametrize(("layers", "diagnoses_again"), PLACES.values(), ids=PLACES.keys())
def test_an_interrupted_rescue_ends_in_the_same_network(
    layers, diagnoses_again, chain, trained, micronet, monkeypatch, tmp_path, capsys
):
    arguments = ("stage=ptq", f"init_from={trained}", *QUICK, *SPOILT, "ptq.rescue=1")
    stopped(monkeypatch, micronet, layers, *arguments, directory=tmp_path)
    capsys.readouterr()
    micronet(*arguments, "resume=true", directory=tmp_path)
    said = capsys.readouterr().out
    assert "of 7 layers are done" in said
    assert ("a bit more for layer2.0.conv2" in said) == diagnoses_again
    assert history_of(tmp_path) == history_of(chain / "rescued")
    assert_same_network(tmp_path, chain / "rescued")
    for key in ("float_agreement", "float_agreement_before", "logits_snr_db_before", "micronet_score_before"):
        assert metrics_of(tmp_path)[key] == metrics_of(chain / "rescued")[key]


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
