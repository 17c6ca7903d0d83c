"""What the compressor groups of a config do to a network."""

from collections.abc import Sequence
from typing import Any

from micronet_cli.compression.compressor import Compressor
from micronet_cli.config import to_plain
from micronet_cli.errors import UserError
from micronet_cli.network import Network
from micronet_cli.stages.job import Job

COMPRESSORS = ("prune", "quantize")
UNPACKED = "give init_from=<the run that it was exported from>"


def attach_compressors(job: Job, network: Network) -> list[Compressor]:
    """Attach the config's compressors (prune, then quantise), note them in the network's history, return them.

    Raises:
        UserError: a rule is left with no layer (every such rule is named), or the network is packed.
    """
    wanted = [group for group in COMPRESSORS if job.parts[group] is not None]
    if wanted:
        check_unpacked(network, wanted[0])
    attached, problems = [], []
    for group in COMPRESSORS:
        if (compressor := job.parts[group]) is not None:
            try:
                compressor.attach(network.model)
            except ValueError as error:
                problems.append(str(error))
            network.compressors = [*network.compressors, to_plain(job.config[group])]
            attached.append(compressor)
    if problems:
        raise UserError("\n".join(problems))
    return attached


def check_unpacked(network: Network, where: str) -> None:
    """Raises UserError where the network is packed; ``where`` wants to change it."""
    if network.packed is not None:
        raise UserError(f"{where}: {str(network.packed)!r} is packed and stays as it is; {UNPACKED}")


def rule_table(compressors: Sequence[Compressor], network: Network) -> dict[str, dict[str, Any]]:
    """Layer -> the rules and targets that the compressors have for it."""
    rows: dict[str, dict[str, Any]] = {}
    for compressor in compressors:
        for layer, columns in compressor.table(network.model).items():
            rows[layer] = rows.get(layer, {}) | columns
    return rows
