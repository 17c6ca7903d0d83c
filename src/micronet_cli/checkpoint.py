"""Checkpoints that describe themselves.

Model config, compressor configs, input, classes and metrics are in the header of a safetensors file. Loading builds the
network, replays ``attach`` in order and loads strictly.
"""

import io
import json
import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import nn

from micronet_cli.artifact import runtime
from micronet_cli.artifact.bundle import bundled_checkpoint
from micronet_cli.config import build
from micronet_cli.errors import UserError
from micronet_cli.layers.standardized import as_written
from micronet_cli.models.fitting import load_strict
from micronet_cli.models.model import InputSpec, Model, is_hub, state_input, untrained
from micronet_cli.models.record import class_names, config_of
from micronet_cli.models.safe_pickle import is_pickle
from micronet_cli.models.weights_file import HEADER_KEY, read_tensors
from micronet_cli.network import Network, describe, model_name
from micronet_cli.renamed import with_new_names
from micronet_cli.runs.directory import Run, write_bytes
from micronet_cli.strict_json import json_text

FORMAT_VERSION = 1
# What takes plain weights where a network was expected.
WEIGHTS_KEYS = {
    "init_from": "give model.weights=<file>, and model=<name>",
    "distill.teacher.weights": "give distill.teacher.model=<name> too",
}


def save(path: Path, network: Network, metrics: dict[str, Any]) -> None:
    """Write a checkpoint atomically; a packed network is written as its packed file.

    Args:
        path: the file.
        network: with the configs of the compressors that are attached to it.
        metrics: plain values for the header.
    """
    if network.packed is not None:
        write_bytes(path, network.packed.read_bytes())
        return
    header = {"format_version": FORMAT_VERSION, "compressors": network.compressors} | describe(network, metrics)
    # Clones: safetensors refuses tensors that share memory or are not contiguous.
    tensors = {}
    for name, tensor in network.model.state_dict().items():
        tensors[name] = tensor.detach().cpu().contiguous().clone()
    write_bytes(path, serialize(tensors, metadata={HEADER_KEY: json_text(header)}))


def resolve(path: str, where: str = "init_from") -> Path:
    """The checkpoint file behind a run directory (its best, else its packed network) or a file.

    Raises:
        UserError: there is none.
    """
    given = Path(path).expanduser()
    file = given
    if given.is_dir():
        run = Run(given, resume=True, writes=False)
        only_packed = run.packed.is_file() and not run.best.is_file()
        file = run.packed if only_packed else run.best
    if not file.is_file():
        what = "no such file or directory"
        if given.is_dir():
            what = "no checkpoints/best.safetensors in it; finish the run with resume=true, or name one job's directory"
        raise UserError(f"{where}={path!r}: {what}")
    return file


def read_header(file: Path, where: str = "init_from", trust: Sequence[str] = ()) -> dict[str, Any]:
    """The header of a checkpoint or packed file, old dotted paths replaced by new ones.

    Raises:
        UserError: truncated, not one of ours, or of a newer format.
    """
    if file.suffix == runtime.SUFFIX:
        return runtime.read_header(file, where, trust)
    plain = f"{where}={str(file)!r}: plain weights, not a checkpoint; {WEIGHTS_KEYS.get(where, 'give a run')}"
    if file.suffix == ".onnx":
        raise UserError(f"{where}={str(file)!r}: an ONNX file, which stage=latency alone takes; give a run")
    if is_pickle(file):
        raise UserError(plain)
    try:
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata() or {}
        header = json.loads(metadata[HEADER_KEY])
    except KeyError:
        raise UserError(plain) from None
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{where}={str(file)!r}: truncated, or not a micronet checkpoint ({reason})") from None
    version = header["format_version"]
    if version > FORMAT_VERSION:
        raise UserError(f"{where}={str(file)!r}: format {version} is newer than this program's {FORMAT_VERSION}")
    return with_new_names(header)


def load(
    path: str, where: str = "init_from", config: dict[str, Any] | None = None, trust: Sequence[str] = ()
) -> Network:
    """The network of a run directory, checkpoint or packed file, in evaluation mode.

    ``config`` takes the place of its model config, and is the user's own; what the file itself names must be micronet's
    or of a package in ``trust``.

    Raises:
        UserError: no such file, a damaged or newer one, compressors that do not fit the model, or tensors that do not.
    """
    bundled = bundled_checkpoint(path) if is_hub(path) else None
    if is_hub(path) and bundled is None:
        return _load_hub(path, where, config)
    file = bundled or resolve(path, where)
    if file.suffix == runtime.SUFFIX:
        return _load_packed(file, where, config, trust)
    header = read_header(file, where)
    place = f"{where}={str(file)!r}"
    # The weights are in the checkpoint: none are read when its model is built.
    if config is None:
        config = untrained(header["model"])
        architecture = build(config, f"{place}: model", Model, trust)
    else:
        config = untrained(config)
        architecture = build(config, "model", Model)
    model = replace(architecture, num_classes=len(header["classes"])).build()
    spec = InputSpec.from_dict(header["input"])
    # Compressors run the network on an example.
    state_input(model, spec.size)
    weights = read_tensors(file, where)
    for number, compressor_config in enumerate(header["compressors"]):
        try:
            compressor = build(compressor_config, f"{place}: compressor {number}", trust=trust)
            with as_written(weights):
                compressor.attach(model)
        except ValueError as error:
            first = str(error).splitlines()[0]
            raise UserError(
                f"{where}={path!r}: its compressors do not fit model={model_name(config)} ({first})"
            ) from None
    load_strict(model, weights, place)
    return Network(
        model=model.eval(),
        config=config,
        classes=header["classes"],
        spec=spec,
        compressors=header["compressors"],
        data=header["data"],
        metrics=header["metrics"],
    )


def beginning(path: str, trust: Sequence[str] = ()) -> dict[str, Any]:
    """What ``init_from=path`` brings of the config: the groups ``model`` and, where the network has one, ``data``.

    Raises:
        UserError: there is none, or a damaged one.
    """
    if is_hub(path):
        bundled = bundled_checkpoint(path)
        if bundled is not None:
            return {"model": read_header(bundled, trust=trust)["model"]}  # whose data lie with whoever published it
        with torch.device("meta"):
            model = _from_hub(path, "init_from", weights=False)
        return {"model": config_of(model)}
    header = read_header(resolve(path), trust=trust)
    return {"model": header["model"], "data": header["data"]}


def _load_hub(path: str, where: str, config: dict[str, Any] | None) -> Network:
    """What timm makes of it, with the arguments of ``config``."""
    arguments = (config or {}).get("args")
    model = _from_hub(path, where, weights=True, args=arguments)
    return Network(model, config_of(model), class_names(model), InputSpec.of(model))


def _from_hub(path: str, where: str, weights: bool, args: dict[str, Any] | None = None) -> nn.Module:
    """The network of ``hf-hub:ORG/NAME`` or ``local-dir:PATH``.

    Raises:
        UserError: there is none, or it is damaged.
    """
    try:
        return Model(path, pretrained=weights, args=args).build(where=where)
    except (OSError, ValueError, RuntimeError, LookupError, SafetensorError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{where}={path!r}: must hold config.json and model.safetensors, as timm.models.save_for_hf writes them "
            f"({reason})"
        ) from None


def _load_packed(file: Path, where: str, config: dict[str, Any] | None, trust: Sequence[str]) -> Network:
    own_config = None if config is None else untrained(config)
    model, header = runtime.load(file, where, own_config, trust)
    metrics = header.get("metrics")  # whoever packed it need not have measured anything
    return Network(
        model=model,
        config=own_config or untrained(header["model"]),
        classes=header["classes"],
        spec=InputSpec.from_dict(header["input"]),
        data=header["data"],
        metrics=metrics if isinstance(metrics, dict) else {},
        packed=file,
    )


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write what a resumed run needs, atomically: tensors and plain values only."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(path, buffer.getvalue())


def load_state(path: Path) -> dict[str, Any]:
    """Read what ``save_state`` wrote.

    Raises:
        UserError: the file is damaged, or holds code.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        # torch's own message advises to trust the file.
        reason = "it holds more than tensors and plain values, or is cut off"
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        reason = (str(error) or "it is empty").splitlines()[0]
    raise UserError(f"resume=true: {str(path)!r} is damaged ({reason}); move it away")
