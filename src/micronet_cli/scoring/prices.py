"""The table of prices: multiplications and additions of every operator, each with its source.

Sources: [T] the challenge's rules text, [C] the organisers' counter, [R] a ruling of the review; "composition" means
the sum of the elementary operations that the formula executes; a transcendental function is one.
"""

from dataclasses import dataclass

from micronet_cli.scoring.charges import ELEMENTWISE, NON_LINEARITY, NORM, POOLING
from micronet_cli.trace.fake_quantizers import FAKE_QUANTIZERS
from micronet_cli.trace.kinds import MOVES
from micronet_cli.trace.records import Op


@dataclass(frozen=True)
class Price:
    """Cost of one operator: coefficients of its elements, of the elements it takes, and of its rows (``records.Op``).

    Attributes:
        part: the heading under which reports sum it.
        elements, taken, rows: (multiplications, additions) for each.
        affine: a stored weight costs a multiplication an element, a stored bias an addition.
        as_float: counted at the float width whatever its inputs' bits.
    """

    part: str
    source: str
    elements: tuple[float, float] = (0, 0)
    taken: tuple[float, float] = (0, 0)
    rows: tuple[float, float] = (0, 0)
    affine: bool = False
    as_float: bool = False

    def count(self, op: Op) -> tuple[float, float]:
        """(multiplications, additions) of the operation."""
        multiplications: float = 0
        additions: float = 0
        prices = (self.elements, self.taken, self.rows)
        counts = (op.elements, op.taken, op.rows)
        for each, count in zip(prices, counts, strict=True):
            multiplications_each, additions_each = each
            multiplications += multiplications_each * count
            additions += additions_each * count
        has_weight = len(op.parameters) > 0
        has_bias = len(op.parameters) > 1
        if self.affine and has_weight:
            multiplications += op.elements
        if self.affine and has_bias:
            additions += op.elements
        return multiplications, additions


def _each(part: str, multiplications: float, additions: float, source: str) -> Price:
    """So many for each output element."""
    return Price(part, source, elements=(multiplications, additions))


def _activation(multiplications: float, additions: float, source: str) -> Price:
    """An activation function in floats: so many for each element."""
    elements = (multiplications, additions)
    return Price(NON_LINEARITY, source, elements, as_float=True)


def _mean(source: str) -> Price:
    """For each mean of n elements n - 1 additions and a multiplication."""
    return Price(
        POOLING,
        source,
        taken=(0, 1),
        rows=(1, -1),
        as_float=True,
    )


def _statistics(source: str, taken: tuple[float, float], rows: tuple[float, float]) -> Price:
    """A norm or a variance in floats: so many for each element taken and for each row."""
    return Price(
        NORM,
        source,
        taken=taken,
        rows=rows,
        as_float=True,
    )


_ONE_MULTIPLY = _each(ELEMENTWISE, 1, 0, "[C] element-wise: one for each output element")
_ONE_ADD = _each(ELEMENTWISE, 0, 1, "[C] element-wise: one for each output element")
_FUNCTION = _activation(1, 0, "[T] a transcendental function is one operation")
_COMPARISON = _each(ELEMENTWISE, 0, 1, "composition: a comparison is a subtraction")
_LOGIC = _each(ELEMENTWISE, 0, 1, "composition: one logical operation, counted as an addition")
_MOVED = Price(ELEMENTWISE, "[T] data movement is free; [C] max-pool, concat, dropout, reshape: 0")
_CHOSEN = Price(ELEMENTWISE, "[T] data movement is free")
_LARGEST = Price(POOLING, "[C] as max-pool: free")
_VARIANCE = "composition: mean, x - mean, squares, their mean"
_SOFTMAX = Price(
    NON_LINEARITY,
    "composition: x - max, exp, sum, divide",
    elements=(2, 2),
    rows=(0, -1),
    as_float=True,
)
_NORM = Price(
    NORM,
    "composition: mean (n - 1 adds, 1 multiply), x - mean, squares and their mean (the same), + eps, rsqrt, x s",
    taken=(2, 3),
    rows=(3, -1),
    affine=True,
    as_float=True,
)

PRICES: dict[str, Price] = {
    # Activation functions.
    "relu": _each(NON_LINEARITY, 1, 0, "[C] 1 multiply; [R] keeps its input's bits"),
    "hardtanh": _each(NON_LINEARITY, 2, 0, "[R] relu6: 2 multiplies (two clamps)"),
    "clamp": _each(NON_LINEARITY, 2, 0, "[R] as relu6: 1 multiply a bound, both counted"),
    "clamp_min": _each(NON_LINEARITY, 1, 0, "[C] as relu"),
    "clamp_max": _each(NON_LINEARITY, 1, 0, "[C] as relu"),
    "leaky_relu": _activation(2, 0, "composition: relu and the slope's multiply"),
    "_prelu_kernel": _activation(2, 0, "composition: relu and the slope's multiply"),
    "silu": _activation(3, 1, "[C] swish: 3 multiplies, 1 addition"),
    "sigmoid": _activation(2, 1, "[C] sigmoid: 2 multiplies, 1 addition"),
    "hardswish": _activation(4, 1, "[R] hard-swish: 4 multiplies, 1 addition"),
    "hardsigmoid": _activation(3, 1, "composition of [R]: hard-swish without its last multiply"),
    "gelu": _activation(4, 1, "composition: 0.5 x (1 + erf(x / sqrt 2))"),
    "gelu_tanh": _activation(7, 2, "composition: 0.5 x (1 + tanh(c (x + 0.044715 x^3)))"),
    "elu": _activation(3, 1, "composition: comparison, exp, - 1, alpha"),
    "celu": _activation(4, 1, "composition: elu with the division by alpha"),
    "softplus": _activation(2, 1, "composition: log(1 + exp x)"),
    "mish": _activation(4, 1, "composition: x tanh(log(1 + exp x))"),
    "log_sigmoid_forward": _activation(2, 1, "composition: -log(1 + exp(-x))"),
    "tanh": _FUNCTION,
    "exp": _FUNCTION,
    "log": _FUNCTION,
    "sin": _FUNCTION,
    "cos": _FUNCTION,
    "erf": _FUNCTION,
    "sqrt": _FUNCTION,
    "rsqrt": _FUNCTION,
    "reciprocal": _FUNCTION,
    "pow": _FUNCTION,
    "abs": _each(ELEMENTWISE, 1, 0, "[C] as relu"),
    "sign": _each(ELEMENTWISE, 1, 0, "[C] as relu"),
    "neg": _each(ELEMENTWISE, 1, 0, "composition: a product with -1"),
    # Element-wise arithmetic.
    "add": _ONE_ADD,
    "sub": _ONE_ADD,
    "rsub": _ONE_ADD,
    "maximum": _COMPARISON,
    "minimum": _COMPARISON,
    "mul": _ONE_MULTIPLY,
    "div": _ONE_MULTIPLY,
    "square": _ONE_MULTIPLY,
    "addcmul": _each(ELEMENTWISE, 1, 1, "composition: a product and a sum"),
    "lerp": _each(ELEMENTWISE, 1, 2, "composition: a + w (b - a)"),
    "batch_norm": _each(NORM, 1, 1, "[C] a BatchNorm that does not fold: a multiply and an add an element"),
    "permute_channels": _each(ELEMENTWISE, 1, 0, "[T] a permutation is a sparse product: one multiply an element"),
    "eq": _COMPARISON,
    "ne": _COMPARISON,
    "lt": _COMPARISON,
    "le": _COMPARISON,
    "gt": _COMPARISON,
    "ge": _COMPARISON,
    "logical_not": _LOGIC,
    "logical_and": _LOGIC,
    "logical_or": _LOGIC,
    "bitwise_not": _LOGIC,
    "bitwise_and": _LOGIC,
    "bitwise_or": _LOGIC,
    "where": _CHOSEN,
    "masked_fill": _CHOSEN,
    # Reductions.
    "mean": _mean("[C] mean of n: n - 1 additions, 1 multiply"),
    "_adaptive_avg_pool2d": _mean("[C] as mean"),
    "avg_pool2d": _mean("[C] as mean, over windows"),
    "sum": Price(
        POOLING,
        "composition: n - 1 additions",
        taken=(0, 1),
        rows=(0, -1),
    ),
    "col2im": Price(
        ELEMENTWISE,
        "composition: what overlaps is added",
        elements=(0, -1),
        taken=(0, 1),
    ),
    "linalg_vector_norm": _statistics("composition: squares, sum, root", taken=(1, 1), rows=(1, -1)),
    "var": _statistics(_VARIANCE, taken=(1, 3), rows=(2, -2)),
    "std": _statistics("composition: var and a root", taken=(1, 3), rows=(3, -2)),
    "var_mean": _statistics(_VARIANCE, taken=(1, 3), rows=(2, -2)),
    "argmax": _LARGEST,
    "topk": _LARGEST,
    # Softmax and norms.
    "_softmax": _SOFTMAX,
    "_safe_softmax": _SOFTMAX,
    "_log_softmax": Price(
        NON_LINEARITY,
        "composition: x - max - log sum exp",
        elements=(1, 3),
        rows=(1, -1),
        as_float=True,
    ),
    "native_layer_norm": _NORM,
    "native_group_norm": _NORM,
    "instance_norm": _NORM,
    "_fused_rms_norm": Price(
        NORM,
        "composition: squares and their mean, + eps, rsqrt, scale",
        taken=(2, 1),
        rows=(2, 0),
        affine=True,
        as_float=True,
    ),
    # Interpolation with fixed weights.
    "upsample_bilinear2d": _each(POOLING, 4, 3, "composition: 4 neighbours"),
    "upsample_bicubic2d": _each(POOLING, 16, 15, "composition: 16 neighbours"),
    "_upsample_bicubic2d_aa": _each(POOLING, 16, 15, "composition: 16 neighbours"),
    "grid_sampler_2d": _each(POOLING, 8, 7, "composition: 4 neighbours and their weights"),
    # Free.
    "quantize": Price(ELEMENTWISE, "[T] conversions to formats that float32 holds exactly are free"),
}
for _move in MOVES:
    PRICES[_move] = _MOVED

# Operations without a price -> what would make the network readable.
REMEDIES = {
    "round": "it is read as a quantiser where a clamp between two numbers goes with it and one scale, if any",
    "aminmax": "torch.ao's observers stop with model.apply(torch.ao.quantization.disable_observer)",
}
for _fake_quantizer in FAKE_QUANTIZERS:
    REMEDIES[_fake_quantizer] = "an activation is read as quantised with one scale, not with one a channel"
