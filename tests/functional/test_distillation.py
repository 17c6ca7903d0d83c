"""Distillation losses by hand, and whom their gradients reach."""

import math

import torch

from micronet_cli.functional.distillation import decoupled_loss, hint_loss, soft_target_loss


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


def test_decoupled_is_hintons_loss_at_the_teachers_own_weights():
    # Equation 6: KD = TCKD + (1 - p_t) NCKD, here for one image.
    student, teacher, labels = torch.randn(1, 5), torch.randn(1, 5), torch.tensor([2])
    p_target = torch.softmax(teacher / 3.0, 1)[0, 2].item()
    found = decoupled_loss(student, teacher, labels, 3.0, 1.0, 1 - p_target)
    assert torch.allclose(found, soft_target_loss(student, teacher, 3.0), atol=1e-5)


def test_golden_decoupled_parts():
    # Teacher (1/2, 1/4, 1/4), student uniform, label 0: the others agree, the split is (1/2, 1/2) to (1/3, 2/3).
    teacher, student = torch.tensor([[2.0, 1.0, 1.0]]).log(), torch.zeros(1, 3)
    label = torch.tensor([0])
    wanted = 0.5 * math.log(0.5 / (1 / 3)) + 0.5 * math.log(0.5 / (2 / 3))
    assert math.isclose(decoupled_loss(student, teacher, label, 1.0, 1.0, 0.0).item(), wanted, rel_tol=1e-5)
    assert abs(decoupled_loss(student, teacher, label, 1.0, 0.0, 1.0).item()) < 1e-6


def test_golden_hint_is_half_the_mean_square_of_what_is_left_after_pooling():
    student = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]])
    assert hint_loss(student, torch.tensor([[[[2.0]]]])).item() == 2.0
    assert hint_loss(student, student).item() == 0.0
