"""The distill config group: which teachers and weights are refused, and what is asked of the logits."""

import pytest
import torch
from torch import nn

from micronet_cli import checkpoint
from micronet_cli.errors import UserError
from micronet_cli.functional.distillation import decoupled_loss
from micronet_cli.models import cifar_resnet  # noqa: F401  registers its networks
from micronet_cli.models.model import InputSpec, Model
from micronet_cli.network import Network
from micronet_cli.training.distill import Decoupled, SoftTargets, Teacher
from micronet_cli.training.hints import Hint

MODEL = {"_target_": "micronet_cli.models.model.Model", "name": "resnet8"}


def test_hints_and_a_cache_exclude_each_other():
    with pytest.raises(ValueError, match=r"teacher\.cache_mb=1: hints need"):
        SoftTargets(Teacher("resnet8", cache_mb=1), hints={"a": Hint("layer1", "layer1")})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"model": "resnet8", "cache_mb": -1}, "cache_mb=-1: must be at least 0", id="cache_mb"),
        pytest.param({}, "model=None: a teacher is needed", id="no model"),
        pytest.param(
            {"model": "resnet8", "weights": "w.pth", "pretrained": True},
            "pretrained=True: weights are given too",
            id="two",
        ),
        pytest.param({"model": "resnet_9"}, "resnet_9.*", id="no such model"),
    ],
)
def test_an_impossible_teacher_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Teacher(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"alpha": 1.1}, r"alpha=1\.1: must be a weight in \[0, 1\]", id="alpha"),
        pytest.param({"temperature": 0.0}, r"temperature=0\.0: must be more than 0", id="temperature"),
    ],
)
def test_impossible_weights_are_refused(options, message):
    for kind in (SoftTargets, Decoupled):
        with pytest.raises(ValueError, match=message):
            kind(Teacher("resnet8"), **options)


@pytest.mark.parametrize(
    ("teacher", "trained"),
    [
        pytest.param(Teacher("resnet8"), False, id="fresh"),
        pytest.param(Teacher("resnet8", weights="FILE"), True, id="file"),
        pytest.param(Teacher("resnet8", pretrained=True), True, id="hub"),
    ],
)
def test_a_teacher_knows_whether_it_has_weights(teacher, trained):
    assert teacher.trained is trained


@pytest.fixture
def saved(tmp_path):
    """A run's directory with a network of three classes."""
    model = Model("resnet8").build(3).eval()
    network = Network(model, MODEL, ["a", "b", "c"], InputSpec((3, 8, 8), (0.1,) * 3, (0.2,) * 3))
    (tmp_path / "checkpoints").mkdir()
    checkpoint.save(tmp_path / "checkpoints" / "best.safetensors", network, {})
    return network, tmp_path


@pytest.mark.parametrize("model", [None, "resnet8"])
def test_a_run_teaches_with_its_own_network_and_input(saved, model):
    network, directory = saved
    teacher, spec = Teacher(model, weights=str(directory)).build(3)
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(teacher(images), network.model(images))
    assert spec == network.spec


def test_a_run_of_another_model_is_refused(saved):
    with pytest.raises(UserError, match=r"distill\.teacher\.model=resnet20: .* holds resnet8; give one of them"):
        Teacher("resnet20", weights=str(saved[1])).build(3)


def test_a_run_with_other_classes_is_refused(saved):
    with pytest.raises(UserError, match=r"distill\.teacher\.weights=.*: it has 3 classes, the student 10"):
        Teacher(weights=str(saved[1])).build(10)


def test_a_missing_run_is_named_by_its_key():
    with pytest.raises(UserError, match=r"distill\.teacher\.weights='/nowhere': no such file"):
        Teacher(weights="/nowhere").build(3)


def test_mixed_labels_count_as_their_likeliest_class():
    student, teacher = torch.randn(2, 3), torch.randn(2, 3)
    found = Decoupled(Teacher("resnet8")).logit_loss(student, teacher, torch.tensor([[0.2, 0.8, 0.0], [0.6, 0.1, 0.3]]))
    assert torch.equal(found, decoupled_loss(student, teacher, torch.tensor([1, 0]), 4.0, 1.0, 8.0))


def test_an_objective_has_the_settings_of_its_group(saved):
    network, directory = saved
    settings = SoftTargets(Teacher(weights=str(directory), cache_mb=2), alpha=0.6)
    objective = settings.objective(network, torch.device("cpu"), label_smoothing=0.1)
    assert (objective.alpha, objective.label_smoothing, objective.hints) == (0.6, 0.1, None)
    assert objective.logit_loss == settings.logit_loss


def test_hints_give_the_objective_parameters_of_its_own(saved):
    network, directory = saved
    settings = SoftTargets(Teacher(weights=str(directory)), hints={"a": Hint("layer1", "layer2")})
    objective = settings.objective(network, torch.device("cpu"), 0.0)
    assert isinstance(objective.hints, nn.Module)
    assert len(list(objective.parameters())) == 2


def student_of(channels: int) -> Network:
    model = Model("resnet8", args={"in_chans": channels}).build(3)
    return Network(model, {}, ["a", "b", "c"], InputSpec.of(model))


@pytest.mark.parametrize("hints", [{}, {"a": Hint("layer1", "layer1")}], ids=["logits", "hints"])
def test_a_grey_student_learns_from_a_teacher_of_colour_images(hints):
    objective = SoftTargets(Teacher("resnet8"), hints=hints).objective(student_of(1), torch.device("cpu"), 0.0)
    _, spec = Teacher("resnet8").build(3)
    images = torch.rand(2, 1, 32, 32)
    student_spec = student_of(1).spec
    seen = []
    (own_teacher,) = objective._teacher
    own_teacher.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    objective.teach((images - student_spec.mean[0]) / student_spec.std[0])
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
    assert torch.allclose(seen[-1], (images - mean) / std, atol=1e-5)


def test_a_teacher_of_fewer_channels_is_refused():
    with pytest.raises(UserError, match=r"distill\.teacher: it takes images of 3 channels and the student 4; take"):
        SoftTargets(Teacher("resnet8")).objective(student_of(4), torch.device("cpu"), 0.0)


def test_weights_of_other_classes_are_named_as_the_teacher_s(tmp_path):
    path = tmp_path / "teacher.pth"
    torch.save(Model("resnet8").build(7).state_dict(), path)
    with pytest.raises(UserError) as caught:
        Teacher("resnet8", weights=str(path)).build(10)
    assert str(caught.value) == (
        f"distill.teacher.weights={str(path)!r}: the classifier has 7 classes, the student 10; "
        "train the teacher on the student's data and give its run; data.classes=FILE keeps the head"
    )
    with pytest.raises(UserError, match=r"^distill\.teacher\.weights='/nowhere': no such file$"):
        Teacher("resnet8", weights="/nowhere").build(10)


def test_a_teacher_s_average_is_taken_where_there_is_one(tmp_path):
    trained, average = Model("resnet8").build(4).state_dict(), Model("resnet8").build(4).state_dict()
    path = tmp_path / "teacher.pth"
    torch.save({"state_dict": trained, "state_dict_ema": average}, path)
    teacher, _ = Teacher("resnet8", weights=str(path), ema=True).build(4)
    assert teacher.conv1.weight.equal(average["conv1.weight"])
    torch.save({"state_dict": trained}, path)
    with pytest.raises(
        UserError, match=r"^distill\.teacher\.ema=true: no averaged weights in distill\.teacher\.weights="
    ):
        Teacher("resnet8", weights=str(path), ema=True).build(4)
    with pytest.raises(ValueError, match=r"^ema=True: averaged weights come from a file"):
        Teacher("resnet8", ema=True)


def test_a_run_has_no_average_beside_its_weights(saved):
    _, directory = saved
    with pytest.raises(UserError, match=r"^distill\.teacher\.ema=true: .* has one set of weights"):
        Teacher(weights=str(directory), ema=True).build(3)


def test_a_checkpoint_s_file_is_a_teacher_with_and_without_its_model(saved):
    network, directory = saved
    file = str(directory / "checkpoints" / "best.safetensors")
    for name in (None, network.config["name"]):
        teacher, _ = Teacher(name, weights=file).build(3)
        assert teacher.conv1.weight.equal(network.model.conv1.weight)
    with pytest.raises(UserError, match=r"^distill\.teacher\.model=resnet20: .* holds resnet8; give one of them"):
        Teacher("resnet20", weights=file).build(3)


def test_plain_weights_need_the_teacher_s_model(tmp_path):
    path = tmp_path / "w.pth"
    torch.save(Model("resnet8").build(3).state_dict(), path)
    with pytest.raises(UserError) as caught:
        Teacher(weights=str(path)).build(3)
    assert str(caught.value) == (
        f"distill.teacher.weights={str(path)!r}: plain weights, not a checkpoint; give distill.teacher.model=<name> too"
    )
