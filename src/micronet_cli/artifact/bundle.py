"""A directory that is ready to publish, laid out as the Hugging Face hub and timm expect it.

``config.json`` and ``model.safetensors`` are what timm reads; ``micronet.safetensors`` is the checkpoint, with its
masks and quantisers, which micronet reads instead where it is there.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError
from torch import nn

from micronet_cli.network import Network, model_name

CHECKPOINT = "micronet.safetensors"
LABELS = "labels.txt"
CARD = "README.md"
RUNNER = "run.py"
RUNNER_TEXT = '''"""python run.py IMAGES.npy: uint8 [N, H, W, 3] at the network's size -> the class of each image."""
import json, pathlib, sys
import numpy as np
import onnxruntime
session = onnxruntime.InferenceSession(str(pathlib.Path(__file__).with_name("model.onnx")))
about = session.get_modelmeta().custom_metadata_map
mean, std, classes = (json.loads(about[key]) for key in ("mean", "std", "classes"))
pixels = (np.load(sys.argv[1]) / 255 - mean) / std
(logits,) = session.run(["logits"], {"images": pixels.transpose(0, 3, 1, 2).astype(np.float32)})
print(*(classes[best] for best in logits.argmax(1)), sep="\\n")
'''


def timm_config(network: Network, architecture: nn.Module) -> dict[str, Any]:
    """``config.json`` as timm reads it: architecture, arguments, classes and input."""
    spec = network.spec
    record = {
        "input_size": list(spec.size),
        "mean": list(spec.mean),
        "std": list(spec.std),
        "crop_pct": spec.crop_pct,
        "interpolation": spec.interpolation,
        "num_classes": len(network.classes),
    }
    first = getattr(architecture, "pretrained_cfg", None) or {}
    for key in ("first_conv", "classifier"):
        if key in first:
            record[key] = first[key]
    config: dict[str, Any] = {
        "architecture": network.config["name"],
        "num_classes": len(network.classes),
        "label_names": network.classes,
        "pretrained_cfg": record,
    }
    arguments = network.config.get("args")
    if arguments:
        config["model_args"] = arguments
    return config


def model_card(
    network: Network,
    licence: str | None,
    files: Mapping[str, int],
    accuracies: Sequence[Mapping[str, Any]],
    command: str,
) -> str:
    """``README.md``, with the header that the hub reads.

    Args:
        network: what is published, with its metrics.
        licence: of the weights, as ``CC-BY-4.0``.
        files: name -> bytes.
        accuracies: rows of the measured table: ``file engine images top1 equal_predictions``.
        command: that wrote the directory.
    """
    name = model_name(network.config)
    header = ["---", "pipeline_tag: image-classification", "library_name: timm", "tags:", "- micronet", "- onnx"]
    if licence:
        header.append(f"license: {licence.lower()}")
    channels, height, width = network.spec.size
    lines = [*header, "---", "", f"# {name}, compressed with micronet", ""]
    classes = f"{len(network.classes)} classes ([{LABELS}]({LABELS}))"
    lines.append(f"{classes}; input {channels} x {height} x {width}.")
    lines += ["", "## Measured", ""]
    lines += _table(accuracies) if accuracies else ["Not measured: no evaluation images were there."]
    lines += ["", "## Files", "", "| file | bytes |", "|---|---:|"]
    for file, size in files.items():
        lines.append(f"| `{file}` | {size:,} |")
    lines += ["", "## How it was made", "", f"    {command}", ""]
    score = network.metrics.get("micronet_score")
    if score is not None:
        rules = network.metrics.get("score_profile", "official")
        lines += [f"MicroNet score {score:.5g} ({rules}).", ""]
    if network.compressors:
        compressors = json.dumps(network.compressors, indent=1)
        lines += ["Compressors, in order:", "", "```json", compressors, "```", ""]
    lines += ["## Use", "", f"    python {RUNNER} IMAGES.npy        # onnxruntime and numpy alone"]
    lines += ["    micronet stage=eval init_from=local-dir:PATH data=...", ""]
    lines.append(f"Licence: {licence or 'none stated'}.")
    return "\n".join(lines) + "\n"


def _table(accuracies: Sequence[Mapping[str, Any]]) -> list[str]:
    """The measured figures as Markdown."""
    lines = ["| file | engine | images | top-1 | the network's predictions |", "|---|---|---:|---:|---:|"]
    for row in accuracies:
        equal = 100 * row["equal_predictions"]
        cells = [f"`{row['file']}`", row["engine"], str(row["images"]), f"{row['top1']:.2f}", f"{equal:.2f} %"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def bundled_checkpoint(name: str) -> Path | None:
    """The checkpoint in ``local-dir:PATH`` or ``hf-hub:ORG/NAME``; None where there is none, or no hub in reach."""
    kind, _, place = name.partition(":")
    if kind == "local-dir":
        file = Path(place).expanduser() / CHECKPOINT
        return file if file.is_file() else None
    repository, _, revision = place.partition("@")
    try:
        return Path(hf_hub_download(repository, CHECKPOINT, revision=revision or None))
    except (EntryNotFoundError, LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError):
        return None
