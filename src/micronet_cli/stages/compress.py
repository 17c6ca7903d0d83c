"""What the compressor groups of a config do to a network."""

from collections.abc import Sequence
from typing import Any

from micronet_cli.compression.compressor import Compressor
from micronet_cli.errors import UserError
from micronet_cli.network import Network
from micronet_cli.stages.job import Job
from micronet_cli.stages.trial_run import check_effects

COMPRESSORS = ("prune", "quantize")
UNPACKED = "give init_from=<the run that it was exported from>"


def attach_compressors(job: Job, network: Network) -> list[Compressor]:
    """Attach the config's compressors (prune, then quantise), note them in the network's history, return them.

    Raises:
        UserError: a rule is left with no layer or has no effect (every such rule is named), or the network is packed.
    """
    attached: dict[str, Compressor] = {}
    problems = []
    for group, compressor in (("prune", job.parts.prune), ("quantize", job.parts.quantize)):
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
