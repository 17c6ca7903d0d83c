"""The loop: what a run ends with, however it is cut up, and what stops it."""

import copy
import signal

import pytest
import timm
import torch

from micronet_cli import checkpoint
from micronet_cli.compression.pruning.pruner import Pruner, SparsityRule
from micronet_cli.compression.quantization.quantizer import BitsRule, Quantizer
from micronet_cli.data.datasets import Digits
from micronet_cli.errors import Interrupted, UserError
from micronet_cli.functional.schedules import AGP
from micronet_cli.layers.effective_weight import effective_weight
from micronet_cli.models import cifar_resnet  # noqa: F401
from micronet_cli.models.model import InputSpec
from micronet_cli.network import Network
from micronet_cli.runs.directory import Run
from micronet_cli.training.distill import SoftTargets, Teacher
from micronet_cli.training.hints import Hint, HintLoss
from micronet_cli.training.objectives import CrossEntropy, Distillation
from micronet_cli.training.optim import Optim
from micronet_cli.training.settings import TrainerSettings
from micronet_cli.training.trainer import Trainer
from tests.conftest import history_of

CPU = torch.device("cpu")
MODEL = {"_target_": "micronet_cli.models.model.Model", "name": "resnet8"}
PRUNE = {
    "_target_": "micronet_cli.compression.pruning.pruner.Pruner",
    "rules": {"all": {"match": "(?!{stem}$).*", "sparsity": 0.5}},
}
QUANTIZE = {
    "_target_": "micronet_cli.compression.quantization.quantizer.Quantizer",
    "rules": {"all": {"match": "(?!{stem}$).*"}},
}


def fit(directory, trainer, objective=None, optim=None, resume=False, compress=False):
    torch.manual_seed(0)
    model = timm.create_model("resnet8")
    spec = InputSpec((3, 8, 8), (0.5,) * 3, (0.5,) * 3)
    compressors = []
    if compress:
        compressors = [
            Pruner({"all": SparsityRule("(?!{stem}$).*", 0.5)}, AGP(end=1.0)),
            Quantizer({"all": BitsRule("(?!{stem}$).*")}),
        ]
        for compressor in compressors:
            compressor.attach(model)
    network = Network(model, MODEL, [str(i) for i in range(10)], spec, [PRUNE, QUANTIZE] if compress else [])
    data = Digits(batch_size=128)
    train, val = (data.loader(split, spec, CPU) for split in ("train", "val"))
    optim = optim or Optim("momentum", lr=0.05)
    return Trainer(
        trainer, optim, network, objective or CrossEntropy(), compressors, train, val, Run(directory, resume)
    )


def weights(fitted):
    return {name: tensor.clone() for name, tensor in fitted.learner.reported.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("ema", [None, 0.9])
def test_interrupted_and_resumed_ends_bit_identical(tmp_path, monkeypatch, ema):
    settings = TrainerSettings(epochs=2, ema_decay=ema, accumulate_steps=2, log_interval_steps=3)
    whole = fit(tmp_path / "whole", settings, compress=True)
    whole.run()

    part = fit(tmp_path / "part", settings, compress=True)
    step = part.learner.train_batch

    def interrupt(*arguments):
        step(*arguments)
        if part.learner.step == 7:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(part.learner, "train_batch", interrupt)
    with pytest.raises(Interrupted, match="step 7 of 10"):
        part.run()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL

    torch.rand(5)  # whatever else draws in between
    resumed = fit(tmp_path / "part", settings, resume=True, compress=True)
    resumed.run()
    assert equal(weights(resumed), weights(whole))
    steps = [[line["step"] for line in history_of(tmp_path / name)] for name in ("whole", "part")]
    assert steps[0] == steps[1]


def test_pruner_reaches_its_target_at_the_very_end(tmp_path):
    fitted = fit(tmp_path, TrainerSettings(max_steps=3, ema_decay=0.5), compress=True)
    fitted.run()
    for model in (fitted.learner.model, fitted.learner.reported, checkpoint.load(str(tmp_path)).model):
        mask = effective_weight(model.layer3[0].conv1).mask
        assert int((~mask).sum()) == mask.numel() // 2


def test_best_is_chosen_among_networks_at_their_target(tmp_path):
    fitted = fit(tmp_path, TrainerSettings(epochs=3), compress=True)
    assert fitted.run()["epoch"] == 2


def test_nan_stops_the_run_naming_step_and_layer(tmp_path, monkeypatch):
    fitted = fit(tmp_path, TrainerSettings(epochs=1))
    step = fitted.learner.train_batch

    def poison(*arguments):
        if fitted.learner.step == 3:
            with torch.no_grad():
                fitted.learner.model.layer2[0].bn1.running_mean.fill_(1)
                fitted.learner.model.layer2[0].conv2.weight[0, 0, 0, 0] = float("nan")
        step(*arguments)

    monkeypatch.setattr(fitted.learner, "train_batch", poison)
    with pytest.raises(UserError, match=r"loss is nan at step 3, first seen in parameter layer2\.0\.conv2\.weight"):
        fitted.run()


def test_overflow_of_half_precision_names_its_layer(tmp_path, monkeypatch):
    fitted = fit(tmp_path, TrainerSettings(max_steps=2, amp="fp16"))
    with torch.no_grad():
        fitted.learner.model.layer2[0].conv1.weight.fill_(60000.0)  # finite in float32, not its products in fp16
    with pytest.raises(UserError, match=r"first seen in layer layer2\.0\.conv1"):
        fitted.run()


def test_state_of_another_network_is_refused(tmp_path):
    fit(tmp_path, TrainerSettings(max_steps=1)).run()
    with pytest.raises(UserError, match="of another network or optimiser"):
        fit(tmp_path, TrainerSettings(max_steps=1), resume=True, compress=True).run()


def test_resume_without_state_starts_from_the_beginning(tmp_path):
    assert fit(tmp_path, TrainerSettings(max_steps=2), resume=True).run()["epoch"] == 0


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_reduced_precision_trains(tmp_path, amp):
    fitted = fit(tmp_path, TrainerSettings(max_steps=4, amp=amp, clip_grad_norm=1.0), compress=True)
    before = copy.deepcopy(weights(fitted))
    fitted.run()
    after = weights(fitted)
    assert not equal(before, after)
    assert all(tensor.isfinite().all() for tensor in after.values())


def test_hints_train_a_regressor_where_channels_differ_and_resume_it(tmp_path):
    torch.manual_seed(1)
    teacher = timm.create_model("resnet8").eval()
    spec = InputSpec((3, 8, 8), (0.5,) * 3, (0.5,) * 3)
    soft = SoftTargets(Teacher("resnet8")).logit_loss

    def make(resume=False, epochs=1):
        fitted = fit(tmp_path, TrainerSettings(epochs=epochs), resume=resume)
        torch.manual_seed(2)
        images = torch.zeros(2, 3, 8, 8)
        pairs = {"same": Hint("layer1", "layer1"), "other": Hint("layer1", "layer2")}
        hints = HintLoss(fitted.learner.model, teacher, pairs, (images, images))
        assert list(hints.regressors) == ["other"]
        objective = Distillation(teacher, spec, spec, soft, 0.3, hints=hints, hint_weight=1.0)
        return fit_with(fitted, objective), hints.regressors["other"]

    def fit_with(fitted, objective):
        optim = Optim("momentum", lr=0.05)
        return Trainer(fitted.settings, optim, fitted.network, objective, [], fitted.train, fitted.val, fitted.run_dir)

    first, regressor = make()
    before = regressor.weight.clone()
    first.run()
    trained = regressor.weight.clone()
    assert not torch.equal(before, trained)
    second, regressor = make(resume=True)
    second.restore()
    assert torch.equal(regressor.weight, trained)
