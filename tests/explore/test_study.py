"""The study: proposals that can be gone on with, and the front of what was told."""

import pytest

from micronet_cli.errors import UserError
from micronet_cli.explore.study import Study
from tests.explore.test_search import go_on, objectives, search


def test_ranges_of_whole_numbers_stay_whole(tmp_path):
    space = {"a": {"low": 2, "high": 8, "step": 2}, "b": {"low": 1e-4, "high": 1e-1, "log": True}}
    study = Study(search(space=space), tmp_path / "study.db", 0)
    asked = [study.next().settings for _ in range(4)]
    assert all(settings["a"] in (2, 4, 6, 8) for settings in asked)
    assert all(1e-4 <= settings["b"] <= 1e-1 for settings in asked)
    assert len({settings["b"] for settings in asked}) == 4


@pytest.mark.parametrize(
    "sampler",
    [
        "TPESampler",
        *(pytest.param(f"{name}Sampler", marks=pytest.mark.slow) for name in ("NSGAII", "NSGAIII", "QMC", "Random")),
    ],
)
def test_a_study_gone_on_with_proposes_the_same(tmp_path, sampler):
    own = search(12, sampler=sampler)
    whole = go_on(Study(own, tmp_path / "whole.db", 3))
    cut = go_on(Study(own, tmp_path / "cut.db", 3), 10)
    Study(own, tmp_path / "cut.db", 3).next()  # and killed there
    rest = go_on(Study(own, tmp_path / "cut.db", 3))
    assert cut + rest == whole
    assert [number for number, _ in whole] == list(range(12))
    assert go_on(Study(own, tmp_path / "whole.db", 3)) == []


def test_seed_decides(tmp_path):
    first, again, other = (go_on(Study(search(2), tmp_path / f"{i}.db", seed)) for i, seed in enumerate((1, 1, 2)))
    assert first == again != other


def test_failed_trials_come_again_and_more_can_be_asked_for(tmp_path):
    study = Study(search(2), tmp_path / "study.db", 0)
    failed = study.next()
    study.tell(failed, None, {"number": 0})
    go_on(study)
    again = go_on(Study(search(3), tmp_path / "study.db", 0))
    assert again[0] == (0, failed.settings)
    assert [number for number, _ in again] == [0, 2]


def test_front_holds_what_nothing_beats(tmp_path):
    study = Study(search(6), tmp_path / "study.db", 0)
    asked = dict(go_on(study))
    front = study.front()
    x = [number for number, settings in asked.items() if settings["b"] == "x"]
    assert set(x) <= set(front)
    assert [asked[number]["a"] for number in front] == sorted((asked[n]["a"] for n in front), reverse=True)
    for number in set(asked) - set(front):
        top1, score = objectives(asked[number])
        assert any(objectives(asked[n])[0] >= top1 and objectives(asked[n])[1] <= score for n in x)


def test_a_study_of_something_else_is_not_gone_on_with(tmp_path):
    Study(search(), tmp_path / "study.db", 0)
    with pytest.raises(UserError, match=r"search\.objectives: the study in .*study\.db' has another"):
        Study(search(objectives={"top1": "maximize", "loss": "minimize"}), tmp_path / "study.db", 0)


def test_a_study_told_of_one_split_is_not_gone_on_with_on_another(tmp_path):
    study = Study(search(), tmp_path / "study.db", 0)
    # As version 0.1.0 wrote it, which knew no split and was told figures of test.
    known = study.study.user_attrs["search"]
    del known["split"]
    study.study.set_user_attr("search", known)
    with pytest.raises(UserError, match=r"search\.split=val: the study in .*study\.db' has test; leave resume out"):
        Study(search(), tmp_path / "study.db", 0)
    assert Study(search(split="test"), tmp_path / "study.db", 0).next()
