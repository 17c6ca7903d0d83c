"""Real images and trained networks, where they lie beside the checkout (or where MICRONET_SHARED says)."""

import csv
import os
from pathlib import Path

import pytest
import torch

from micronet_cli import checkpoint
from micronet_cli.data.datasets import ImageFolder
from micronet_cli.layers.effective_weight import effective_weight
from micronet_cli.layers.rules import compressible_layers
from micronet_cli.paths import CONF
from tests.conftest import metrics_of

SHARED = Path(os.environ.get("MICRONET_SHARED", Path(__file__).parents[2] / "shared"))
CIFAR, SAMPLES = SHARED / "data" / "cifar10", SHARED / "data" / "imagenet_samples" / "val.tar"
WEIGHTS = SHARED / "models" / "resnet20_cifar10.safetensors"

needs_cifar = pytest.mark.skipif(not (CIFAR.is_dir() and WEIGHTS.is_file()), reason=f"no CIFAR-10 in {SHARED}")
needs_samples = pytest.mark.skipif(not SAMPLES.is_file(), reason=f"no ImageNet samples in {SHARED}")


@needs_cifar
def test_trained_resnet20_has_its_accuracy(micronet):
    run = micronet(
        "stage=eval",
        "model=resnet20",
        f"model.weights={WEIGHTS}",
        "data=imagefolder",
        f"data.test={CIFAR / 'test.tar'}",
    )
    assert metrics_of(run)["images"] == 5000
    assert metrics_of(run)["top1"] == pytest.approx(87.7, abs=0.1)


LITE = SHARED / "models" / "tf_efficientnet_lite0.safetensors"
EVEN = SHARED / "data" / "imagenet_samples" / "even_500.tar"
OF_1000_CLASSES = {
    "125 images": (SAMPLES, 125, 88.8),
    "500 images": (EVEN, 500, 87.4),
}


@pytest.mark.skipif(not (LITE.is_file() and EVEN.is_file()), reason=f"no ImageNet samples or network in {SHARED}")
@pytest.mark.slow
@pytest.mark.parametrize(("path", "images", "top1"), OF_1000_CLASSES.values(), ids=OF_1000_CLASSES.keys())
def test_trained_head_is_kept_on_some_of_its_classes(micronet, path, images, top1):
    run = micronet(
        "stage=eval", "model=tf_efficientnet_lite0", f"model.weights={LITE}", "data=imagefolder",
        f"data.test={path}", "data.classes=imagenet", "eval.pictures=0",
    )  # fmt: skip
    metrics = metrics_of(run)
    assert (metrics["images"], metrics["classes_with_images"]) == (images, images)
    assert metrics["top1"] == pytest.approx(top1, abs=0.3)
    assert len(checkpoint.load(str(run)).classes) == 1000
    assert (run / "confused_pairs.csv").stat().st_size < 20_000
    assert not (run / "confusion.csv").exists()


# Levels a channel of weights, and levels of an input, that an option of the quantize group promises.
CLAIMS = {
    "a2q": (15, 16), "binary": (2, 16), "dorefa": (15, 16), "lsq": (16, 16), "lsq_plus": (16, 16), "pact": (15, 16),
    "micronet2019": (16, 16), "symmetric": (15, 16), "ternary": (3, 16), "w4a4": (16, 16), "w8a8": (256, 256),
}  # fmt: skip


@needs_cifar
@pytest.mark.slow
@pytest.mark.parametrize("option", sorted(path.stem for path in (CONF / "quantize").glob("*.yaml")))
def test_trained_checkpoint_holds_what_its_quantiser_claims(micronet, option):
    if option == "none":
        assert option not in CLAIMS
        return
    run = micronet(
        "stage=qat", "model=resnet20", f"model.weights={WEIGHTS}", f"quantize={option}", "trainer.max_steps=5",
        "data=imagefolder", f"data.train={CIFAR / 'test.tar'}", f"data.test={CIFAR / 'test.tar'}",
        *([] if option == "binary" else ["prune=one_shot"]),
    )  # fmt: skip
    network = checkpoint.load(str(run))
    loader = ImageFolder(test=str(CIFAR / "test.tar")).loader("test", network.spec, torch.device("cpu"))
    images, _ = next(loader.batches())
    inputs = {}
    layers = compressible_layers(network.model)
    for name, layer in layers.items():
        layer.register_forward_hook(lambda m, given, out, name=name: inputs.update({name: given[0]}))
    with torch.no_grad():
        network.model(images)
    weight_levels, input_levels = CLAIMS[option]
    quantised = [name for name, layer in layers.items() if effective_weight(layer) is not None]
    assert len(quantised) == len(layers) - 1
    for name in quantised:
        weight, parts = layers[name].weight.detach(), effective_weight(layers[name])
        assert 1 < max(len(channel.unique()) for channel in weight) <= weight_levels
        if parts.mask is not None:
            assert not weight[~parts.mask].any()
            assert (weight == 0).float().mean() > 0.64
        if getattr(layers[name], "input_fake_quantize", None) is not None:
            assert 1 < len(inputs[name].unique()) <= input_levels
    unquantised = {name for name in quantised if len(inputs[name].unique()) > input_levels}
    assert unquantised == ({"linear"} if option == "micronet2019" else set())


@needs_samples
@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "quantised"), [pytest.param("prune", 0, id="prune"), pytest.param("qat", 115, id="qat")]
)
def test_reference_experiment_takes_steps_at_full_size(micronet, stage, quantised):
    run = micronet(
        f"+experiment=micronet2019/efficientnet_b1_{stage}", f"data.train={SAMPLES}", f"data.test={SAMPLES}",
        "trainer.max_steps=3", "data.batch_size=8",
    )  # fmt: skip
    with (run / "layers.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get(f"{stage}_rule") or row.get("quantize_rule")]
    if stage == "prune":
        assert len(rows) == 116
        assert len({row["prune_rule"] for row in rows}) == 7
        assert metrics_of(run)["weight_sparsity"] == pytest.approx(1 - 2_993_353 / 7_716_976, abs=0.01)
    else:
        assert len(rows) == quantised
        floats = [row["layer"] for row in rows if not row["activation_bits"]]
        assert floats == ["classifier"]
