"""Entries to the 2019 MicroNet Challenge: as published, by their own arithmetic, by the rules, and what lies between.

    python benchmarks/challenge.py [ENTRY ...]

ENTRY is an experiment of ``conf/experiment/micronet2019``; without one, all. Nothing is trained: weights are random,
zeros and bits are the entries'. About 15 seconds on one core.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from hydra import compose, initialize_config_dir

from micronet_cli.command.search_path import register
from micronet_cli.config import check_config
from micronet_cli.paths import CONF
from micronet_cli.scoring import rule_set, score_with
from micronet_cli.scoring.report_text import waterfall_text
from micronet_cli.scoring.score_report import ScoreReport
from micronet_cli.stages.inherit import inherited
from micronet_cli.tables import text_table
from micronet_cli.trace.trace import Trace

RIAIR = "riair2019"
RIAIR_CIFAR = "riaircifar2019"


@dataclass(frozen=True)
class Row:
    """A published figure.

    Attributes:
        experiment: its recipe.
        variant: which of the entry's figures.
        published: the score.
        own: rule set of the entry's own arithmetic, with ``own_options``.
        accumulator: of the official rules beside it.
    """

    experiment: str
    variant: str
    published: float
    own: str
    own_options: Mapping[str, Any] = field(default_factory=dict)
    accumulator: str = "fp32"
    freebie: bool = False


ROWS = (
    Row("riair_mixnet_s", "as entered, tree", 0.125144, RIAIR, {}, "adder_tree"),
    Row("riair_mixnet_s", "after the ruling", 0.12947, RIAIR, {"nonlinearity_bits": 32}, "adder_tree"),
    Row("riair_mixnet_s", "int", 0.142063, RIAIR, {"accumulator": "integer"}, "integer"),
    Row("riair_mixnet_s", "int16", 0.137076, RIAIR, {"accumulator": "int16"}, "int16"),
    Row("riair_mixnet_s", "fp16", 0.138368, RIAIR, {"accumulator": "fp16"}, "fp16"),
    Row("riair_mixnet_s", "fp32", 0.189349, RIAIR, {"accumulator": "fp32"}),
    Row("riair_densenet", "type 0, as entered", 0.004169, RIAIR_CIFAR, {}, "adder_tree"),
    Row("riair_densenet", "type 4, as ranked", 0.004375, RIAIR_CIFAR, {"nonlinearity_bits": 32}, "adder_tree"),
    Row("riair_densenet", "type 2", 0.008544, RIAIR_CIFAR, {"nonlinearity_bits": 32, "accumulator": "fp32"}),
    Row("kaist", "as ranked", 0.0054454020554474585, "kaist2019", freebie=True),
    Row("xilinx_proxylessnas", "as ranked", 0.5558137893676758, "xilinx2019", {}, "integer"),
    Row("efficientnet_b1", "as entered", 0.3492, "seed2019"),
    Row("efficientnet_b1", "as ranked", 0.3772, "seed2019", {"nonlinearity_bits": 32}),
)


def trace_of(experiment: str) -> Trace:
    """The experiment's network with its compressors at their targets, executed once."""
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        choice = f"+experiment=micronet2019/{experiment}"
        config = compose("config", ["stage=score", choice])
    parts = check_config(inherited(config))
    torch.manual_seed(0)
    model = parts["model"].build()
    for group in ("prune", "quantize"):
        compressor = parts[group]
        if compressor is not None:
            compressor.attach(model)
            compressor.update(1, 1)
    side = config.data.input_size or model.pretrained_cfg["input_size"][1]
    return Trace(model, (3, side, side))


def reports(row: Row, trace: Trace) -> tuple[ScoreReport, ScoreReport]:
    """By the official rules, and by the entry's own arithmetic."""
    official = rule_set("official", accumulator=row.accumulator, freebie=row.freebie)
    own = rule_set(row.own, **row.own_options)
    return score_with(trace, official), score_with(trace, own)


def main() -> None:
    """Print the table, then a waterfall for each row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("entries", nargs="*", metavar="ENTRY")
    wanted = parser.parse_args().entries
    traces: dict[str, Trace] = {}
    lines = []
    waterfalls = []
    for row in ROWS:
        if wanted and row.experiment not in wanted:
            continue
        if row.experiment not in traces:
            traces[row.experiment] = trace_of(row.experiment)
        official, own = reports(row, traces[row.experiment])
        line = {
            "entry": f"{row.experiment}, {row.variant}",
            "published": f"{row.published:.6f}",
            "own arithmetic": f"{own.total.score:.6f}",
            "off by": f"{own.total.score / row.published - 1:+.1%}",
            "official": f"{official.total.score:.6f}",
        }
        lines.append(line)
        steps = ScoreReport(
            official.rules, official.network, official.charges, dense_charges=[], compared=own
        ).waterfall()
        text = waterfall_text(official.rules, own.rules, steps, official.total.score)
        waterfalls.append(f"{row.experiment}, {row.variant}\n\n{text}")
    print(text_table(lines), *waterfalls, sep="\n\n")


if __name__ == "__main__":
    main()
