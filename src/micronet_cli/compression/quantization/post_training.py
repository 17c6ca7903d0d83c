"""Quantisation after training, from a few images without labels: ranges, biases, rounding."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from micronet_cli.compression.quantization.adaround import AdaRound
from micronet_cli.compression.quantization.bias_absorption import absorb_biases
from micronet_cli.compression.quantization.block_by_block import BlockByBlock
from micronet_cli.compression.quantization.block_reconstruction import BlockReconstruction
from micronet_cli.compression.quantization.equalization import equalize
from micronet_cli.compression.quantization.fixed_grid import FixedGrids
from micronet_cli.compression.quantization.layer_by_layer import LayerByLayer
from micronet_cli.compression.quantization.operand_ranges import operands_shown
from micronet_cli.compression.quantization.weight_ranges import set_weight_ranges
from micronet_cli.functional.calibration import RangeEstimate, mse
from micronet_cli.functional.weight_ranges import WeightRange, least_error
from micronet_cli.layers.copies import copied
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize, FakeQuantize
from micronet_cli.layers.finite import FiniteOutputs, NotFinite
from micronet_cli.layers.layer_input import watch_input
from micronet_cli.layers.standardized import standardize_once
from micronet_cli.trace.blocks import Block, blocks
from micronet_cli.trace.chains import Chain, chains

HISTORY = {
    "_target_": "micronet_cli.compression.quantization.fixed_grid.FixedGrids",
    "standardize_once": True,
}


@dataclass(frozen=True)
class PostTraining:
    """The ``ptq`` config group.

    Attributes:
        images: training images that are looked at, without labels.
        rows: positions that a layer is judged at, over all images.
        memory_mb: what the networks may hold in memory while they wait at a layer; what is beyond waits on disk.
        equalize: cross-layer equalisation (arXiv 1906.04721, section 4.1), before quantisers are attached.
        correct_bias: what quantisation adds to the mean of an output is taken off again (the same, section 4.2).
        activation_range: batch -> range of the inputs' quantisers meanwhile; null: each quantiser's own estimate.
        adaround: learned rounding; null: to the nearest.
        rescue: so many of the layers that hurt most get a bit more each; null: none. Of ``stage=ptq``.
        max_drop: as many layers do as it takes, share of the calibration images whose prediction may change; null: any.
        weight_range: (rows, how they are rounded) -> the weights' ranges, which get a gain each; null: their own.
        absorb_bias: high biases are absorbed by the next layer (arXiv 1906.04721, section 4.1.3), after equalisation.
        block: reconstruction of whole blocks; null: layer by layer.
    """

    images: int = 512
    rows: int = 32768
    memory_mb: int = 2048
    equalize: bool = True
    correct_bias: bool = True
    activation_range: RangeEstimate | None = mse
    adaround: AdaRound | None = field(default_factory=AdaRound)
    rescue: int | None = None
    max_drop: float | None = None
    weight_range: WeightRange | None = least_error
    absorb_bias: bool = False
    block: BlockReconstruction | None = None

    def __post_init__(self) -> None:
        for name in ("images", "rows", "memory_mb"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1")
        self._check_rescue()

    def _check_rescue(self) -> None:
        if self.rescue is not None and self.rescue < 1:
            raise ValueError(f"rescue={self.rescue}: must be at least 1 layer, or null (none)")
        if self.max_drop is not None and not 0 <= self.max_drop < 1:
            raise ValueError(f"max_drop={self.max_drop}: must be a share of the predictions in [0, 1), or null (any)")
        if self.rescue is not None and self.max_drop is not None:
            raise ValueError(f"max_drop={self.max_drop}: ptq.rescue={self.rescue} is given too; take one of them")

    @property
    def refines(self) -> bool:
        """Whether anything is done once the ranges are set."""
        return self.adaround is not None or self.correct_bias or self.block is not None

    def prepare(self, model: nn.Module, input_shape: Sequence[int]) -> "PostTrainingQuantization":
        """Equalise ``model`` in place and keep a float copy of it, before a quantiser is attached.

        Raises:
            ValueError: it is quantised already.
        """
        for name, module in model.named_modules():
            if isinstance(module, FakeQuantize):
                raise ValueError(f"{name}: quantised already; must be a network in float")
        found = chains(model, input_shape)
        pairs = []
        if self.equalize:
            pairs = equalize(model, found)
        absorbed = []
        if self.absorb_bias:
            absorbed = absorb_biases(model, found)
        reference = copied(model).eval()
        standardize_once(reference)
        parts = []
        if self.block is not None:
            parts = blocks(reference, input_shape)
        return PostTrainingQuantization(self, found, pairs, reference, absorbed, parts)


@dataclass
class PostTrainingQuantization:
    """The quantisation of one network: ``calibrate``, then ``layer_by_layer``.

    Attributes:
        settings: what is done.
        chains: layer -> what follows it, in the executed order.
        pairs: the layers that were equalised.
        reference: the network in float.
        absorbed: the pairs of layers of which the second took biases from the first.
        blocks: those that are reconstructed as a whole.
    """

    settings: PostTraining
    chains: dict[str, Chain]
    pairs: list[tuple[str, str]]
    reference: nn.Module
    absorbed: list[tuple[str, str]]
    blocks: list[Block]

    @torch.no_grad()
    def calibrate(self, model: nn.Module, batches: Sequence[Tensor]) -> None:
        """Fix the weights' grids, and take the ranges of activations from the float network.

        Raises:
            ValueError: a weight scheme that is not range-linear, or an output that is not finite.
        """
        FixedGrids(standardize_once=True).attach(model)
        if self.settings.weight_range is not None:
            set_weight_ranges(model, self.settings.weight_range, self.settings.adaround)
        handles = []
        for name, module in model.named_modules():
            handles += self._watch(name, module)
        with operands_shown(model, self.reference, self._started):
            self._run_reference(batches)
        for handle in handles:
            handle.remove()
        model.eval()

    def layer_by_layer(self, model: nn.Module, directory: Path | None = None, seed: int = 0) -> LayerByLayer:
        """What rounds and corrects the calibrated ``model``; see there."""
        settings = self.settings
        kind: Callable[..., LayerByLayer] = LayerByLayer
        if settings.block is not None:
            kind = partial(BlockByBlock, blocks=self.blocks, reconstruction=settings.block)
        return kind(
            self.reference,
            model,
            self.chains,
            settings.rows,
            settings.adaround,
            settings.correct_bias,
            settings.memory_mb,
            directory,
            seed,
        )

    def _watch(self, name: str, module: nn.Module) -> list[RemovableHandle]:
        """Show a module's quantisers what the module of the float network reads and gives, which goes on in float."""
        handles = []
        reads = self._started(module, "input_fake_quantize")
        if reads is not None:
            reference = self.reference.get_submodule(name)
            handle = watch_input(reference, _show_to(reads))
            handles.append(handle)
        gives = self._started(module, "output_fake_quantize")
        if gives is not None:
            reference = self.reference.get_submodule(name)
            show = _show_output_to(gives)
            handle = reference.register_forward_hook(show)
            handles.append(handle)
        return handles

    def _started(self, module: nn.Module, key: str) -> ActivationFakeQuantize | None:
        """The module's quantiser under that name, made to track what it is shown; None where it tracks no range."""
        quantizer = getattr(module, key, None)
        if not isinstance(quantizer, ActivationFakeQuantize):
            return None
        estimate = self.settings.activation_range
        if estimate is not None:
            quantizer.estimate = estimate
        quantizer.train()
        return quantizer

    def _run_reference(self, batches: Sequence[Tensor]) -> None:
        """Show the float network all images.

        Raises:
            ValueError: its output is not finite.
        """
        outputs = FiniteOutputs(self.reference)
        try:
            for images in batches:
                logits = self.reference(images)
                outputs.add(images, logits)
            outputs.finish()
        except NotFinite as error:
            raise ValueError(
                f"the output of the network in float is not finite, first in {error}; give another checkpoint"
            ) from None


def _show_to(quantizer: FakeQuantize) -> Callable[[Tensor], None]:
    """What shows ``quantizer`` a tensor."""

    def show(x: Tensor) -> None:
        quantizer(x)

    return show


def _show_output_to(quantizer: FakeQuantize) -> Callable[[nn.Module, tuple, Tensor], None]:
    """Forward hook that shows ``quantizer`` the module's output."""

    def show(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        quantizer(output)

    return show
