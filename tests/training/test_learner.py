"""One optimiser step: what its gradients are of, and what it refuses."""

from pathlib import Path

import pytest
import timm
import torch

from micronet_cli.compression.pruning.pruner import Pruner, SparsityRule
from micronet_cli.compression.pruning.regrow import Regrow
from micronet_cli.errors import UserError
from micronet_cli.functional.pruning import Taylor
from micronet_cli.functional.schedules import Constant
from micronet_cli.layers.effective_weight import effective_weight
from micronet_cli.models import cifar_resnet  # noqa: F401  registers its networks
from micronet_cli.training.learner import Learner, parameters_of
from micronet_cli.training.meter import Meter
from micronet_cli.training.objectives import CrossEntropy
from micronet_cli.training.optim import Optim
from micronet_cli.training.settings import RunLength, TrainerSettings

HALF = {"all": SparsityRule("layer.*conv.*", 0.5)}


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.randn(8, 3, 8, 8), torch.arange(8)


def learner(compressors=(), **settings):
    torch.manual_seed(0)
    model = timm.create_model("resnet8")
    for compressor in compressors:
        compressor.attach(model)
    return Learner(
        settings=TrainerSettings(**settings),
        optim=Optim("momentum", lr=0.05),
        length=RunLength(total=4, steps_per_epoch=2),
        model=model,
        objective=CrossEntropy(),
        compressors=compressors,
        last=Path("last.safetensors"),
    )


def test_accumulation_equals_a_larger_batch(batch):
    images, labels = batch
    whole, halves = learner(), learner(accumulate_steps=2)
    for each in (whole, halves):
        each.model.eval()  # BatchNorm sees batches, not sums of them
    whole.train_batch(images, labels, Meter())
    halves.train_batch(images[:4], labels[:4], Meter())
    assert (halves.step, halves.accumulated) == (0, 1)
    halves.train_batch(images[4:], labels[4:], Meter())
    assert (halves.step, halves.accumulated) == (1, 0)
    assert torch.allclose(whole.model.conv1.weight, halves.model.conv1.weight, atol=1e-6)


@pytest.mark.parametrize("options", [{"importance": Taylor()}, {"regrow": Regrow()}], ids=["taylor", "regrow"])
def test_scaled_gradients_are_not_ranked_by(options):
    with pytest.raises(UserError, match=r"trainer\.amp=fp16"):
        learner([Pruner(HALF, **options)], amp="fp16")


def test_batch_norm_freezes_at_its_progress(batch):
    fitted = learner(freeze_bn_at=0.5)
    norm = fitted.model.bn1
    still = []
    for _ in range(4):
        before = norm.running_mean.clone()
        fitted.train_batch(*batch, Meter())
        still.append(torch.equal(norm.running_mean, before))
    assert still == [False, False, True, True]


def test_what_is_reported_is_the_average_where_there_is_one(batch):
    plain = learner()
    assert plain.average is None
    assert plain.reported is plain.model
    fitted = learner(ema_decay=0.5)
    assert fitted.reported is fitted.average
    before = fitted.average.conv1.weight.clone()
    for _ in range(2):  # the first average is the network itself
        fitted.train_batch(*batch, Meter())
    assert not torch.equal(fitted.average.conv1.weight, before)
    assert not torch.equal(fitted.average.conv1.weight, fitted.model.conv1.weight)


def test_settling_brings_the_average_to_its_zeros(batch):
    fitted = learner([Pruner(HALF, Constant())], ema_decay=0.9)
    fitted.train_batch(*batch, Meter())
    assert fitted.settle()
    masks = [effective_weight(model.layer1[0].conv1).mask for model in (fitted.model, fitted.average)]
    assert torch.equal(*masks)
    assert int(masks[0].sum()) == masks[0].numel() // 2


def test_an_objective_trains_what_it_holds():
    assert parameters_of(CrossEntropy()) == []
    linear = torch.nn.Linear(2, 2)
    assert parameters_of(linear) == [linear.weight, linear.bias]
