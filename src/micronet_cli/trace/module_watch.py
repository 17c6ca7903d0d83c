"""Which module is being executed, and what those that the recorder cannot see into have done."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.utils.parametrize import ParametrizationList

from micronet_cli.layers.effective_weight import EffectiveWeight
from micronet_cli.layers.fake_quantize import FakeQuantize
from micronet_cli.layers.integer import Rescale
from micronet_cli.layers.rules import COMPRESSIBLE
from micronet_cli.torch_internals import flat_weights, set_flat_weights
from micronet_cli.trace.layouts import Read
from micronet_cli.trace.recorder import Recorder
from micronet_cli.trace.records import Call

PARAMETRIZED = ".parametrizations."
_WITH_OWN_ARITHMETIC = (FakeQuantize, Rescale)  # what they execute is not counted


@dataclass(frozen=True)
class _Begun:
    """A module that is being executed: the operations before it, and what went in."""

    first: int
    inputs: tuple[Read, ...]


class ModuleWatch:
    """Keeps the recorder's module stack, and tells it about quantisers and parametrised weights.

    Attributes:
        ends: module name -> number of operations executed when it last returned.
        calls: every execution of a module that has ended, where ``every_layer`` is followed.
    """

    def __init__(self, model: nn.Module, recorder: Recorder, every_layer: bool) -> None:
        self.recorder = recorder
        self.every_layer = every_layer
        self.ends: dict[str, int] = {}
        self.calls: list[Call] = []
        self._names = {module: name for name, module in model.named_modules()}
        self._begun: list[_Begun] = []
        self._replaced: dict[nn.RNNBase, list[Tensor]] = {}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Watch every module that is executed inside the block."""
        entering = register_module_forward_pre_hook(self._enter)
        leaving = register_module_forward_hook(self._leave)
        try:
            yield
        finally:
            entering.remove()
            leaving.remove()
            for module, weights in self._replaced.items():
                set_flat_weights(module, weights)

    def _enter(self, module: nn.Module, inputs: tuple) -> None:
        recorder = self.recorder
        # A module that is not the model's (made during the forward) counts as part of the one that runs it.
        name = self._names.get(module, recorder.stack[-1])
        recorder.stack.append(name)
        if self.every_layer:
            self._begin_call(module, inputs)
        if isinstance(module, _WITH_OWN_ARITHMETIC):
            recorder.inside += 1
        if isinstance(module, nn.RNNBase):
            self._replace_weights(module)

    def _leave(self, module: nn.Module, inputs: tuple, output: Any) -> None:
        recorder = self.recorder
        name = recorder.stack.pop()
        self.ends[name] = len(recorder.ops)
        if self.every_layer:
            self._end_call(module, name, output)
        if isinstance(module, FakeQuantize):
            recorder.inside -= 1
            recorder.quantized(inputs[0], output, name)
        elif isinstance(module, Rescale):
            recorder.inside -= 1
            layer, _, _ = name.rpartition(".")
            bias = None
            if module.bias is not None:
                bias = module.bias.stored
            recorder.rescaled(inputs[0], layer, bias)
        elif isinstance(module, nn.RNNBase):
            weights = self._replaced.pop(module)
            set_flat_weights(module, weights)
        elif isinstance(module, ParametrizationList) and isinstance(output, Tensor):
            self._name_parametrized(module, name, output)

    def _begin_call(self, module: nn.Module, inputs: tuple) -> None:
        recorder = self.recorder
        if isinstance(module, COMPRESSIBLE):
            self._follow(inputs)
        first = len(recorder.ops)
        reads = recorder.known.reads(inputs)
        self._begun.append(_Begun(first, reads))

    def _end_call(self, module: nn.Module, name: str, output: Any) -> None:
        recorder = self.recorder
        begun = self._begun.pop()
        if module not in self._names:
            return
        end = len(recorder.ops)
        outputs = recorder.known.reads(output)
        call = Call(name, begun.first, end, begun.inputs, outputs)
        self.calls.append(call)

    def _follow(self, inputs: tuple) -> None:
        """Count what a layer reads as an activation."""
        known = self.recorder.known
        for tensor in inputs:
            if isinstance(tensor, Tensor) and not known.is_activation(tensor):
                known.add_value(tensor, None)

    def _replace_weights(self, module: nn.RNNBase) -> None:
        """A recurrent kernel refuses to mix devices: it gets meta tensors."""
        known = self.recorder.known
        weights = flat_weights(module)
        self._replaced[module] = weights
        stand_ins = [known.stand_in(weight) for weight in weights]
        set_flat_weights(module, stand_ins)

    def _name_parametrized(self, module: ParametrizationList, name: str, output: Tensor) -> None:
        """What parametrisations make of a tensor has the tensor's name."""
        layer, _, tensor = name.partition(PARAMETRIZED)
        derived = False
        for part in module:
            if not isinstance(part, EffectiveWeight) or part.standardization is not None:
                derived = True
        self.recorder.known.rename_stored(output, f"{layer}.{tensor}", layer, derived)
