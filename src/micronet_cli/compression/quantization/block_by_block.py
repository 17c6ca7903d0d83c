"""Block after block is reconstructed, each with what the blocks before it have become; other layers as they come."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from micronet_cli.compression.quantization.block_data import BlockData
from micronet_cli.compression.quantization.block_reconstruction import BlockReconstruction, LearningBlock
from micronet_cli.compression.quantization.layer_by_layer import LayerByLayer, check_finite
from micronet_cli.compression.quantization.layer_costs import LayerCosts
from micronet_cli.trace.blocks import Block
from micronet_cli.trace.carried import Carried, carried

# For each element that a block makes of an image: what costs as many multiplications as it in a step of learning, and
# what a step holds.
PER_ELEMENT = 200
BYTES_PER_ELEMENT = 12
# What a step may hold. Large images have many positions each, so that fewer of them are enough.
STEP_BYTES = 1 << 28


@dataclass
class BlockByBlock(LayerByLayer):
    """Layers that belong to a block are reconstructed with it.

    Attributes:
        blocks: of the network in float.
        reconstruction: how each learns.
    """

    blocks: Sequence[Block] = ()
    reconstruction: BlockReconstruction = field(default_factory=BlockReconstruction)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._single = set(self.names)
        quantized = {*self.names, *self.left_out}
        self._blocks: dict[str, Block] = {}
        block_of: dict[str, str] = {}
        for block in self.blocks:
            if quantized.isdisjoint(block.layers):
                continue
            self._blocks[block.name] = block
            for name in block.layers:
                block_of[name] = block.name
        self.names = self._in_order(block_of)
        self.left_out = [name for name in self.left_out if name not in block_of]

    def _in_order(self, block_of: Mapping[str, str]) -> list[str]:
        """Blocks, and layers outside of them, by what is executed first of each; ``block_of``: layer -> its block."""
        steps: dict[str, None] = {}
        for name in self.chains:
            step = block_of.get(name, name)
            if step in self._blocks or name in self._single:
                steps[step] = None
        return list(steps)

    def _cost(self, name: str, of_layers: LayerCosts) -> float:
        block = self._blocks.get(name)
        if block is None:
            return of_layers.cost(name)
        of_image = 3 * block.multiplications + PER_ELEMENT * block.elements
        images = self.reconstruction.iterations * self._together(block)
        learning = images * of_image
        alone = [of_layers.cost(layer) for layer in block.layers if layer in self._single]
        return learning + sum(alone)

    def _together(self, block: Block) -> int:
        """Images a step, however much memory there is: it decides what is learned."""
        bytes_per_image = BYTES_PER_ELEMENT * block.elements
        fitting = max(1, STEP_BYTES // bytes_per_image)
        return min(self.reconstruction.batch_size, fitting)

    def _step(self, name: str, forward: Carried, images: int) -> dict[str, Any]:
        block = self._blocks.get(name)
        if block is None:
            return super()._step(name, forward, images)
        data = self._data(block, forward, images)
        together = self._together(block)
        learning = LearningBlock(
            block, self.model, self.reconstruction, self._learns, self.correct_bias, self._generator
        )
        before = learning.error(data, together)
        check_finite(name, before)
        self._layers_of(block, data)
        layer_by_layer = learning.error(data, together)
        module = self.model.get_submodule(name)
        state = copy.deepcopy(module.state_dict())
        learning.learn(data, together)
        error = learning.error(data, together)
        learned = error < layer_by_layer
        if not learned:
            module.load_state_dict(state)
            error = layer_by_layer
        check_finite(name, error)
        return {"layer": name, "error_before": before, "error": error, "learned": learned}

    def _layers_of(self, block: Block, data: BlockData) -> None:
        """Round and correct the layers of a block one after the other: where its own learning begins."""
        networks = []
        for number, model in enumerate((self.reference, self.model)):
            alone = _Alone(model, block, number, data.device)
            networks.append(alone)
        batches = data.read.split(self._together(block))
        with carried(networks, batches, self._bytes_of_block(), self.directory) as forward:
            for name in block.layers:
                if name in self._single:
                    super()._step(name, forward, data.images)

    def _bytes_of_block(self) -> float:
        """What a block's data, and the layers in it, may each hold in memory: half of it is for waiting networks."""
        memory_bytes = self.memory_mb * 2**20
        return memory_bytes / 4

    def _learns(self, bits: float) -> bool:
        return self.adaround is not None and self.adaround.learns(bits)

    @torch.no_grad()
    def _data(self, block: Block, forward: Carried, images: int) -> BlockData:
        """What the block reads in both networks, and gives in float."""
        data = BlockData(images, self._bytes_of_block(), self.directory)
        for _, (in_float, quantized) in forward.inputs(block.name):
            # A block may write over what it reads.
            target = block.run(self.reference, in_float.clone())
            data.add(in_float, quantized, target)
        return data


class _Alone(nn.Module):
    """One block of a network as a network.

    Args:
        model: the network, whose modules keep their names.
        number: which of the two tensors is read of ``[N, 2, ...]``.
        device: where it runs.
    """

    def __init__(self, model: nn.Module, block: Block, number: int, device: torch.device) -> None:
        super().__init__()
        for name, child in model.named_children():
            self.add_module(name, child)
        self._block = block
        self._number = number
        self._device = device

    def forward(self, pairs: Tensor) -> Tensor:
        """What the block gives."""
        # A copy: what a run reads may be put on disk.
        read = pairs[:, self._number].to(self._device, copy=True)
        return self._block.run(self, read)
