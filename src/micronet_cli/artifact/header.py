"""What a file's header says of model, input and data: checked before anything is built from it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from micronet_cli.artifact.entries import check, is_count, is_names
from micronet_cli.artifact.format import Damaged
from micronet_cli.config import build
from micronet_cli.dotted_path import OWN, is_within, refusal
from micronet_cli.errors import UserError
from micronet_cli.models.model import InputSpec, Model
from micronet_cli.models.own import OwnModel

MODEL = "micronet_cli.models.model.Model"
MODEL_KEYS = {"_target_", "name", "args", "num_classes", "weights", "pretrained"}
DATA = "micronet_cli.data."
NOT_DATA = f"only what is in {DATA} is allowed in a file"
MAX_NUMBER = 1 << 16
MAX_PLAIN_LENGTH = 64  # of strings and lists
MAX_SIDE = 1 << 14
MAX_DEPTH = 16
# Arguments of timm.create_model that read files or the network.
FORBIDDEN = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")


def check_header(header: Mapping[str, Any], trust: Sequence[str] = ()) -> None:
    """Check that model, input and data are what later code may rely on.

    Raises:
        Damaged: what is wrong with them.
    """
    described(header, trust)
    _check_input(header)
    data = header.get("data")
    check(isinstance(data, dict), "data: must be a config")
    for target in _targets(data):
        named = isinstance(target, str)
        ours = named and target.startswith(DATA)
        check(ours or is_within(str(target), trust), f"data: {refusal(target, trust) or NOT_DATA}")


def described(header: Mapping[str, Any], trust: Sequence[str] | None = ()) -> Model | OwnModel:
    """The header's model, checked; nothing is built. ``trust``: as for ``bare_network``.

    Raises:
        Damaged: what is wrong with it.
    """
    config: Any = header.get("model")
    check(isinstance(config, dict), "model: must be a config")
    target = config.get("_target_")
    if isinstance(target, str) and not is_within(target, [OWN]):
        return _described_own(config, header, trust)
    is_a_model = target == MODEL
    only_a_model = is_a_model and set(config) <= MODEL_KEYS
    check(only_a_model, f"model: only {MODEL} and its own keys are allowed")
    name = config.get("name")
    is_plain_name = isinstance(name, str) and ":" not in name
    check(is_plain_name, "model.name: must be a name that timm itself knows")
    has_weights = config.get("weights") or config.get("pretrained")
    check(not has_weights, "model: weights are in the file itself")
    args = config.get("args")
    _check_args(args)

    classes = header.get("classes")
    check(is_names(classes), "classes: must be a list of names")
    count = config.get("num_classes")
    has_count = count is None or is_count(count)
    check(has_count, "model.num_classes: must be a count or null")
    if classes and count is not None:
        check(count == len(classes), "model.num_classes: another number than there are classes")
    try:
        return Model(name, num_classes=count, args=args)
    except (UserError, ValueError) as error:
        reason = str(error)[:200]
        raise Damaged(f"header: {reason}") from None


def _described_own(config: Mapping[str, Any], header: Mapping[str, Any], trust: Sequence[str] | None) -> OwnModel:
    """A network of one's own, of a trusted package.

    Raises:
        Damaged: it is not trusted, or is not described as a network is.
    """
    check(not (config.get("weights") or config.get("pretrained")), "model: weights are in the file itself")
    check(is_names(header.get("classes")), "classes: must be a list of names")
    for key, value in config.items():
        check(_is_harmless(value, nested=True), f"model.{key:.80}: not allowed in a file")
    try:
        return build(dict(config), "model", Model, trust)
    except UserError as error:
        raise Damaged(f"header: {error}") from None


def _check_args(args: Any) -> None:
    """Check that a constructor's arguments do nothing but size the network."""
    if args is None:
        return
    check(isinstance(args, dict), "model.args: must be keys and values")
    for key, value in args.items():
        allowed = key not in FORBIDDEN and _is_harmless(value)
        check(allowed, f"model.args.{key:.80}: not allowed in a file")


def _is_harmless(value: Any, nested: bool = False) -> bool:
    """Whether a constructor's argument is a small plain value, or where ``nested`` a config of such."""
    if value is None:
        return True
    if nested and isinstance(value, dict):
        return all(_is_harmless(item, nested) for item in value.values())
    if isinstance(value, list | str) and len(value) > MAX_PLAIN_LENGTH:
        return False
    if isinstance(value, list):
        return all(_is_harmless(item, nested) for item in value)
    if isinstance(value, str):
        of_a_path = set(value) & set("/\\:")
        return not of_a_path
    return _is_number(value)


def _is_number(value: Any) -> bool:
    if not isinstance(value, bool | int | float):
        return False
    return abs(value) <= MAX_NUMBER


def _check_input(header: Mapping[str, Any]) -> None:
    try:
        spec = InputSpec.from_dict(header["input"])
    except (TypeError, KeyError, AttributeError):
        raise Damaged("header: input: not an input") from None
    is_size = isinstance(spec.size, tuple) and len(spec.size) == 3
    sides = f"input.size: must be channels, height and width, each in 1 to {MAX_SIDE}"
    check(is_size, sides)
    for length in spec.size:
        check(is_count(length, 1, MAX_SIDE), sides)
    channels = spec.size[0]
    are_numbers = _are_numbers(spec.mean, channels) and _are_numbers(spec.std, channels)
    check(
        are_numbers and min(spec.std) > 0,
        "input.mean, input.std: must be a number a channel each, the deviations above 0",
    )
    check(isinstance(spec.interpolation, str), "input.interpolation: must be a name")
    check(isinstance(spec.crop_mode, str), "input.crop_mode: must be a name")
    is_number = isinstance(spec.crop_pct, int | float)
    check(is_number and 0 < spec.crop_pct <= 16, "input.crop_pct: must be in (0, 16]")


def _are_numbers(values: Any, count: int) -> bool:
    if not isinstance(values, tuple) or len(values) != count:
        return False
    return all(_is_number(value) for value in values)


def _targets(node: Any, depth: int = 0) -> Iterator[Any]:
    """Every ``_target_`` in a config."""
    check(depth < MAX_DEPTH, "data: nested too deeply")
    if isinstance(node, list):
        for item in node:
            yield from _targets(item, depth + 1)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "_target_":
                yield value
            else:
                yield from _targets(value, depth + 1)
