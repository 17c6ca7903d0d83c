"""Pruning without training: layer after layer, each with what the layers before it have become."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from micronet_cli.compression.pruning.allocation import Reading, row_scale, row_weights, shared_out
from micronet_cli.compression.pruning.layer_moments import Moments
from micronet_cli.compression.pruning.second_order import SecondOrderPruner, Target
from micronet_cli.compression.pruning.sparse_weight import sparse_weight
from micronet_cli.compression.quantization.layer_output import can_be_shifted, normalised, shift_output
from micronet_cli.functional.equalization import expected_output
from micronet_cli.functional.masks import sparsity_of
from micronet_cli.layers.effective_weight import mask_of, original_weight
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
    _row_weights: dict[str, Tensor] = field(init=False, default_factory=dict)
    _images: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        """Find the layers that are gone through: from the first that is pruned on, for all after it read other inputs.

        Raises:
            ValueError: a layer that would be pruned is not executed exactly once.
        """
        self._targets: dict[str, Target] = {}
        for target in self.pruner.targets(self.model):
            if target.name not in self.chains:
                raise ValueError(
                    f"prune.rules: {target.name} is not executed exactly once; "
                    "a later rule with sparsity=null leaves it alone"
                )
            self._targets[target.name] = target
        self.names = []
        for name in self._from_first_target():
            layer = self.model.get_submodule(name)
            if has_rows(layer):
                self.names.append(name)

    def _from_first_target(self) -> list[str]:
        """The first layer that is pruned and all that are executed after it."""
        executed = list(self.chains)
        for place, name in enumerate(executed):
            if name in self._targets:
                return executed[place:]
        return []

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
        self._images = sum(len(batch) for batch in batches)
        if self._can_be_shared_out():
            self._share_out(batches)
        networks = (self.reference, self.model)
        for name, (rows, pruned_rows) in self._rows(networks, self.names, batches):
            yield self._layer(name, rows, pruned_rows)

    def _rows(
        self, networks: Sequence[nn.Module], names: Collection[str], batches: Sequence[Tensor]
    ) -> Iterator[tuple[str, list[Tensor]]]:
        """Layer after layer, what it reads in each network, ``[groups, n, d]``, as much of each image in turn."""
        generator = torch.Generator().manual_seed(self.seed)
        per_image = max(1, self.rows // self._images)
        memory_bytes = self.memory_mb * 2**20
        # The other half is for the run that is at work, and the rows.
        waiting_bytes = memory_bytes / 2
        with carried(networks, batches, waiting_bytes, self.directory) as forward:
            for name in names:
                layer = self.reference.get_submodule(name)
                inputs = forward.inputs(name)
                yield name, input_rows(layer, inputs, self._images, per_image, generator, shuffled=False)

    def _can_be_shared_out(self) -> bool:
        """Whether the layers may differ in sparsity, and have room to."""
        if self.pruner.scope == "layer":
            return False
        most = self.pruner.granularity.max_sparsity
        return any(target.sparsity < most for target in self._targets.values())

    def _share_out(self, batches: Sequence[Tensor]) -> None:
        """Give layers sparsities of their own, of the same total, and their rows weights, by the logits' error.

        Raises:
            ValueError: the network has no derivatives.
        """
        names = [name for name in self.names if name in self._targets]
        readings = {}
        dense_alone = (self.reference,)
        for name, (rows,) in self._rows(dense_alone, names, batches):
            readings[name] = self._reading(name, rows)
        generator = torch.Generator().manual_seed(self.seed)
        self._row_weights = row_weights(self.reference, readings, batches, generator)
        targets = [self._targets[name] for name in names]
        for target in shared_out(targets, readings, self._row_weights, self.pruner.granularity):
            self._targets[target.name] = target

    def _reading(self, name: str, rows: Tensor) -> Reading:
        """What removals from a layer do in the dense network; ``rows`` are changed in place."""
        mean = rows.mean(1)
        chain = self.chains[name]
        if not can_be_shifted(self.reference, chain):
            mean.zero_()
        rows.sub_(mean[:, None])
        moments = self._moments(name, rows, rows)
        weight = self.reference.get_submodule(name).weight.detach()
        return Reading.of(weight, moments, mean, self.pruner.dampening)

    @torch.no_grad()
    def _layer(self, name: str, rows: Tensor, pruned_rows: Tensor) -> dict[str, Any]:
        """Prune a layer that is to be pruned, and correct it, given the rows that it reads in both networks."""
        chain = self.chains[name]
        mean = rows.mean(1)
        pruned_mean = pruned_rows.mean(1)
        line: dict[str, Any] = {"layer": name}
        target = self._targets.get(name)
        if target is not None:
            if can_be_shifted(self.model, chain):
                rows.sub_(mean[:, None])
                pruned_rows.sub_(pruned_mean[:, None])
            line |= self._prune(target, rows, pruned_rows)
        self._correct(chain, mean, pruned_mean)
        return line

    def _prune(self, target: Target, rows: Tensor, pruned_rows: Tensor) -> dict[str, Any]:
        """Give a layer its mask and weights; its sparsity and errors."""
        in_float = self.reference.get_submodule(target.name).weight
        mask = mask_of(target.layer)
        moments = self._moments(target.name, rows, pruned_rows)
        hessians = moments.damped_hessian(self.pruner.dampening)
        nearest = moments.nearest_weight(in_float, hessians)
        # The rows compete for what stays; what one of them is best made of does not depend on its weight.
        scale = nearest.new_ones(())
        if target.name in self._row_weights:
            scale = row_scale(self._row_weights[target.name], nearest)
        found = sparse_weight(nearest * scale, mask, hessians, target.sparsity, self.pruner.granularity)
        weight = found.weight / scale
        before = moments.error(in_float, in_float * found.mask)
        after = moments.error(in_float, weight)
        original_weight(target.layer).copy_(weight)
        mask.copy_(found.mask)
        return {
            "sparsity": sparsity_of(found.mask),
            "error_before": before,
            "error": after,
        }

    def _moments(self, name: str, rows: Tensor, pruned_rows: Tensor) -> Moments:
        """Of what a layer reads in both networks.

        Raises:
            NotFinite: they are not.
        """
        weight = self.reference.get_submodule(name).weight.detach()
        moments = Moments.of(weight, rows, pruned_rows, self._images)
        total = moments.size + moments.change
        if not math.isfinite(total):
            raise NotFinite(f"{name}: its output is not finite; give another checkpoint")
        return moments

    def _correct(self, chain: Chain, mean_row: Tensor, pruned_mean_row: Tensor) -> None:
        """Give a layer's output its mean in the dense network, by its bias or BatchNorm."""
        dense = _mean_output(self.reference, chain, mean_row)
        pruned = _mean_output(self.model, chain, pruned_mean_row)
        change = dense - pruned
        shift_output(self.model, chain, change)


def _mean_output(network: nn.Module, chain: Chain, mean_row: Tensor) -> Tensor:
    """The mean of a layer's output behind its bias and BatchNorm, ``[C_out]``."""
    layer = network.get_submodule(chain.layer)
    products = expected_output(layer.weight, mean_row)
    with_bias = normalised(network, chain)
    output = with_bias(products[:, None])
    return output[:, 0]
