"""Losses of cross-entropy and distillation, and how the teacher is asked."""

import timm
import torch
from torch import nn

from micronet_cli.models import cifar_resnet  # noqa: F401  registers its networks
from micronet_cli.models.model import InputSpec
from micronet_cli.training.distill import SoftTargets, Teacher
from micronet_cli.training.objectives import CrossEntropy, Distillation

SPEC = InputSpec((3, 8, 8), (0.5,) * 3, (0.5,) * 3)


def test_distillation_gradient_differs_from_cross_entropys(tmp_path):
    torch.manual_seed(0)
    student, teacher = timm.create_model("resnet8"), timm.create_model("resnet8")
    spec = InputSpec((3, 8, 8), (0.5,) * 3, (0.5,) * 3)
    images, labels = torch.randn(16, 3, 8, 8), torch.randint(10, (16,))

    def gradient(objective):
        student.zero_grad()
        objective(student, images, labels)[0].backward()
        return student.linear.weight.grad.clone()

    hard = gradient(CrossEntropy())
    soft = SoftTargets(Teacher("resnet8")).logit_loss
    mixed = gradient(Distillation(teacher, spec, spec, soft, alpha=0.3))
    only_hard = gradient(Distillation(teacher, spec, spec, soft, alpha=1.0))
    assert torch.allclose(only_hard, hard)
    # The 2019 entry's gradient was 0.3 of cross-entropy's and nothing else.
    assert not torch.allclose(mixed, 0.3 * hard, atol=1e-3)
    assert all(p.grad is None for p in teacher.parameters())


def test_teacher_sees_its_own_normalisation():
    seen = []

    class Normal(nn.Module):
        def __init__(self):
            super().__init__()
            self.p = nn.Parameter(torch.zeros(()))

        def forward(self, x):
            seen.append(x)
            return x.mean((2, 3))

    raw = torch.rand(2, 3, 4, 4)
    ours, theirs = (InputSpec((3, 4, 4), (m,) * 3, (s,) * 3) for m, s in ((0.5, 0.25), (0.4, 0.2)))
    soft = SoftTargets(Teacher("resnet8")).logit_loss
    Distillation(Normal(), theirs, ours, soft, 0.5)(Normal(), (raw - 0.5) / 0.25, torch.tensor([0, 1]))
    assert torch.allclose(seen[0], (raw - 0.4) / 0.2, atol=1e-6)


def test_the_teachers_precision_is_its_own():
    kinds = []

    class Probe(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(192, 10)

        def forward(self, x):
            out = self.linear(x.flatten(1))
            kinds.append(out.dtype)
            return out

    loss = SoftTargets(Teacher("resnet8")).logit_loss
    images, labels = torch.randn(4, 3, 8, 8), torch.randint(10, (4,))
    student = Probe()
    for amp in ("none", "bf16"):
        Distillation(Probe(), SPEC, SPEC, loss, 0.3, amp=amp)(student, images, labels)
    assert kinds == [torch.float32, torch.float32, torch.bfloat16, torch.float32]


def test_loss_is_the_same_with_and_without_a_cache():
    torch.manual_seed(0)
    student, teacher = timm.create_model("resnet8"), timm.create_model("resnet8")
    images, labels = torch.randn(16, 3, 8, 8), torch.randint(10, (16,))
    loss = SoftTargets(Teacher("resnet8")).logit_loss
    plain, cached = (Distillation(teacher, SPEC, SPEC, loss, 0.3, cache_bytes=size) for size in (0, 1 << 20))
    student.eval()
    wanted = plain(student, images, labels)[0]
    for _ in range(2):
        assert torch.equal(cached(student, images, labels)[0], wanted)


class Logits(nn.Module):
    """Says the same of every image."""

    def __init__(self, *values):
        super().__init__()
        self.values = nn.Parameter(torch.tensor(values))

    def forward(self, x):
        return self.values.expand(len(x), -1)


def test_cross_entropy_of_equal_logits_is_the_logarithm_of_the_classes():
    for smoothing in (0.0, 0.3):
        loss, logits = CrossEntropy(smoothing)(
            Logits(0.0, 0.0, 0.0, 0.0), torch.zeros(2, 3, 8, 8), torch.tensor([0, 3])
        )
        assert torch.allclose(loss, torch.tensor(4.0).log())
        assert logits.shape == (2, 4)


def test_the_parts_of_the_loss_are_weighed():
    class Features(nn.Module):
        def forward(self):
            return torch.tensor(10.0)

    def three(student, teacher, labels):
        return torch.tensor(3.0)

    objective = Distillation(Logits(1.0, 1.0), SPEC, SPEC, three, 0.25, hints=Features(), hint_weight=0.5)
    loss, _ = objective(Logits(0.0, 0.0), torch.zeros(1, 3, 8, 8), torch.tensor([0]))
    assert torch.allclose(loss, 0.25 * torch.tensor(2.0).log() + 0.75 * 3 + 0.5 * 10)


def test_the_teacher_is_no_part_of_the_objective():
    objective = Distillation(Logits(0.0, 1.0).train(), SPEC, SPEC, lambda *_: torch.zeros(()), 0.5)
    assert list(objective.parameters()) == []
    assert objective.state_dict() == {}


def test_the_same_normalisation_leaves_the_batch_untouched():
    seen = []

    class Seer(Logits):
        def forward(self, x):
            seen.append(x)
            return super().forward(x)

    images = torch.randn(1, 3, 8, 8)
    Distillation(Seer(0.0, 1.0), SPEC, SPEC, lambda *_: torch.zeros(()), 0.5).teach(images)
    assert seen[0] is images
