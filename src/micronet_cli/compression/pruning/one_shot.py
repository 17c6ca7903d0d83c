"""Pruning without training: layer after layer, each with what the layers before it have become."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from micronet_cli.compression.pruning.layer_moments import Moments
from micronet_cli.compression.pruning.second_order import SecondOrderPruner, Target
from micronet_cli.compression.pruning.sparse_weight import sparse_weight
from micronet_cli.compression.quantization.layer_output import can_be_shifted, normalised, shift_output
from micronet_cli.functional.equalization import expected_output
from micronet_cli.functional.second_order import damped
from micronet_cli.layers.effective_weight import effective_weight, original_weight
from micronet_cli.layers.finite import NotFinite
from micronet_cli.trace.carried import carried
from micronet_cli.trace.chains import Chain
from micronet_cli.trace.layer_inputs import has_rows, input_rows


@dataclass
class OneShot:
    """A network that is pruned once, towards what the dense network gives.

    A layer's weights are those of Optimal Brain Compression (arXiv 2208.11580) for min |W x - W' x'|^2, where x is what
    the layer reads in the dense network and x' what it reads in the pruned one: so it makes up for the layers before
    as well. Means are taken off where a bias or a BatchNorm follows, which then makes up for what is left of them.

    Attributes:
        reference: the dense network.
        model: with masks; changed in place.
        chains: layer -> what follows it, in the executed order.
        pruner: which layers are pruned, and how far.
        rows: positions that a layer is judged at, over all images.
        memory_mb: what waiting networks may hold in memory.
        directory: where they wait beyond that; None: the system's own place.
        seed: draws the positions.
    """

    reference: nn.Module
    model: nn.Module
    chains: Mapping[str, Chain]
    pruner: SecondOrderPruner
    rows: int
    memory_mb: int
    directory: Path | None = None
    seed: int = 0
    names: list[str] = field(init=False)

    def __post_init__(self) -> None:
        """Find the layers that are gone through: from the first that is pruned on, for all after it read other inputs.

        Raises:
            ValueError: a layer that would be pruned is not executed exactly once.
        """
        self._targets = {target.name: target for target in self.pruner.targets(self.model)}
        for name in self._targets:
            if name not in self.chains:
                raise ValueError(
                    f"prune.rules: {name} is not executed exactly once; a later rule with sparsity=null leaves it alone"
                )
        executed = list(self.chains)
        first = min((executed.index(name) for name in self._targets), default=len(executed))
        self.names = [name for name in executed[first:] if has_rows(self.model.get_submodule(name))]

    def run(self, batches: Sequence[Tensor]) -> Iterator[dict[str, Any]]:
        """Go through the layers.

        Args:
            batches: images ``[N, C, H, W]``.

        Yields:
            layer; of one that is pruned also its sparsity, and the error before and after the others made up for what
            went: the mean of |W x - W' x'|^2 over that of |W x|^2.

        Raises:
            NotFinite: an output is not.
            UserError: the pruner's dampening is too small.
        """
        generator = torch.Generator().manual_seed(self.seed)
        images = sum(len(batch) for batch in batches)
        per_image = max(1, self.rows // images)
        networks = (self.reference, self.model)
        # The other half is for the run that is at work, and the rows.
        waiting_bytes = self.memory_mb * 2**20 / 2
        with carried(networks, batches, waiting_bytes, self.directory) as forward:
            for name in self.names:
                layer = self.reference.get_submodule(name)
                inputs = forward.inputs(name)
                rows = input_rows(layer, inputs, images, per_image, generator)
                yield self._layer(name, *rows)

    @torch.no_grad()
    def _layer(self, name: str, rows: Tensor, pruned_rows: Tensor) -> dict[str, Any]:
        """Prune a layer that is to be pruned, and correct it, given the rows that it reads in both networks."""
        chain = self.chains[name]
        means = (rows.mean(1), pruned_rows.mean(1))
        line: dict[str, Any] = {"layer": name}
        target = self._targets.get(name)
        if target is not None:
            if can_be_shifted(self.model, chain):
                rows.sub_(means[0][:, None])
                pruned_rows.sub_(means[1][:, None])
            line |= self._prune(target, rows, pruned_rows)
        self._correct(chain, *means)
        return line

    def _prune(self, target: Target, rows: Tensor, pruned_rows: Tensor) -> dict[str, Any]:
        """Give a layer its mask and weights; its sparsity and errors."""
        in_float = self.reference.get_submodule(target.name).weight
        moments = Moments.of(in_float, rows, pruned_rows)
        if not math.isfinite(moments.size + moments.change):
            raise NotFinite(f"{target.name}: its output is not finite; give another checkpoint")
        parts = effective_weight(target.layer)
        assert parts is not None
        assert parts.mask is not None
        # (1 - s) H + s m I is damped by s / (1 - s), but for a factor.
        dampening = moments.shrinkage / (1 - moments.shrinkage)
        hessians = damped(moments.hessian, dampening.clamp(min=self.pruner.dampening))
        nearest = moments.nearest_weight(in_float, hessians)
        found = sparse_weight(nearest, parts.mask, hessians, target.sparsity, self.pruner.granularity)
        before = moments.error(in_float, in_float * found.mask)
        after = moments.error(in_float, found.weight)
        original_weight(target.layer).copy_(found.weight)
        parts.mask.copy_(found.mask)
        sparsity = float((~found.mask).double().mean())
        return {"sparsity": sparsity, "error_before": before, "error": after}

    def _correct(self, chain: Chain, mean_row: Tensor, pruned_mean_row: Tensor) -> None:
        """Give a layer's output its mean in the dense network, by its bias or BatchNorm."""
        dense = _mean_output(self.reference, chain, mean_row)
        pruned = _mean_output(self.model, chain, pruned_mean_row)
        shift_output(self.model, chain, dense - pruned)


def _mean_output(network: nn.Module, chain: Chain, mean_row: Tensor) -> Tensor:
    """The mean of a layer's output behind its bias and BatchNorm, ``[C_out]``."""
    layer = network.get_submodule(chain.layer)
    products = expected_output(layer.weight, mean_row)
    output = normalised(network, chain)(products[:, None])
    return output[:, 0]
