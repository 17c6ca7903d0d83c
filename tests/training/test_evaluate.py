"""Every image is counted once, and the figures are those worked out by hand."""

import pytest
import torch
from torch import nn

from micronet_cli.errors import UserError
from micronet_cli.training.evaluate import autocast, evaluate

CPU = torch.device("cpu")


class Batches:
    """A loader as far as an evaluation needs one."""

    device = CPU

    def __init__(self, *batches):
        self.given = batches

    def __len__(self):
        return len(self.given)

    def batches(self):
        return iter(self.given)


def logits_of(rows):
    return torch.tensor(rows, dtype=torch.float32)


def test_figures_are_means_over_images_and_not_over_batches():
    loader = Batches(
        (logits_of([[9, 0, 0, 0, 0, 0], [0, 9, 1, 1, 1, 1]]), torch.tensor([0, 0])),
        (logits_of([[0, 9, 8, 0, 0, 0]]), torch.tensor([2])),
    )
    figures = evaluate(nn.Identity(), loader)
    assert figures["images"] == 3
    assert figures["top1"] == pytest.approx(100 / 3)
    assert figures["top5"] == pytest.approx(200 / 3)  # the second row's label is the sixth of six
    losses = [nn.functional.cross_entropy(logits, labels, reduction="sum") for logits, labels in loader.given]
    assert figures["loss"] == pytest.approx(sum(loss.item() for loss in losses) / 3)


def test_fewer_than_five_classes_are_all_in_the_top_five():
    loader = Batches((logits_of([[1, 2], [2, 1]]), torch.tensor([0, 0])))
    figures = evaluate(nn.Identity(), loader)
    assert (figures["top1"], figures["top5"]) == (50.0, 100.0)


def test_no_image_is_a_mistake():
    with pytest.raises(UserError, match="not one image could be read"):
        evaluate(nn.Identity(), Batches())


@pytest.mark.parametrize("training", [True, False])
def test_the_model_evaluates_and_returns_to_its_mode(training):
    modes = []

    class Mode(nn.Module):
        def forward(self, x):
            modes.append(self.training)
            return x

    model = Mode().train(training)
    evaluate(model, Batches((logits_of([[1, 0]]), torch.tensor([0]))))
    assert modes == [False]
    assert model.training is training


def test_a_compiled_copy_computes_in_the_models_place():
    loader = Batches((logits_of([[1, 0]]), torch.tensor([1])))
    assert evaluate(nn.Identity(), loader, forward=torch.neg)["top1"] == 100.0


@pytest.mark.parametrize(
    ("amp", "kind"),
    [
        pytest.param("none", torch.float32, id="none"),
        pytest.param("bf16", torch.bfloat16, id="bf16"),
        pytest.param("fp16", torch.float16, id="fp16"),
    ],
)
def test_autocast_multiplies_in_its_precision(amp, kind):
    with autocast(amp, CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == kind


class Poisoned(nn.Module):
    """The output is not finite from some batch on."""

    def __init__(self, first, value):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.seen = 0
        self.first = first
        self.value = value

    def forward(self, x):
        self.seen += 1
        if self.seen > self.first:
            with torch.no_grad():
                self.layer.weight.fill_(self.value)
        return self.layer(x)


@pytest.mark.parametrize("first", [0, 1, 2])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_output_that_is_not_finite_is_a_mistake_that_names_its_layer(first, value):
    batch = (torch.ones(4, 2), torch.zeros(4, dtype=torch.long))
    model = Poisoned(first, value).train()
    with pytest.raises(UserError, match=r"^eval: the output is not finite, first in layer layer, whose weight is not"):
        evaluate(model, Batches(batch, batch, batch))
    assert model.training


def test_an_overflow_of_half_precision_names_layer_and_key():
    model = nn.Sequential(nn.Linear(2, 2, bias=False))
    nn.init.constant_(model[0].weight, 50_000.0)
    batch = (torch.ones(4, 2), torch.zeros(4, dtype=torch.long))
    assert evaluate(model, Batches(batch))["top1"] == 100.0
    with pytest.raises(UserError, match=r"^trainer\.amp=fp16: the output is not finite, first in layer 0; use bf16"):
        evaluate(model, Batches(batch), "fp16", group="trainer")


def test_a_loss_that_is_not_finite_is_a_mistake_though_the_output_is_a_ranking():
    loader = Batches((logits_of([[3e38, -3e38]]), torch.tensor([1])))
    with pytest.raises(UserError, match=r"^eval: the output is not finite, first in the loss"):
        evaluate(nn.Identity(), loader)
