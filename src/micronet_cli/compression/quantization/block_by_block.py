"""Block after block is reconstructed, each with what the blocks before it have become; other layers as they come."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from micronet_cli.compression.quantization.block_data import BlockData
from micronet_cli.compression.quantization.block_reconstruction import BlockReconstruction, LearningBlock
from micronet_cli.compression.quantization.layer_by_layer import LayerByLayer
from micronet_cli.layers.finite import NotFinite
from micronet_cli.trace.blocks import Block
from micronet_cli.trace.carried import Carried

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
        self._blocks: dict[str, Block] = {}
        block_of: dict[str, str] = {}
        quantized = {*self.names, *self.left_out}
        for block in self.blocks:
            if quantized.isdisjoint(block.layers):
                continue
            self._blocks[block.name] = block
            block_of |= dict.fromkeys(block.layers, block.name)
        steps: dict[str, None] = {}
        for name in self.chains:
            step = block_of.get(name, name)
            if step in self._blocks or name in self.names:
                steps[step] = None
        self.names = list(steps)
        self.left_out = [name for name in self.left_out if name not in block_of]

    def _cost(self, name: str) -> float:
        block = self._blocks.get(name)
        if block is None:
            return super()._cost(name)
        of_image = 3 * block.multiplications + PER_ELEMENT * block.elements
        return self.reconstruction.iterations * self._together(block) * of_image

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
        module = self.model.get_submodule(name)
        nearest = copy.deepcopy(module.state_dict())
        learning.learn(data, together)
        after = learning.error(data, together)
        learned = after < before
        if not learned:
            module.load_state_dict(nearest)
            after = before
        if not math.isfinite(after):
            raise NotFinite(
                f"{name}: what quantisation changes in its output is {after}; "
                "give a network with smaller weights, or leave its layers in float"
            )
        return {"layer": name, "error_before": before, "error": after, "learned": learned}

    def _learns(self, bits: float) -> bool:
        return self.adaround is not None and self.adaround.learns(bits)

    @torch.no_grad()
    def _data(self, block: Block, forward: Carried, images: int) -> BlockData:
        """What the block reads in both networks, and gives in float."""
        # Half of the memory is for the waiting networks.
        in_memory = self.memory_mb * 2**20 / 4
        data = BlockData(images, in_memory, self.directory)
        for _, (in_float, quantized) in forward.inputs(block.name):
            # A block may write over what it reads.
            target = block.run(self.reference, in_float.clone())
            data.add(in_float, quantized, target)
        return data
