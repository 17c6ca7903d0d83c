"""What the compressor groups of a config do to a network."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from micronet_cli.compression.compressor import Compressor
from micronet_cli.errors import UserError
from micronet_cli.network import Network
from micronet_cli.stages.job import Job
from micronet_cli.stages.trial_run import check_effects
from micronet_cli.tables import text_table

log = logging.getLogger(__name__)

COMPRESSORS = ("prune", "quantize")
UNPACKED = "give init_from=<the run that it was exported from>"


def attach_compressors(job: Job, network: Network, groups: Sequence[str] = COMPRESSORS) -> list[Compressor]:
    """Attach the config's compressors (prune, then quantise), note them in the network's history, return them.

    Raises:
        UserError: a rule is left with no layer or has no effect (every such rule is named), or the network is packed.
    """
    attached: dict[str, Compressor] = {}
    problems = []
    for group in groups:
        compressor = getattr(job.parts, group)
        if compressor is None:
            continue
        check_unpacked(network, group)
        try:
            compressor.attach(network.model)
        except ValueError as error:
            problems.append(str(error))
        network.compressors = [*network.compressors, job.group_config(group)]
        attached[group] = compressor
    problems = problems or check_effects(attached, network)
    if problems:
        raise UserError("\n".join(problems))
    return list(attached.values())


def check_unpacked(network: Network, where: str) -> None:
    """Raises UserError where the network is packed; ``where`` would change it."""
    if network.packed is not None:
        raise UserError(f"{where}: {str(network.packed)!r} is packed and stays as it is; {UNPACKED}")


def rule_table(compressors: Sequence[Compressor], network: Network) -> dict[str, dict[str, Any]]:
    """Layer -> the rules and targets that the compressors have for it."""
    rows: dict[str, dict[str, Any]] = {}
    for compressor in compressors:
        for layer, columns in compressor.table(network.model).items():
            rows[layer] = rows.get(layer, {}) | columns
    return rows


def logged_rule_table(compressors: Sequence[Compressor], network: Network) -> dict[str, dict[str, Any]]:
    """``rule_table``, told to the user in a line for all layers with the same targets; layers.csv names each."""
    rules = rule_table(compressors, network)
    if rules:
        log.info("%s", text_table(_by_targets(rules)))
    return rules


def _by_targets(rules: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for all layers with the same targets: how many there are, the first and the last of them."""
    alike: dict[tuple, list[str]] = {}
    for layer, columns in rules.items():
        targets = tuple(columns.items())
        alike.setdefault(targets, []).append(layer)
    rows = []
    for targets, layers in alike.items():
        named = layers if len(layers) <= 2 else [layers[0], "...", layers[-1]]
        rows.append({"layers": " ".join(named), "number": len(layers), **dict(targets)})
    return rows
