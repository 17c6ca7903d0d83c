"""Which modules multiply two computed tensors, and which calls of theirs do: the products of attention."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from micronet_cli.layers.products import OPERANDS, Products
from micronet_cli.torch_internals import uncompiled
from micronet_cli.trace.observe import record
from micronet_cli.trace.recorder import Recorder
from micronet_cli.trace.records import Stored, TracedNetwork


@dataclass(frozen=True)
class ComputedProducts:
    """The products of two tensors that both are computed; a parameter, in whatever shape, is not.

    Attributes:
        operands: module -> numbers of their operands among those of all products that its forward calls, as
            ``layers.products`` counts them; in the network's order.
        unreachable: modules with such products that cannot be counted so: made within a function of torch's, in a
            different number at each call, or in a module inside of which another one makes some.
    """

    operands: dict[str, tuple[int, ...]]
    unreachable: tuple[str, ...]

    @property
    def modules(self) -> tuple[str, ...]:
        """All of these modules."""
        return (*self.operands, *self.unreachable)


@dataclass(frozen=True)
class _SeenProduct:
    """A call of a product.

    Attributes:
        modules: qualified names of the modules being executed, innermost last.
        computed: whether both operands are computed, and one depends on the example.
        first: number of operations executed before.
    """

    modules: tuple[str, ...]
    computed: bool
    first: int


class _ProductWatch(Products):
    """Notes the calls of products while a recorder notes the operations that they become."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder
        self.seen: list[_SeenProduct] = []

    def operands(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Both as they are."""
        known = self.recorder.known
        depends = known.is_activation(left) or known.is_activation(right)
        computed = depends and self._is_computed(left) and self._is_computed(right)
        first = len(self.recorder.ops)
        call = _SeenProduct(tuple(self.recorder.stack), computed, first)
        self.seen.append(call)
        return left, right

    def _is_computed(self, tensor: Tensor) -> bool:
        known = self.recorder.known
        if known.is_activation(tensor):
            return True
        root = known.root(tensor)
        return root is not None and _is_derived(known.stored[root])


def _is_derived(stored: Stored) -> bool:
    """Whether arithmetic on parameters alone made a tensor, other than a mask and a weight's quantiser."""
    return stored.derived or OPERANDS in (stored.quantizer or "")


def computed_products(model: nn.Module, input_shape: Sequence[int]) -> ComputedProducts:
    """Find them in one forward pass, attention unfused; the model is left as it was.

    Args:
        model: any network.
        input_shape: (channels, height, width).

    Raises:
        ValueError: the network reads the value of a tensor in Python.
    """
    watches: list[_ProductWatch] = []

    def watch(recorder: Recorder) -> _ProductWatch:
        watches.append(_ProductWatch(recorder))
        return watches[-1]

    _, network = record(uncompiled(model), tuple(input_shape), every_layer=True, watches=[watch])
    seen = watches[-1].seen
    owners = {call.modules[-1] for call in seen if call.computed}
    unreachable = _unseen(network, seen)
    calls: defaultdict[str, list[bool]] = defaultdict(list)
    for call in seen:
        around = [name for name in dict.fromkeys(call.modules) if name in owners]
        if around:
            calls[around[-1]].append(call.computed)
        if len(around) > 1:
            unreachable[around[0]] = None
    operands = {}
    executions = Counter(call.module for call in network.calls)
    for owner, computed in calls.items():
        numbers = _operands_of_one_call(computed, executions[owner])
        # The network's own forward is called by whoever runs it, in ways of their own.
        if numbers is None or owner == "":
            unreachable[owner] = None
        else:
            operands[owner] = numbers
    reachable = {name: numbers for name, numbers in operands.items() if name not in unreachable}
    return ComputedProducts(reachable, tuple(unreachable))


def _unseen(network: TracedNetwork, seen: Sequence[_SeenProduct]) -> dict[str, None]:
    """Modules with a product of computed tensors that no call of a product made, in order."""
    matrix_products = []
    for index, op in enumerate(network.ops):
        if op.dot is not None and op.kind != "convolution":
            matrix_products.append(index)
    made = set()
    for call in seen:
        if call.computed:
            made.add(next((index for index in matrix_products if index >= call.first), None))
    unseen: dict[str, None] = {}
    for index in matrix_products:
        op = network.ops[index]
        assert op.dot is not None
        if op.dot.weight is None and index not in made:
            unseen[op.layer] = None
    return unseen


def _operands_of_one_call(computed: Sequence[bool], executions: int) -> tuple[int, ...] | None:
    """Numbers of the operands of a module's products; None where they differ between its executions.

    Args:
        computed: for each product of all executions, whether its operands are computed.
        executions: how often the module was executed.
    """
    products = len(computed) // executions
    once = list(computed[:products])
    if once * executions != list(computed):
        return None
    numbers: list[int] = []
    for product, is_computed_product in enumerate(once):
        if is_computed_product:
            numbers += (2 * product, 2 * product + 1)
    return tuple(numbers)
