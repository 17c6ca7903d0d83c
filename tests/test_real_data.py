"""Real images and trained networks, where they lie beside the checkout (or where MICRONET_SHARED says)."""

import csv
import os
from pathlib import Path

import pytest

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


@needs_samples
@pytest.mark.slow
@pytest.mark.parametrize(("stage", "quantised"), [("prune", 0), ("qat", 115)])
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
