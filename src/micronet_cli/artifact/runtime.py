"""A ``.mnet`` file to a network that runs on its integers."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from micronet_cli.artifact.build import bare_network, built, check_header, described, most_elements
from micronet_cli.artifact.entries import Activation, Layer, Parameter, check, parse
from micronet_cli.artifact.format import Cursor, Damaged, read
from micronet_cli.artifact.stored_weights import integers_of, unpack_positions
from micronet_cli.errors import UserError
from micronet_cli.functional.packing import packed_bytes, unpack_digits, unpack_range
from micronet_cli.layers.batch_norm import remove_batch_norm
from micronet_cli.layers.effective_weight import attach_mask, original_weight
from micronet_cli.layers.fake_quantize import attach_input_fake_quantize, attach_output_fake_quantize
from micronet_cli.layers.integer import (
    IntegerActivation,
    IntegerWeight,
    Numbers,
    attach_integers,
    attach_rescale,
    exact_dtype,
)
from micronet_cli.layers.plain_product import runs_linear
from micronet_cli.layers.rules import compressible_layers
from micronet_cli.torch_internals import BatchNorm

SUFFIX = ".mnet"


def load(path: Path, where: str, config: Mapping[str, Any] | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """The integer network of a packed file, in evaluation mode, and its header; ``config`` replaces its model config.

    Raises:
        UserError: the file is missing or damaged; ``where`` is its place in the config.
    """
    try:
        content = path.read_bytes()
        header, streams = read(content)
        check_header(header)
        model = unpack(header | ({"model": dict(config)} if config else {}), streams, len(content))
    except (ValueError, OSError) as error:
        raise UserError(f"{where}={str(path)!r}: {error}") from None
    return model, header


def read_header(path: Path, where: str) -> dict[str, Any]:
    """What a packed file says of itself.

    Raises:
        UserError: as ``load``.
    """
    try:
        header, _ = read(path.read_bytes())
        check_header(header)
    except (ValueError, OSError) as error:
        raise UserError(f"{where}={str(path)!r}: {error}") from None
    return header


@dataclass
class _Streams:
    """The streams' cursors, and how their digits are packed."""

    cursors: dict[str, Cursor]
    coded: Mapping[str, int]

    def __getitem__(self, name: str) -> Cursor:
        return self.cursors[name]

    def digits(self, name: str, count: int, base: int) -> np.ndarray:
        """The next digits of a stream."""
        whole = name in self.coded
        return unpack_digits(self[name].take(packed_bytes(count, base, whole)), count, base, whole)

    def array(self, name: str, count: int, dtype: str) -> np.ndarray:
        """The next numbers of a stream."""
        return np.frombuffer(self[name].take(count * np.dtype(dtype).itemsize), dtype).copy()


def unpack(header: Mapping[str, Any], raw: Mapping[str, bytes], file_bytes: int) -> nn.Module:
    """The network.

    Raises:
        Damaged: header and streams do not fit each other, or a network that the header names.
    """
    layers = parse(Layer, header.get("layers"), "layers")
    activations = parse(Activation, header.get("activations"), "activations")
    parameters = parse(Parameter, header.get("parameters"), "parameters")
    removed: Any = header.get("removed")
    check(isinstance(removed, list) and all(isinstance(n, str) for n in removed), "removed: names are wanted")
    check(isinstance(header.get("batch_norms"), list), "batch_norms: names are wanted")
    tensors = 5 * len(header["batch_norms"]) + 2 * (3 * len(layers) + 5 * len(removed) + 3 * len(parameters)) + 64
    bare_network(header, tensors, most_elements(file_bytes))  # a bounded trial, before any memory is taken
    model = built(described(header), header).eval()
    streams = _Streams({name: Cursor(name, content) for name, content in raw.items()}, header["coded"])
    _fold(model, removed)
    known, modules = compressible_layers(model), dict(model.named_modules())
    filled: set[str] = set()
    for entry in layers:
        check(entry.name in known, f"layer {entry.name!r:.80}: the network has none of this name")
        filled |= _fill_layer(known[entry.name], entry, streams)
    filled |= _fill_batch_norms(modules, header.get("batch_norms"), streams)
    _fill_parameters(model, modules, parameters, filled, streams)
    for activation in activations:
        _attach_range(modules, activation, streams)
    for cursor in streams.cursors.values():
        cursor.close()
    for name in {entry.name for entry in layers if entry.integer}:
        _settle(name, known[name])
    return model


def _fold(model: nn.Module, names: list[str]) -> None:
    """Take away BatchNorms, as the packer did.

    Raises:
        Damaged: one is not there.
    """
    modules = dict(model.named_modules())
    check(len(set(names)) == len(names), "removed: a name comes twice")
    for name in names:
        check(isinstance(modules.get(name), BatchNorm), f"removed: {name!r:.80} is no BatchNorm of the network")
        remove_batch_norm(model, name)


def _fill_layer(layer: nn.Module, entry: Layer, streams: _Streams) -> set[str]:
    """Read a layer's weight and rescale; the state's names that this fills."""
    shape = tuple(layer.weight.shape)
    check(not entry.rescaled or runs_linear(layer), f"layer {entry.name!r:.80} cannot be rescaled")
    check(entry.scales in (0, 1, shape[0]), f"layer {entry.name!r:.80}: scales do not fit its channels")
    check(entry.bits is None or entry.scales > 0, f"layer {entry.name!r:.80}: codes without scale")
    cover = unpack_positions(entry.positions, shape, streams["masks"], "masks" in streams.coded)
    count = int(cover.sum())
    if entry.bits is None:
        values = torch.zeros(shape)
        values[torch.from_numpy(cover)] = torch.from_numpy(streams.array("parameters", count, "<f4"))
        check(bool(torch.isfinite(values).all()), f"layer {entry.name!r:.80}: not finite")
        scale, bias = _numbers(entry, shape[0], streams)
        layer.weight.data.copy_(values)
        if entry.masked:
            attach_mask(layer).mask = values != 0
    else:
        digits = streams.digits("codes", count, entry.base)
        ranges = 1 if entry.per_tensor else shape[0]
        zero_codes = (
            streams.digits("offsets", ranges, entry.levels) if entry.zero_code is None else np.array([entry.zero_code])
        )
        integers = torch.from_numpy(integers_of(digits, entry, cover, zero_codes)).float()
        scale, bias = _numbers(entry, shape[0], streams)
        granularity: Any = "per_tensor" if entry.per_tensor else "per_channel"
        step = None if entry.integer else scale
        quantizer = IntegerWeight(entry.bits, granularity, entry.zero_code is not None, step)
        attach_integers(layer, integers, quantizer, entry.masked)
    names = {f"{entry.name}.weight"}
    if entry.rescaled:
        assert scale is not None
        attach_rescale(layer, scale, bias)
        names.add(f"{entry.name}.bias")
    return names


def _numbers(entry: Layer, channels: int, streams: _Streams) -> tuple[Numbers | None, Numbers | None]:
    """The layer's scales and bias."""

    def read(count: int, exponent: int | None) -> Numbers:
        if exponent is None:
            values = torch.from_numpy(streams.array("scales", count, "<f4"))
            check(bool(torch.isfinite(values).all()), f"layer {entry.name!r:.80}: not finite")
            return Numbers(values)
        return Numbers(torch.from_numpy(streams.array("scales", count, "<i4")), float(np.ldexp(1.0, exponent)))

    scale = read(entry.scales, entry.scale_exponent) if entry.scales else None
    return scale, None if entry.bias_exponent is None else read(channels, entry.bias_exponent)


def _fill_batch_norms(modules: Mapping[str, nn.Module], names: Any, streams: _Streams) -> set[str]:
    """Read the gain and shift of BatchNorms that stay; the state's names that this fills."""
    check(isinstance(names, list) and all(isinstance(n, str) for n in names), "batch_norms: names are wanted")
    for name in names:
        norm = modules.get(name)
        check(isinstance(norm, BatchNorm) and norm.running_mean is not None, f"batch_norms: {name!r:.80} is none")
        assert isinstance(norm, BatchNorm)
        gain, shift = torch.from_numpy(streams.array("scales", 2 * norm.num_features, "<f4")).chunk(2)
        check(bool(torch.isfinite(torch.cat([gain, shift])).all()), f"batch_norms: {name!r:.80} is not finite")
        norm.weight, norm.bias, norm.eps = nn.Parameter(gain), nn.Parameter(shift), 0.0
        norm.reset_running_stats()  # mean 0 and variance 1
    return {f"{name}.{key}" for name in names for key in ("weight", "bias", "running_mean", "running_var")}


def _fill_parameters(
    model: nn.Module,
    modules: Mapping[str, nn.Module],
    entries: list[Parameter],
    filled: set[str],
    streams: _Streams,
) -> None:
    """Read every other tensor; nothing of the network's state may be left out.

    Raises:
        Damaged: names, shapes or types do not fit the network.
    """
    state = dict(model.state_dict(keep_vars=True))
    for entry in entries:
        owner, _, last = entry.name.rpartition(".")
        where = f"parameter {entry.name!r:.80}"
        values = torch.from_numpy(streams.array("parameters", prod(entry.shape), f"{np.dtype(entry.dtype).str}"))
        values = values.reshape(tuple(entry.shape))
        check(not values.is_floating_point() or bool(torch.isfinite(values).all()), f"{where}: not finite")
        module = modules.get(owner)
        if entry.name not in state and last == "bias" and module is not None and _may_have_bias(module):
            check(tuple(entry.shape) == (module.weight.shape[0],), f"{where}: another shape than the network's")
            module.bias = nn.Parameter(values)  # of a BatchNorm that was folded before training
        else:
            own = state.get(entry.name)
            check(own is not None and entry.name not in filled, f"{where}: the network has none of this name")
            assert isinstance(own, Tensor)
            check(own.shape == values.shape and own.dtype == values.dtype, f"{where}: another shape or type")
            own.data.copy_(values)
        filled.add(entry.name)
    left = [n for n in state if n not in filled and not n.endswith("num_batches_tracked") and not _own(n)]
    check(not left, f"{len(left)} tensors of the network are missing, {', '.join(left[:3])} among them")


def _may_have_bias(module: nn.Module) -> bool:
    return runs_linear(module) and module.bias is None and not hasattr(module, "rescale")


def _own(name: str) -> bool:
    """Whether a state's name is one that reading a layer made."""
    return ".parametrizations.weight." in f".{name}" or ".rescale." in f".{name}"


def _attach_range(modules: Mapping[str, nn.Module], entry: Activation, streams: _Streams) -> None:
    """Read an activation quantiser and put it in its place."""
    where = f"activations: {entry.module!r:.80}"
    module = modules.get(entry.module)
    check(module is not None, f"{where}: the network has no such module")
    assert module is not None
    scale, zero_point = unpack_range(streams["activations"].take(8))
    quantizer = IntegerActivation(entry.bits, scale, zero_point)
    check(np.isfinite(scale) and scale > 0 and -quantizer.zero_point < quantizer.levels, f"{where}: a bad range")
    (attach_input_fake_quantize if entry.place == "input" else attach_output_fake_quantize)(module, quantizer)


def _settle(name: str, layer: nn.Module) -> None:
    """Let a layer's input hand over integers, and find the type in which its sums are exact.

    Raises:
        Damaged: there is none.
    """
    quantizer = getattr(layer, "input_fake_quantize", None)
    if not isinstance(quantizer, IntegerActivation):
        return
    try:
        dtype = exact_dtype(original_weight(layer), quantizer.codes)
    except ValueError as error:
        raise Damaged(f"layer {name!r:.80}: {error}") from None
    quantizer.dtype = dtype
    layer.parametrizations["weight"][0].fake_quantize.dtype = dtype if dtype == torch.float64 else None
    layer.rescale.factor.unit /= quantizer.scale
