"""Every private name of torch and timm that the package uses, behind a public one: a new release is checked here first.

Each has a contract test of its own in ``tests/test_torch_internals.py``.
"""

from collections.abc import Callable
from typing import Any, cast

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

__all__ = [
    "BatchNorm",
    "TorchDispatchMode",
    "buffers_of",
    "constructor_arguments",
    "flat_weights",
    "forward_hooks_of",
    "forward_pre_hooks_of",
    "memory_of",
    "operator_name",
    "parameters_of",
    "returns_one",
    "reversed_padding",
    "set_flat_weights",
    "submodules_of",
    "tree_leaves",
    "tree_map",
    "uncompiled",
    "unparametrized",
    "version_of",
    "writes_to_inputs",
]

# The class behind BatchNorm1d, 2d and 3d, SyncBatchNorm and timm's BatchNormAct2d.
BatchNorm = nn.modules.batchnorm._BatchNorm


def memory_of(tensor: Tensor) -> int:
    """A number that all views of the same memory share, as long as one of them is alive."""
    return tensor.untyped_storage()._cdata


def version_of(tensor: Tensor) -> int:
    """How often the tensor's memory was written to in place; writes through ``.data`` do not count."""
    return tensor._version


def operator_name(operator: Any) -> str:
    """The name of a dispatched operator without namespace and overload: ``aten::add_.Tensor -> add_``."""
    return operator._schema.name.partition("::")[2]


def writes_to_inputs(operator: Any) -> bool:
    """Whether a dispatched operator changes one of its arguments in place."""
    return operator._schema.is_mutable


def returns_one(operator: Any) -> bool:
    """Whether a dispatched operator returns one tensor, not a tuple."""
    return len(operator._schema.returns) == 1


def uncompiled(model: nn.Module) -> nn.Module:
    """The network that ``torch.compile`` wrapped; itself where it is not compiled."""
    return getattr(model, "_orig_mod", model)


def flat_weights(layer: nn.RNNBase) -> list[Tensor]:
    """The weights of a recurrent layer in the order in which its kernel takes them."""
    return cast(list[Tensor], layer._flat_weights)


def set_flat_weights(layer: nn.RNNBase, weights: list[Tensor]) -> None:
    """Have a recurrent layer's kernel take these tensors."""
    layer._flat_weights = weights


def reversed_padding(layer: nn.Module) -> tuple[int, int, int, int]:
    """(left, right, top, bottom) of a 2-d convolution, ``padding="same"`` worked out."""
    return tuple(cast(list[int], layer._reversed_padding_repeated_twice))  # type: ignore[return-value]


def parameters_of(module: nn.Module) -> dict[str, Any]:
    """The module's own parameters by name; changes to the dictionary are changes to the module."""
    return module._parameters


def buffers_of(module: nn.Module) -> dict[str, Any]:
    """The module's own buffers by name; changes to the dictionary are changes to the module."""
    return module._buffers


def submodules_of(module: nn.Module) -> dict[str, Any]:
    """The module's own children by name; changes to the dictionary are changes to the module."""
    return module._modules


def unparametrized(layer: nn.Module) -> nn.Module:
    """A copy of a parametrised layer: of the class it had, with what the parametrisations make as parameters.

    ``parametrize.remove_parametrizations`` changes the class, which deep copies of the layer share.
    """
    plain: nn.Module = object.__new__(type(layer).__mro__[1])
    plain.__dict__ = dict(layer.__dict__)
    plain._modules = {name: module for name, module in layer._modules.items() if name != "parametrizations"}
    effective = {}
    for name in cast(nn.ModuleDict, layer.parametrizations):
        value = getattr(layer, name)
        effective[name] = nn.Parameter(value.detach().clone())
    plain._parameters = {**effective, **layer._parameters}
    return plain


def forward_pre_hooks_of(module: nn.Module) -> dict[int, Callable]:
    """The module's own forward pre-hooks by number; deleting an entry takes the hook away."""
    return module._forward_pre_hooks


def forward_hooks_of(module: nn.Module) -> dict[int, Callable]:
    """The module's own forward hooks by number; deleting an entry takes the hook away."""
    return module._forward_hooks


def constructor_arguments(model: nn.Module) -> dict[str, Any]:
    """The arguments that timm built a network with; empty for a network that it did not build."""
    return dict(getattr(model, "_model_args", {}))
