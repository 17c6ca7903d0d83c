"""BatchNorm folded into the layer before it (Jacob et al., arXiv 1712.05877, section 3.2)."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from micronet_cli.layers.effective_weight import original_weight
from micronet_cli.layers.plain_product import runs_linear
from micronet_cli.layers.rules import compressible_layers, shared_parameters
from micronet_cli.torch_internals import BatchNorm, memory_of, tree_leaves
from micronet_cli.trace.execution import Execution


def batch_norm_pairs(model: nn.Module, input_shape: Sequence[int]) -> dict[str, str]:
    """BatchNorm -> the convolution or linear layer it folds into, by name, in the executed order.

    One folds where its input is a layer's output that nothing else reads, unquantised, both are executed once, and the
    layer is a plain product with a weight of its own. The network is run on one image of zeros to see that; it is left
    as it was.

    Args:
        model: any network.
        input_shape: (channels, height, width).
    """
    with _Execution(model) as seen:
        parameter = next(model.parameters())
        model(torch.zeros(1, *input_shape, device=parameter.device, dtype=parameter.dtype))
    shared = shared_parameters(model)

    def fits(layer: nn.Module, norm: nn.Module) -> bool:
        weight = original_weight(layer)
        return runs_linear(layer) and weight not in shared and len(weight) == norm.num_features

    return {
        norm: layer
        for norm, made in seen.inputs.items()
        if (layer := seen.layers.get(made))
        and seen.calls[norm] == seen.calls[layer] == seen.reads[made] == 1
        and fits(model.get_submodule(layer), model.get_submodule(norm))
    }


class _Execution(Execution):
    """One pass in evaluation mode: which layer made a tensor, which BatchNorm takes it, how often it is read.

    Attributes:
        layers: memory -> name of the layer whose unquantised output lives there.
        inputs: BatchNorm -> memory of its input.
        calls: module -> how often it was executed.
        reads: memory -> how many operators read it.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.layers: dict[int, str] = {}
        self.inputs: dict[str, int] = {}
        self.calls: Counter[str] = Counter()
        self.reads: Counter[int] = Counter()
        self._alive: list[Tensor] = []  # memory is told apart by address: none may be freed meanwhile

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run an operator and count what it reads; a view reads nothing."""
        if not func.is_view:
            self.reads.update({memory_of(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)})
        result = func(*args, **kwargs or {})
        self._alive += [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        return result

    def hooks(self) -> Iterator[RemovableHandle]:
        """Watch layers and BatchNorms."""
        for name, layer in compressible_layers(self.model).items():
            yield layer.register_forward_hook(self._made(name))
        for name, module in self.model.named_modules():
            if isinstance(module, BatchNorm) and module.running_mean is not None:
                yield module.register_forward_pre_hook(self._taken(name))

    def _made(self, name: str) -> Any:
        def hook(layer: nn.Module, inputs: tuple, output: Tensor) -> None:
            self.calls[name] += 1
            if getattr(layer, "output_fake_quantize", None) is None:
                self.layers[memory_of(output)] = name
                self.reads[memory_of(output)] = 0  # what the layer itself did does not count

        return hook

    def _taken(self, name: str) -> Any:
        def hook(norm: nn.Module, inputs: tuple) -> None:
            self.calls[name] += 1
            self.inputs[name] = memory_of(inputs[0])

        return hook
