"""``stage=allocate``: every layer's sparsity and bits for a target, as rule files of ``prune=`` and ``quantize=``."""

import copy
import csv
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from micronet_cli import distributed
from micronet_cli.compression.compressor import Compressor
from micronet_cli.config import build, check_config
from micronet_cli.errors import UserError, near_misses
from micronet_cli.explore.budget_rules import prune_rules, quantize_rules
from micronet_cli.explore.budgets import FIGURES, LATENCY, Budget, Rows
from micronet_cli.explore.prices import Option, Prices
from micronet_cli.explore.trial import ACTIVATION_BITS, SPARSITY, WEIGHT_BITS
from micronet_cli.layers.copies import computed_tensors
from micronet_cli.layers.rules import compressible_layers
from micronet_cli.network import Network
from micronet_cli.scoring import score_with
from micronet_cli.stages.compress import check_unpacked, rule_table
from micronet_cli.stages.job import Job
from micronet_cli.stages.latency_search import allocate_latency
from micronet_cli.stages.pipeline_steps import rule_file
from micronet_cli.stages.score import score_network
from micronet_cli.tables import text_table

log = logging.getLogger(__name__)
NEEDS_DATA = False
MAKES_NETWORK = False
GROUP_OF = {SPARSITY: "prune", WEIGHT_BITS: "quantize", ACTIVATION_BITS: "quantize"}
RULES = {"prune": prune_rules, "quantize": quantize_rules}
Groups = Mapping[str, Mapping[str, Any]]  # name -> config


def check(config: DictConfig) -> dict[str, Any]:
    """The config's parts.

    Raises:
        UserError: a mistake in the config, no target, or milliseconds with several processes.
    """
    parts = check_config(config)
    if parts["budget"].target is None:
        known = ", ".join(f"budget.{name}" for name in FIGURES)
        raise UserError(f"budget.score=null: needs a target: one of {known}")
    name, _ = parts["budget"].target
    several = parts["trainer"].devices > 1 or distributed.started_by_launcher()
    if name == LATENCY and several:
        raise UserError("budget.latency_ms: processes would take each other's time; give trainer.devices=1")
    return parts


def foresee(job: Job) -> None:
    """Before a table is there: whether the points that ``sensitivity`` tries can reach the target.

    Raises:
        UserError: they cannot, or the network has no more than the target as it is.
    """
    budget = job.parts.budget
    assert budget.target is not None  # checked
    name, _ = budget.target
    if name == LATENCY:
        return  # known by measuring, which is the first that `run` does
    if budget.table:
        read_table(job, budget)
        return
    network = job.network(with_data=False, new_classifier=True)
    tried = job.parts.sensitivity
    by_kind = {SPARSITY: tried.sparsities, WEIGHT_BITS: tried.weight_bits, ACTIVATION_BITS: tried.activation_bits}
    values = {kind: those for kind, those in by_kind.items() if job.group_config(GROUP_OF[kind])}
    layers = compressible_layers(network.model)
    prices = Prices(network.model, job.parts.score, network.spec.size)
    try:
        budget.check_within_reach(layers, values, prices)
    except ValueError as error:
        raise UserError(f"budget.{error}") from None


def run(job: Job) -> dict[str, Any]:
    """Choose, write ``rules/{prune,quantize}/budget.yaml``, and score the network with them at their final targets.

    The files are the config's prune and quantize groups with other rules: schedule, criterion and schemes are theirs.
    """
    budget = job.parts.budget
    assert budget.target is not None  # checked
    name, target = budget.target
    if name == LATENCY:
        network = _network(job)
        found, figures = allocate_latency(job, network, target)
    else:
        rows = read_table(job, budget)
        network = _network(job)
        check_layers(rows, network)
        found = solved(job, network, rows)
        figures = {"chosen_by": _split_of(rows)}
    for group, config in found.items():
        file = rule_file(job.run.directory, group)
        job.run.write_text(str(file.relative_to(job.run.directory)), OmegaConf.to_yaml(config))
    compressors = attach(found, network)
    table = rule_table(compressors, network)
    rows_shown = [{"layer": layer} | columns for layer, columns in table.items()]
    log.info("%s", text_table(rows_shown))
    report = score_network(job, network, table)
    how = " ".join(f"{group}=budget" for group in found)
    log.info("use them with: --config-dir %s %s", job.run.directory / "rules", how)
    return {"target": {name: target}} | figures | report.metrics()


def _network(job: Job) -> Network:
    network = job.network(with_data=False)
    check_unpacked(network, "stage=allocate")
    return network


def solved(job: Job, network: Network, rows: Rows) -> Groups:
    """The groups' configs with the options that lose least for the target.

    Raises:
        UserError: the table's options cannot reach it.
    """
    shape = network.spec.size
    rules = job.parts.score

    def total(options: Mapping[str, Option]) -> Mapping[str, Any]:
        trial = copy.deepcopy(network, computed_tensors(network.model))
        attach(groups(job, options), trial)
        report = score_with(trial.model, rules, shape)
        return report.metrics()

    prices = Prices(network.model, rules, shape)
    try:
        options = job.parts.budget.solve(rows, prices, total)
    except ValueError as error:
        raise UserError(f"budget.{error}") from None
    return groups(job, options)


def _split_of(rows: Rows) -> str:
    """The images that the table was measured on; tables of version 0.1.0 do not say, and were all of val."""
    return rows[0].get("split", "val")


def groups(job: Job, options: Mapping[str, Option]) -> Groups:
    """Config group -> the config's own with the options' rules; a group without rules is left out."""
    found = {}
    for group, rules_of in RULES.items():
        config = job.group_config(group)
        rules = rules_of(options)
        if config and rules:
            found[group] = config | {"rules": rules}
    return found


def attach(found: Groups, network: Network) -> list[Compressor]:
    """Build and attach the groups' compressors, at their final targets."""
    compressors = [build(config, group) for group, config in found.items()]
    for compressor in compressors:
        compressor.attach(network.model)
        compressor.update(1, 1)
    return compressors


def read_table(job: Job, budget: Budget) -> Rows:
    """The rows of sensitivity.csv that the config's groups can use.

    Raises:
        UserError: no such file, or not such a table.
    """
    where, given = "init_from", job.init_from
    if budget.table:
        where, given = "budget.table", budget.table
    path = _table_file(where, given)
    try:
        rows = _usable_rows(path, job, budget)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where}={str(path)!r}: not a table of stage=sensitivity, or cut short ({error})") from None
    if not rows:
        raise UserError(f"{where}={str(path)!r}: nothing in it for prune= and quantize= as they are")
    return rows


def _table_file(where: str, given: str | None) -> Path:
    """The file that ``given`` names or, as a run's directory, holds."""
    path = Path(given or "").expanduser()
    if path.is_dir():
        path = path / "sensitivity.csv"
    is_table = path.suffix == ".csv" and path.is_file()
    if not given or not is_table:
        raise UserError(
            f"{where}={given}: no sensitivity.csv there; run stage=sensitivity first and give its directory"
        )
    return path


def _usable_rows(path: Path, job: Job, budget: Budget) -> Rows:
    """The rows of the groups that are on, with numbers where they are needed."""
    found = []
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            group = GROUP_OF[row["kind"]]
            if not job.group_config(group):
                continue
            if budget.loss not in row:
                raise UserError(f"budget.loss={budget.loss}: not in {path}; sensitivity.method=evaluate writes it")
            value = _finite(row, "value")
            loss = _finite(row, budget.loss)
            found.append(row | {"value": value, budget.loss: loss})
    return found


def _finite(row: Mapping[str, str], key: str) -> float:
    """A number of a row.

    Raises:
        ValueError: it is none, or not finite.
    """
    number = float(row[key])
    if not math.isfinite(number):
        raise ValueError(f"{key} of {row['layer']} is {number}")
    return number


def check_layers(rows: Rows, network: Network) -> None:
    """Raises UserError where the table is another network's."""
    known = compressible_layers(network.model)
    for row in rows:
        layer = row["layer"]
        if layer not in known:
            raise UserError(f"budget.table: no layer {layer!r} in the network{near_misses(layer, known)}")
