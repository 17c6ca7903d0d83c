"""Guards what ``stage=train`` checks before the heavy work: teachers, processes, packed networks."""

from types import SimpleNamespace

import pytest

from micronet_cli.errors import UserError
from micronet_cli.stages import train
from micronet_cli.stages.train import check_teacher
from tests.conftest import TINY


def job_of(trained=False, init_from=None, weights=None, pretrained=False):
    distill = SimpleNamespace(teacher=SimpleNamespace(trained=trained))
    model = SimpleNamespace(weights=weights, pretrained=pretrained)
    return SimpleNamespace(parts=SimpleNamespace(distill=distill, model=model), init_from=init_from)


STUDENTS = {
    "a run": {"init_from": "runs/a"},
    "a file": {"weights": "x.pth"},
    "the hub": {"pretrained": True},
}


@pytest.mark.parametrize("student", STUDENTS.values(), ids=STUDENTS.keys())
def test_trained_student_needs_a_trained_teacher(student):
    with pytest.raises(UserError, match=r"^distill\.teacher\.weights=None: a trained student needs a trained teacher"):
        check_teacher(job_of(**student))
    check_teacher(job_of(trained=True, **student))


def test_dry_run_without_weights_is_warned_of(caplog):
    check_teacher(job_of())
    assert "a dry run: neither the teacher nor the student has trained weights" in caplog.text


def test_no_teacher_needs_no_weights():
    check_teacher(SimpleNamespace(parts=SimpleNamespace(distill=None, model=None)))


def test_batch_is_shared_evenly_by_the_processes(mistake, monkeypatch):
    monkeypatch.setattr(train, "distributed", SimpleNamespace(world_size=lambda: 3))
    said = mistake("stage=train", *TINY, "data.batch_size=64")
    assert "data.batch_size=64: 3 processes need a multiple of 3" in said
