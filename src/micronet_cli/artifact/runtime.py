"""A ``.mnet`` file to a network that runs on its integers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from micronet_cli.artifact.build import bare_network, built, most_elements
from micronet_cli.artifact.entries import Activation, Layer, Parameter, check, is_names, parse
from micronet_cli.artifact.filling import attach_range, fill_batch_norms, fill_layer, fill_parameters
from micronet_cli.artifact.format import Damaged, read
from micronet_cli.artifact.header import check_header, described
from micronet_cli.artifact.streams import Streams
from micronet_cli.errors import UserError
from micronet_cli.layers.batch_norm import remove_batch_norm
from micronet_cli.layers.effective_weight import original_weight
from micronet_cli.layers.integer import IntegerActivation, exact_dtype
from micronet_cli.layers.plain_weights import give_plain_weights
from micronet_cli.layers.rules import compressible_layers
from micronet_cli.layers.standardized import make_plain
from micronet_cli.torch_internals import BatchNorm

SUFFIX = ".mnet"
Config = Mapping[str, Any]  # of a model, or of all that a header holds
Loaded = tuple[nn.Module, dict[str, Any]]  # a network and its header


def load(path: Path, where: str, config: Config | None = None, trust: Sequence[str] = ()) -> Loaded:
    """The integer network of a packed file, in evaluation mode, and its header; ``config`` replaces its model config.

    ``trust``: packages that the file may name beside micronet.

    Raises:
        UserError: the file is missing or damaged; ``where`` is its place in the config.
    """
    try:
        return load_bytes(path.read_bytes(), config, trust)
    except (ValueError, OSError) as error:
        raise UserError(f"{where}={str(path)!r}: {error}") from None


def load_bytes(content: bytes, config: Config | None = None, trust: Sequence[str] = ()) -> Loaded:
    """As ``load``, of a file's content.

    Raises:
        ValueError: it is damaged.
    """
    header, streams = read(content)
    check_header(header, trust)
    used = dict(header)
    if config:
        used["model"] = dict(config)
    return unpack(used, streams, len(content), trust), header


def read_header(path: Path, where: str, trust: Sequence[str] = ()) -> dict[str, Any]:
    """What a packed file says of itself.

    Raises:
        UserError: as ``load``.
    """
    try:
        header, _ = read(path.read_bytes())
        check_header(header, trust)
    except (ValueError, OSError) as error:
        raise UserError(f"{where}={str(path)!r}: {error}") from None
    return header


def unpack(header: Config, raw: Mapping[str, bytes], file_bytes: int, trust: Sequence[str] = ()) -> nn.Module:
    """The network.

    Args:
        header: of a file, its model and input checked.
        raw: stream -> its bytes, not entropy-coded any more.
        file_bytes: size of the file, which bounds the network's.
        trust: packages that the header may name beside micronet.

    Raises:
        Damaged: header and streams do not fit each other, or a network that the header names.
    """
    tables = Tables.of(header)
    # A bounded trial, before any memory is taken: no network has many more tensors than its file speaks of.
    bare_network(header, tables.most_tensors(), most_elements(file_bytes), trust)
    description = described(header, trust)
    model = built(description, header).eval()
    _remove_batch_norms(model, tables.removed)
    _make_plain(model, tables.standardized)

    streams = Streams.of(raw, header["coded"])
    _fill(model, tables, streams)
    streams.close()
    layers = compressible_layers(model)
    for entry in tables.layers:
        if entry.integer:
            _hand_over_integers(entry.name, layers[entry.name])
    return model


@dataclass(frozen=True)
class Tables:
    """The lists of a header, checked: which tensors there are, and how they are stored.

    Attributes:
        layers: weights.
        activations: quantisers.
        parameters: tensors that are stored as they are.
        removed: BatchNorms that the network does without.
        batch_norms: those that stay.
        standardized: layers of an architecture that standardises or norms weights which are stored as they are then.
    """

    layers: list[Layer]
    activations: list[Activation]
    parameters: list[Parameter]
    removed: list[str]
    batch_norms: list[str]
    standardized: list[str]

    @classmethod
    def of(cls, header: Config) -> "Tables":
        """As a file has them.

        Raises:
            Damaged: one is not such a list.
        """
        layers = parse(Layer, header.get("layers"), "layers")
        activations = parse(Activation, header.get("activations"), "activations")
        parameters = parse(Parameter, header.get("parameters"), "parameters")
        removed: Any = header.get("removed")
        check(is_names(removed), "removed: must be a list of names")
        batch_norms: Any = header.get("batch_norms")
        check(is_names(batch_norms), "batch_norms: must be a list of names")
        standardized: Any = header.get("standardized", [])
        check(is_names(standardized), "standardized: must be a list of names")
        return cls(layers, activations, parameters, removed, batch_norms, standardized)

    def most_tensors(self) -> int:
        """More parameters and buffers than a network with these entries has."""
        most = 64
        most += 6 * len(self.layers)
        most += 10 * len(self.removed)
        most += 6 * len(self.parameters)
        most += 5 * len(self.batch_norms)
        return most


def _fill(model: nn.Module, tables: Tables, streams: Streams) -> None:
    """Give every tensor its values.

    Raises:
        Damaged: an entry does not fit the network.
    """
    layers = compressible_layers(model)
    modules = dict(model.named_modules())
    filled: set[str] = set()
    for entry in tables.layers:
        check(entry.name in layers, f"layer {entry.name!r:.80}: the network has none of this name")
        layer = layers[entry.name]
        filled |= fill_layer(layer, entry, streams)
    filled |= fill_batch_norms(modules, tables.batch_norms, streams)
    fill_parameters(model, modules, tables.parameters, filled, streams)
    for activation in tables.activations:
        attach_range(modules, activation, streams)


def _make_plain(model: nn.Module, names: list[str]) -> None:
    """Let layers compute with their weights as they are.

    Raises:
        Damaged: one is not there.
    """
    layers = compressible_layers(model)
    for name in names:
        check(name in layers, f"standardized: {name!r:.80} is no layer of the network")
        make_plain(layers[name])
    give_plain_weights(model, {layers[name] for name in names})


def _remove_batch_norms(model: nn.Module, names: list[str]) -> None:
    """Take away BatchNorms, as the packer did.

    Raises:
        Damaged: one is not there.
    """
    modules = dict(model.named_modules())
    different = set(names)
    check(len(different) == len(names), "removed: a name comes twice")
    for name in names:
        is_batch_norm = isinstance(modules.get(name), BatchNorm)
        check(is_batch_norm, f"removed: {name!r:.80} is no BatchNorm of the network")
        remove_batch_norm(model, name)


def _hand_over_integers(name: str, layer: nn.Module) -> None:
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
    if dtype == torch.float64:
        # The weight is float32 of itself; only the wider type has to be asked for.
        chain = layer.parametrizations["weight"]
        chain[0].fake_quantize.dtype = dtype
    layer.rescale.factor.unit /= quantizer.scale
