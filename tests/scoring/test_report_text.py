"""The score's texts, letter by letter."""

from micronet_cli.scoring.charges import MULTIPLY, SCALES, WEIGHTS
from micronet_cli.scoring.official import Official
from micronet_cli.scoring.report_text import csv_text, ratios_text, rows_text, totals_text, waterfall_text
from micronet_cli.scoring.rules import Base
from micronet_cli.scoring.seed2019 import Seed2019
from micronet_cli.scoring.tables import Row, Total, WaterfallStep

BASE = Base(params=1e3, ops=1e6, top1=0)
ROWS = [
    Row("stem", 1234.5, 2e6, 1e6, 1.5e6, "4x8", score=2.7, share=0.9, sparsity=0.5),
    Row("pool", 0, 0, 10, 10, "32", score=0.3, share=0.1),
]


def total(storage_bits, math_ops):
    return Total(storage_bits, multiplications=0, additions=0, math_ops=math_ops, base=BASE)


def test_csv_has_a_line_of_names_and_an_empty_cell_for_no_sparsity():
    assert csv_text(ROWS).splitlines() == [
        "layer,storage_params,multiplications,additions,math_ops,bits,score,share,sparsity",
        "stem,1234.5,2000000.0,1000000.0,1500000.0,4x8,2.7,0.9,0.5",
        "pool,0,0,10,10,32,0.3,0.1,",
    ]


def test_csv_quotes_names_with_commas_and_names_no_rows_at_all():
    assert csv_text([Row("a,b")]).splitlines()[1].startswith('"a,b",')
    assert csv_text([]).count("\n") == 1


def test_rows_text_groups_digits_and_aligns():
    assert rows_text(ROWS, "layer").splitlines() == [
        "layer  params  multiplies  additions        ops  bits  share",
        "stem    1,234   2,000,000  1,000,000  1,500,000   4x8  90.0%",
        "pool        0           0         10         10    32  10.0%",
    ]
    assert rows_text(ROWS, "block").startswith("block")


def test_totals_text_shows_a_line_a_heading():
    text = totals_text({WEIGHTS: total(32_000, 0), "all": total(32_000, 500_000)})
    assert [line.split() for line in text.splitlines()] == [
        ["heading", "params", "ops", "score"],
        ["weights", "1,000", "0", "1.0000"],
        ["all", "1,000", "500,000", "1.5000"],
    ]


def test_ratios_say_how_much_smaller_and_nothing_over_nothing():
    text = ratios_text(total(3200, 900), total(320, 400))
    assert text == "dense over this: storage 10.00, operations 2.25"
    assert ratios_text(total(0, 900), total(0, 0)) == "dense over this: storage -, operations -"


def test_waterfall_text_ends_in_the_other_score_and_explains_what_differs():
    steps = [WaterfallStep(SCALES, 0.25, 0.0), WaterfallStep(MULTIPLY, 0.5, 0.5)]
    table, notes = waterfall_text(Official(), Seed2019(), steps, 0.75).split("\n\n")
    assert [line.split() for line in table.splitlines()] == [
        ["from", "official", "to", "seed2019", "effect", "official", "seed2019"],
        ["scales", "-0.250000", "0.250000", "0.000000"],
        ["multiplies", "+0.000000", "0.500000", "0.500000"],
        ["score", "-0.250000", "0.750000", "0.500000"],
    ]
    assert notes == "scales: official every scale and zero point; seed2019 none"


def test_waterfall_text_leaves_out_notes_on_effects_too_small_to_show():
    steps = [WaterfallStep(WEIGHTS, 0.5, 0.5 + 4e-7)]
    assert waterfall_text(Official(), Seed2019(), steps, 0.5).endswith("\n\n")
