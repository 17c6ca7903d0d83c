import math

import torch

from micronet_cli.functional.distillation import soft_target_loss


def test_golden_two_classes():
    # Teacher (3/4, 1/4) at T = 2 from logits (2 ln 3, 0); student (1/2, 1/2): T^2 * KL.
    teacher = torch.tensor([[2 * math.log(3), 0.0]])
    wanted = 4 * (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5))
    assert math.isclose(soft_target_loss(torch.zeros(1, 2), teacher, 2.0).item(), wanted, rel_tol=1e-6)


def test_agreement_costs_nothing():
    logits = torch.randn(4, 7)
    assert soft_target_loss(logits, logits + 3, 4.0).abs() < 1e-5


def test_gradient_reaches_the_student_and_not_the_teacher():
    student, teacher = (torch.randn(4, 7, requires_grad=True) for _ in range(2))
    soft_target_loss(student, teacher, 2.0).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


def test_gradient_at_high_temperature_is_the_logit_difference():
    # Hinton et al., equation 4: (z - v) / classes for zero-meaned logits, times T^2.
    student = torch.tensor([[1.0, -1.0]], requires_grad=True)
    soft_target_loss(student, torch.tensor([[-1.0, 1.0]]), 1000.0).backward()
    assert torch.allclose(student.grad, torch.tensor([[1.0, -1.0]]), atol=1e-3)
