"""The library beside the command line: what a training loop of one's own needs, as plain functions."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from micronet_cli import checkpoint
from micronet_cli.artifact import pack as packing
from micronet_cli.artifact import runtime
from micronet_cli.artifact.compare import compare_all
from micronet_cli.as_config import as_config
from micronet_cli.compression.compressor import Compressor
from micronet_cli.compression.pruning.removal import removed_channels
from micronet_cli.compression.quantization.fixed_grid import FixedGrids
from micronet_cli.compression.quantization.post_training import PostTraining
from micronet_cli.config import packages_named
from micronet_cli.dotted_path import checked_trust
from micronet_cli.errors import UserError
from micronet_cli.layers.copies import copied
from micronet_cli.library.description import WAY_OUT, check_equal, described, example, known_shape, unwrapped
from micronet_cli.models.model import InputSpec, state_input
from micronet_cli.network import Network, describe
from micronet_cli.runs.directory import write_bytes

if TYPE_CHECKING:
    from micronet_cli.compression.quantization.quantizer import Quantizer


def load(path: str | Path, trust: Sequence[str] = ()) -> nn.Module:
    """The network of a run directory, checkpoint or packed file, in evaluation mode.

    Args:
        path: the file or directory.
        trust: packages beside micronet's that the file may name, as ``("mypkg",)``; naming one runs its code.

    Raises:
        UserError: the path holds none, or a damaged one.
    """
    return checkpoint.load(str(path), where="path", trust=checked_trust(trust)).model


def save(
    path: str | Path,
    model: nn.Module,
    compressors: Sequence[Compressor] = (),
    *,
    init_from: str | None = None,
    trust: Sequence[str] = (),
    name: str | None = None,
    args: Mapping[str, Any] | None = None,
    input_shape: Sequence[int] | None = None,
    classes: Sequence[str] | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint that describes itself: ``load(path)`` gives the network with equal logits.

    ``init_from=path`` continues with it on the command line. It is loaded and compared before ``path`` is written.

    Args:
        path: the file, as ``network.safetensors``.
        model: of timm, or of a class or function of your own that can be imported.
        compressors: attached to it, in that order.
        init_from: the run, checkpoint or packed file that ``model`` was loaded from, if it was; brings the
            description, and its own compressors come first.
        trust: packages beside micronet's that ``init_from`` may name, as for ``load``.
        name: timm's name of the architecture, or the dotted path of what made the network; None: timm's own record of
            it, else its class.
        args: arguments of its constructor, beside those in timm's record; the number of classes is known.
        input_shape: (channels, height, width); None: the model's own, which one of timm states.
        classes: names in the order of the logits; None: timm's, or their numbers.
        metrics: plain values for the file's header.

    Raises:
        ValueError: the description or the compressors are not those of ``model``.
        UserError: ``init_from`` is no network, or names what is not trusted.
    """
    network = described(
        model, init_from=init_from, trust=trust, name=name, args=args, input_shape=input_shape, classes=classes
    )
    for number, compressor in enumerate(compressors):
        where = f"compressors[{number}]"
        config = as_config(compressor, where)
        network.compressors = [*network.compressors, config]
        network.trust = (*network.trust, *packages_named(config, where))
    file = Path(path)
    with tempfile.TemporaryDirectory() as directory:
        trial = Path(directory) / f"{file.stem}.safetensors"
        checkpoint.save(trial, network, dict(metrics or {}))
        try:
            loaded = checkpoint.load(str(trial), where="path", trust=network.trust)
        except UserError as error:
            raise ValueError(f"{_reason(error)}; {WAY_OUT}") from None
        check_equal(network, loaded.model)
        write_bytes(file, trial.read_bytes())


def pack(
    model: nn.Module,
    path: str | Path,
    *,
    init_from: str | None = None,
    trust: Sequence[str] = (),
    name: str | None = None,
    args: Mapping[str, Any] | None = None,
    input_shape: Sequence[int] | None = None,
    classes: Sequence[str] | None = None,
    licence: str | None = None,
) -> int:
    """Write one small file, ``.mnet``, that ``load`` runs on its integers; see docs/format.md. Its size in bytes.

    It is loaded and compared, as ``stage=export`` does on images of the data, on two random ones.

    Args:
        model: compressed; it is left as it was.
        path: the file, as ``model.mnet``.
        init_from: as for ``save``.
        trust: as for ``save``.
        name: as for ``save``.
        args: as for ``save``.
        input_shape: as for ``save``.
        classes: as for ``save``.
        licence: of the weights; goes into the file.

    Raises:
        ValueError: the network cannot be packed, or the description is not that of ``model``.
        UserError: as for ``save``.
    """
    network = described(
        model, init_from=init_from, trust=trust, name=name, args=args, input_shape=input_shape, classes=classes
    )
    channels = removed_channels(network.compressors)
    header = describe(network, network.metrics) | {"licence": licence, "channels": channels}
    content = packing.pack(network.model, header, entropy=True)
    loaded, _ = runtime.load_bytes(content, trust=network.trust)
    compare_all(network.model, loaded, example(network))
    write_bytes(Path(path), content)
    return len(content)


def export_onnx(model: nn.Module, path: str | Path, *, input_shape: Sequence[int] | None = None) -> dict[str, Any]:
    """Write an ONNX file with the trained codes: input ``images [N, C, H, W]``, output ``logits [N, classes]``.

    Args:
        model: any network, compressed or not; it is left as it was.
        path: the file.
        input_shape: (channels, height, width); None: the model's own.

    Returns:
        ``bytes`` written, ``opset``, number of ``quantized_weights`` and ``quantized_activations``.

    Raises:
        ImportError: the extra ``export`` is not installed.
        ValueError: the network states no input, and none is given.
        UserError: torch's exporter cannot follow the network.
    """
    from micronet_cli.artifact import onnx

    model = copied(unwrapped(model)).cpu().eval()
    state_input(model, known_shape(model, input_shape))
    network = Network(model, {}, [], InputSpec.of(model))
    return onnx.export_onnx(network, Path(path))


def post_training(
    model: nn.Module,
    batches: Sequence[Tensor],
    quantizer: Quantizer,
    settings: PostTraining | None = None,
    seed: int = 0,
) -> list[Compressor]:
    """Quantise a trained network in place, without training and without labels.

    Args:
        model: in float; pruned or not.
        batches: images ``[N, C, H, W]``, normalised for the network, on its device; 128 to 512 in all are enough.
        quantizer: not attached yet; range-linear weights.
        settings: what is done; None: the defaults of ``stage=ptq``.
        seed: draws the positions that layers are judged at.

    Returns:
        The compressors to hand to ``save``.

    Raises:
        ValueError: it is quantised already, the quantiser does not fit it, or a layer is to be rescued.
    """
    settings = settings or PostTraining()
    for name in ("rescue", "max_drop"):
        value = getattr(settings, name)
        if value is not None:
            raise ValueError(f"settings.{name}={value}: only stage=ptq has it; must be None")
    _, *shape = batches[0].shape
    state_input(model, shape)
    sweep = settings.prepare(model, shape)
    quantizer.attach(model)
    model.eval()
    sweep.calibrate(model, batches)
    if settings.refines:
        work = sweep.layer_by_layer(model, seed=seed)
        for _ in work.run(batches):
            pass
    return [quantizer, FixedGrids(standardize_once=True)]


def _reason(error: UserError) -> str:
    """What is wrong, without the temporary file's name."""
    _, _, reason = str(error).partition(": ")
    return reason
