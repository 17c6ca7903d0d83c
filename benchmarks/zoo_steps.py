"""One network of the zoo through everything that micronet does to it; a JSON line after every step.

    python benchmarks/zoo_steps.py PART NAME SIDE RESIZES CHECKPOINT

PART is one of
    build: attach, prune, quantise, save;
    files: load, score, pack, read back, ONNX, onnxruntime;
    shrink: drop filters and take them out, in double precision.
RESIZES is 1 for a network that is built for its input's size, else 0. ``benchmarks/zoo.py`` runs all parts for every
family of timm, each in a process of its own.
"""

import copy
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from micronet_cli import checkpoint
from micronet_cli.artifact import runtime
from micronet_cli.artifact.compare import compare
from micronet_cli.artifact.onnx import check_onnx, export_onnx
from micronet_cli.artifact.onnx_compare import compare_onnx
from micronet_cli.artifact.pack import pack
from micronet_cli.compression.pruning.dead_channels import find_dead_channels
from micronet_cli.compression.pruning.pruner import Pruner
from micronet_cli.config import build
from micronet_cli.errors import UserError
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize
from micronet_cli.models.model import InputSpec, Model
from micronet_cli.network import Network, describe
from micronet_cli.scoring import rule_set, score_with
from micronet_cli.torch_internals import BatchNorm

CLASSES = [f"class{number}" for number in range(10)]
IMAGES = 4
SPARSITY = 0.65
BITS = 4
FIGURES = ("micronet_score", "weight_sparsity", "weight_bits_mean", "activation_bits_mean")
MODEL = "micronet_cli.models.model.Model"
HIDDEN = "(?!({stem}|{classifier})$).*"
PRUNE: dict[str, Any] = {
    "_target_": "micronet_cli.compression.pruning.pruner.Pruner",
    "rules": {
        "hidden": {
            "_target_": "micronet_cli.compression.pruning.sparsity_rules.SparsityRule",
            "match": HIDDEN,
            "sparsity": SPARSITY,
        }
    },
}
FILTERS: dict[str, Any] = PRUNE | {"granularity": {"_target_": "micronet_cli.functional.granularity.Filter"}}
QUANTIZE: dict[str, Any] = {
    "_target_": "micronet_cli.compression.quantization.quantizer.Quantizer",
    "weight_bits": BITS,
    "activation_bits": BITS,
    "rules": {
        "hidden": {
            "_target_": "micronet_cli.compression.quantization.bits_rules.BitsRule",
            "match": "(?!{stem}$).*",
        }
    },
}


def config_of(name: str, side: int, resizes: bool) -> dict[str, Any]:
    """The model config of an architecture whose images have this side."""
    config: dict[str, Any] = {"_target_": MODEL, "name": name}
    if resizes:
        config["args"] = {"img_size": side}
    return config


def random_network(config: dict[str, Any], side: int) -> Network:
    """The network with every parameter and statistic drawn anew, those that start at 0 or 1 included."""
    architecture = Model(config["name"], args=config.get("args"))
    torch.manual_seed(0)
    model = architecture.build(len(CLASSES))
    randomize(model)
    return Network(model.eval(), config, CLASSES, InputSpec.of(model, side))


@torch.no_grad()
def randomize(model: nn.Module) -> None:
    """Draw parameters and statistics so that signals neither vanish nor grow much from layer to layer."""
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.normal_(std=0.1)
        elif parameter.dim() > 1:
            inputs = max(parameter[0].numel(), 1)
            parameter.normal_(std=inputs**-0.5)
        else:
            parameter.uniform_(0.5, 1.5)
    for module in model.modules():
        if isinstance(module, BatchNorm) and module.running_mean is not None:
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)


def images_of(network: Network, dtype: torch.dtype = torch.float32) -> Tensor:
    """The same normal images for every process, ``[IMAGES, C, H, W]``."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(IMAGES, *network.spec.size, generator=generator, dtype=dtype)


def attach(network: Network, config: dict[str, Any]) -> None:
    """Attach a compressor as a stage does and bring it to its target."""
    compressor = build(config, config["_target_"].rpartition(".")[2])
    compressor.attach(network.model)
    compressor.update(1, 1)
    network.compressors = [*network.compressors, config]


@torch.no_grad()
def calibrate(network: Network) -> None:
    """Let the activation quantisers see a batch, while everything else is in evaluation mode."""
    for module in network.model.modules():
        if isinstance(module, ActivationFakeQuantize):
            module.train()
    network.model(images_of(network))
    network.model.eval()


@torch.no_grad()
def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference over the largest value."""
    tiny = torch.finfo(ours.dtype).tiny
    largest = ours.abs().max().clamp_min(tiny)
    return float((ours - theirs).abs().max() / largest)


def build_steps(network: Network, file: Path) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Prune, quantise and save a random network."""

    def quantize() -> dict[str, Any]:
        attach(network, QUANTIZE)
        calibrate(network)
        return {}

    def save() -> dict[str, Any]:
        checkpoint.save(file, network, {})
        with torch.no_grad():
            logits = network.model(images_of(network))
        torch.save(logits, logits_beside(file))
        return {"finite": bool(logits.isfinite().all())}

    yield "prune", lambda: attach(network, PRUNE) or {}
    yield "quantise", quantize
    yield "save", save


def logits_beside(file: Path) -> Path:
    """Where the logits of a checkpoint's network are kept."""
    return file.with_suffix(".logits")


def file_steps(network: Network, file: Path) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """What leaves the checkpoint: its score, the packed file, ONNX."""
    packed_file = file.with_suffix(runtime.SUFFIX)
    onnx_file = file.with_suffix(".onnx")

    def load() -> dict[str, Any]:
        with torch.no_grad():
            logits = network.model(images_of(network))
        return {"reload_error": relative_error(torch.load(logits_beside(file)), logits)}

    def score() -> dict[str, Any]:
        report = score_with(network.model, rule_set("official"), network.spec.size)
        figures = report.metrics()
        return {key: figures[key] for key in FIGURES}

    def write_packed() -> dict[str, Any]:
        content = pack(network.model, describe(network, {}))
        packed_file.write_bytes(content)
        return {"packed_bytes": len(content)}

    def read_packed() -> dict[str, Any]:
        model, _ = runtime.load(packed_file, "file")
        alone = compare(network.model, model, images_of(network), torch.float64, alone=True)
        return {"packed_error": alone.logit_error, "codes": alone.codes, "differing_codes": alone.differing_codes}

    def write_onnx() -> dict[str, Any]:
        return {"onnx_bytes": export_onnx(network, onnx_file)["bytes"]}

    def run_onnx() -> dict[str, Any]:
        images = images_of(network)
        checked = check_onnx(onnx_file, network.model, images)
        alone = compare_onnx(onnx_file, network.model, images)
        return {
            "onnx_error": checked["max_abs_deviation"] / checked["max_abs_logit"],
            "onnx_error_alone": alone.logit_error,
            "onnx_codes": alone.codes,
            "onnx_differing_codes": alone.differing_codes,
        }

    yield "load", load
    yield "score", score
    yield "pack", write_packed
    yield "read back", read_packed
    yield "ONNX", write_onnx
    yield "onnxruntime", run_onnx


def shrink_steps(network: Network, file: Path) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Drop filters of a random network, then take them out."""
    model = network.model.double()
    pruner: Pruner = build(FILTERS, "prune")

    def prune() -> dict[str, Any]:
        pruner.attach(model)
        pruner.update(1, 1)
        return {}

    @torch.no_grad()
    def remove() -> dict[str, Any]:
        images = images_of(network, torch.float64)
        expected = model(images)
        smaller = copy.deepcopy(model)
        found = find_dead_channels(smaller, network.spec.size)
        found.removal.attach(smaller)
        channels = sum(len(gone) for gone in found.removal.outputs.values())
        error = relative_error(expected, smaller(images))
        return {"removed": channels, "left_layers": len(found.left), "shrink_error": error}

    yield "drop filters", prune
    yield "shrink", remove


STEPS = {"build": build_steps, "files": file_steps, "shrink": shrink_steps}


def main() -> None:
    """Run the steps of one process, and stop at the first that does not end well."""
    part, name, side_text, resizes, path = sys.argv[1:]
    torch.set_num_threads(1)
    file = Path(path)
    side = int(side_text)
    config = config_of(name, side, resizes == "1")

    def first() -> Network:
        return checkpoint.load(str(file)) if part == "files" else random_network(config, side)

    network = run_step("create", first)
    if network is None:
        return
    for step, action in STEPS[part](network, file):
        if run_step(step, action) is None:
            return


def run_step(step: str, action: Callable[[], Any]) -> Any:
    """Do it and print what came of it; None after a refusal or a fault."""
    start = time.perf_counter()
    told: dict[str, Any] = {"step": step}
    result = None
    try:
        result = action()
    except (UserError, ValueError) as error:
        told["refused"] = str(error).splitlines()[0][:300]
    except Exception as error:  # whatever goes wrong is a row of the table
        told["fault"] = f"{type(error).__name__}: {error}"[:300]
        traceback.print_exc()
    told["seconds"] = round(time.perf_counter() - start, 1)
    if isinstance(result, dict):
        told |= result
    print(json.dumps(told), flush=True)
    return result


if __name__ == "__main__":
    main()
