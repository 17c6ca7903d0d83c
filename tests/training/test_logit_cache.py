"""The teacher's logits, remembered; and its own precision."""

import pytest
import timm
import torch
from torch import nn

from micronet_cli.models import cifar_resnet  # noqa: F401  registers its networks
from micronet_cli.models.model import InputSpec
from micronet_cli.training.distill import SoftTargets, Teacher
from micronet_cli.training.hints import Hint
from micronet_cli.training.logit_cache import LogitCache
from micronet_cli.training.objectives import Distillation

SPEC = InputSpec((3, 8, 8), (0.5,) * 3, (0.5,) * 3)


class Teach:
    """Sums, and how many images were asked for."""

    def __init__(self) -> None:
        self.asked = []

    def __call__(self, images):
        self.asked.append(len(images))
        return torch.stack([images.flatten(1).sum(1), -images.flatten(1).sum(1)], 1)


def test_only_unknown_images_are_computed_and_rows_stay_in_order():
    teach = Teach()
    cache, images = LogitCache(teach, 1 << 20), torch.randn(6, 3, 4, 4)
    first = cache(images[:4])
    mixed = cache(images[[5, 1, 4, 0]])
    again = cache(images[:4])
    assert teach.asked == [4, 2]
    assert torch.equal(mixed, Teach()(images[[5, 1, 4, 0]]))
    assert torch.equal(again, first)
    assert (cache.hits, cache.misses) == (6, 6)


def test_an_image_changed_in_one_bit_is_another():
    teach = Teach()
    cache, images = LogitCache(teach, 1 << 20), torch.ones(1, 3, 4, 4)
    cache(images)
    images[0, 2, 3, 3] = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))
    cache(images)
    assert teach.asked == [1, 1]


def test_a_full_cache_remembers_nothing_new():
    teach = Teach()
    cache, images = LogitCache(teach, 2 * 8), torch.randn(3, 3, 4, 4)  # two rows of two floats
    cache(images)
    cache(images)
    assert teach.asked == [3, 1]


def test_loss_is_the_same_with_and_without():
    torch.manual_seed(0)
    student, teacher = timm.create_model("resnet8"), timm.create_model("resnet8")
    images, labels = torch.randn(16, 3, 8, 8), torch.randint(10, (16,))
    loss = SoftTargets(Teacher("resnet8")).logit_loss
    plain, cached = (Distillation(teacher, SPEC, SPEC, loss, 0.3, cache_bytes=size) for size in (0, 1 << 20))
    student.eval()
    wanted = plain(student, images, labels)[0]
    for _ in range(2):
        assert torch.equal(cached(student, images, labels)[0], wanted)


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


def test_hints_and_a_cache_exclude_each_other():
    with pytest.raises(ValueError, match=r"teacher\.cache_mb=1: hints need"):
        SoftTargets(Teacher("resnet8", cache_mb=1), hints={"a": Hint("layer1", "layer1")})
