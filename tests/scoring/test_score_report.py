"""The figures of a run, its tables and picture, and that new bits need no new trace."""

import csv
import io

import pytest
from PIL import Image, ImageColor
from torch import nn

from micronet_cli.layers.fake_quantize import ActivationFakeQuantize
from micronet_cli.scoring import rule_set, score_with
from micronet_cli.scoring.charges import ACCUMULATE, MASKS, NON_LINEARITY
from micronet_cli.scoring.figure import BLUE, GREY
from micronet_cli.trace import trace as trace_module
from micronet_cli.trace.trace import Trace
from tests.scoring import recipe


@pytest.fixture(scope="module")
def trace():
    return Trace(recipe.recipe(), (3, 224, 224))


def test_metrics_hold_the_figures_of_a_run(trace):
    figures = score_with(trace, rule_set("official")).metrics()
    names = (
        "micronet_score storage_params storage_bytes storage_score math_ops multiplications additions math_score "
        "mtas_bytes score_profile dense_storage_bytes dense_math_ops dense_score weight_sparsity weight_bits_mean "
        "activation_bits_mean"
    )
    assert " ".join(figures) == names
    assert figures["storage_bytes"] == figures["storage_params"] * 4
    assert figures["micronet_score"] == figures["storage_score"] + figures["math_score"]
    assert all(type(v) in (float, str) for v in figures.values())
    stem, classifier, weights = 864, 1_280_000, 7_716_976
    bits = (stem * 32 + classifier * 3 + (weights - stem - classifier) * 4) / weights
    assert figures["weight_bits_mean"] == pytest.approx(bits)
    assert figures["weight_sparsity"] == pytest.approx(1 - 2_993_353 / weights)


def test_layers_csv_adds_up(trace):
    report = score_with(trace, rule_set("official"))
    rows = list(csv.DictReader(io.StringIO(report.csv())))
    assert sum(float(r["math_ops"]) for r in rows) == pytest.approx(report.total.math_ops)
    assert sum(float(r["storage_params"]) for r in rows) == pytest.approx(report.total.storage_params)
    (row,) = (r for r in rows if r["layer"] == "blocks.6.1.conv_pwl")
    assert row["bits"] == "4x4"
    assert float(row["sparsity"]) == pytest.approx(0.6, abs=1e-4)
    assert {r["sparsity"] for r in rows if not float(r["storage_params"])} == {""}


def test_what_if_shows_in_every_layer(trace):
    rows = score_with(trace, rule_set("official", weight_sparsity=0.25)).rows()
    assert {row.sparsity for row in rows} == {0.25, None}


def test_table_shows_blocks_headings_and_ratios(trace):
    text = score_with(trace, rule_set("official")).table()
    assert all(name in text for name in ("blocks.6.1", "classifier", MASKS, NON_LINEARITY, "dense over this"))
    assert "conv_pwl" not in text
    assert "blocks.6.1.conv_pwl" in score_with(trace, rule_set("official")).table("layer")
    with pytest.raises(ValueError, match="per=module"):
        score_with(trace, rule_set("official")).rows("module")


def test_waterfall_leads_from_one_score_to_the_other(trace):
    report = score_with(trace, rule_set("official", compare="seed2019"))
    other = score_with(trace, rule_set("seed2019")).total.score
    steps = {step.part: step for step in report.waterfall()}
    assert report.total.score + sum(step.effect for step in steps.values()) == pytest.approx(other)
    assert steps["scales"].there == 0
    assert steps[ACCUMULATE].effect < 0
    assert "from official to seed2019" in report.table()
    assert score_with(trace, rule_set("official")).waterfall() == []


def test_waterfall_shares_the_what_if(trace):
    report = score_with(trace, rule_set("official", compare="seed2019", weight_sparsity=0.9))
    assert report.compared.total.score == score_with(trace, rule_set("seed2019", weight_sparsity=0.9)).total.score


def test_figure_is_a_picture(trace):
    with Image.open(io.BytesIO(score_with(trace, rule_set("official")).figure(top=5))) as image:
        colours = {colour: count for count, colour in image.convert("RGB").getcolors(1 << 24)}
        assert image.format == "PNG"
    bars = [colours[ImageColor.getrgb(colour)] for colour in (BLUE, GREY)]
    assert min(bars) > 1000  # pixels


@pytest.fixture
def traces(monkeypatch):
    """Input shapes of the forward passes that are recorded."""
    made = []
    record = trace_module.record

    def counted(model, input_shape):
        made.append(input_shape)
        return record(model, input_shape)

    monkeypatch.setattr(trace_module, "record", counted)
    return made


def test_new_bits_are_priced_without_a_new_trace(trace, traces):
    quantizers = [m for m in trace.model.modules() if isinstance(m, ActivationFakeQuantize)]
    scores = set()
    try:
        for bits in (8, 3, 5, 6, 7, 2, 4):
            for quantizer in quantizers:
                quantizer.bits = bits
            scores.add(score_with(trace, rule_set("official")).metrics()["micronet_score"])
    finally:
        for quantizer in quantizers:
            quantizer.bits = 4
    assert len(scores) >= 5  # up to 4 bits the weights decide
    assert traces == []


def test_another_module_needs_one_new_trace(traces):
    model = nn.Sequential(nn.Linear(4, 4, bias=False))
    trace = Trace(model, (1, 1, 4))
    before = score_with(trace, rule_set("official")).total
    model.append(nn.Linear(4, 2, bias=False))
    after = score_with(trace, rule_set("official")).total
    assert after.storage_params - before.storage_params == 8
    assert len(traces) == 2


class Counting(nn.Linear):
    """A layer that counts its executions."""

    executions = 0

    def forward(self, x):
        Counting.executions += 1
        assert x.is_meta
        return super().forward(x)


def test_tracing_and_scoring_execute_the_network_once_on_meta_tensors(monkeypatch, traces):
    monkeypatch.setattr(Counting, "executions", 0)
    report = score_with(Counting(4, 2), rule_set("official", compare="seed2019"), (1, 1, 4))
    report.metrics()
    report.table()
    report.csv()
    report.figure()
    assert Counting.executions == 1
    assert traces == [(1, 1, 4)]
