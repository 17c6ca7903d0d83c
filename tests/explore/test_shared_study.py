"""A study of several workers: each trial is run once, whoever is killed, whoever is faster."""

import subprocess
import sys

import pytest

from micronet_cli.errors import UserError
from micronet_cli.explore.shared_study import SharedStudy
from micronet_cli.explore.storage import open_storage
from micronet_cli.explore.worker import Place, Worker
from tests.explore.test_search import objectives, search

optuna = pytest.importorskip("optuna")
SETTINGS = {"trainer.epochs": 3, "data.train": "/here/images"}

# A worker; it is given its directory, the journal, how many trials it ends before it stops in one, and seconds a trial.
WORK = """
import sys, time
from pathlib import Path
from micronet_cli.explore.search import Search
from micronet_cli.explore.shared_study import SharedStudy
from micronet_cli.explore.worker import Heartbeat, Place

directory, storage, most, pause = sys.argv[1:]
place = Place(Path(directory) / "worker")
search = Search({"a": {"low": 0.0, "high": 1.0}}, trials=12, sampler="RandomSampler", objectives={"top1": "maximize"},
                storage=storage, grace_seconds=2)
study = SharedStudy(search, SharedStudy.storage(search), place.worker, 0, True, {})
print("ready", flush=True)
sys.stdin.readline()
ended = 0
with Heartbeat(study.beat, 0.1):
    while (proposal := study.next()) or study.others():
        if proposal is None:
            time.sleep(0.02)
            continue
        print(proposal.number, flush=True)
        time.sleep(float(pause))
        if ended == int(most):
            time.sleep(600)
        assert study.tell(proposal, [proposal.settings["a"]], {"number": proposal.number, "status": "completed"})
        ended += 1
"""


def joined(storage, worker, trials=6, joins=True, settings=SETTINGS, **options):
    own = search(trials, storage=str(storage), sampler="RandomSampler", **options)
    return SharedStudy(own, SharedStudy.storage(own), worker, 0, joins, settings)


def told(study, proposal, status="completed"):
    values = objectives(proposal.settings) if status == "completed" else None
    return study.tell(proposal, values, {"number": proposal.number, "status": status})


def work(study):
    numbers = []
    while (proposal := study.next()) is not None:
        numbers.append(proposal.number)
        assert told(study, proposal)
    return numbers


@pytest.fixture
def storage(tmp_path):
    return tmp_path / "study.journal"


@pytest.fixture(params=["journal", "sqlite"])
def any_storage(request, tmp_path):
    return {"journal": tmp_path / "study.journal", "sqlite": f"sqlite:///{tmp_path}/study.db"}[request.param]


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Number of trials, seconds of each -> a worker in a process of its own, waiting for a line."""
    started = []

    def begin(most, pause):
        directory = tmp_path / f"run{len(started)}"
        directory.mkdir()
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        arguments = [sys.executable, "-c", WORK, str(directory), str(tmp_path / "study.journal"), str(most), str(pause)]
        process = subprocess.Popen(arguments, **pipes)
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def test_two_processes_run_each_trial_once_and_one_takes_up_what_the_killed_one_had(start, tmp_path):
    first, second = start(2, 0), start(1000, 0.1)
    for process in (first, second):
        assert process.stdout.readline() == "ready\n"
    for process in (first, second):
        process.stdin.write("go\n")
        process.stdin.flush()
    by_first = [int(first.stdout.readline()) for _ in range(3)]
    first.kill()
    said, _ = second.communicate(timeout=60)
    by_second = [int(number) for number in said.split()]
    assert sorted(by_first[:2] + by_second) == list(range(12))
    assert by_first[2] in by_second

    storage = open_storage(str(tmp_path / "study.journal"), optuna)
    trials = optuna.load_study(study_name="search", storage=storage).get_trials()
    states = [trial.state.name for trial in trials]
    assert (states.count("COMPLETE"), states.count("FAIL")) == (12, 1)
    (lost,) = (trial for trial in trials if trial.state.name == "FAIL")
    assert lost.user_attrs["number"] == by_first[2]
    assert lost.params in [trial.params for trial in trials if trial.state.name == "COMPLETE"]


def test_workers_share_the_trials(any_storage):
    first, second = joined(any_storage, Worker("a", "/a")), joined(any_storage, Worker("b", "/b"))
    asked = [study.next() for study in (first, second) * 3]
    assert [proposal.number for proposal in asked] == list(range(6))
    assert len({proposal.settings["a"] for proposal in asked}) == 6
    assert first.next() is second.next() is None
    assert first.others().keys() == set(range(6))
    for study, proposal in zip((first, second) * 3, asked, strict=True):
        assert told(study, proposal)
    assert first.others() == second.others() == {}
    assert first.ended() == second.ended()
    assert first.front() == second.front()
    assert second.homes() == {number: {"directory": f"/a/{number}"} for number in (0, 2, 4)}


def test_settings_do_not_depend_on_who_proposes_them(storage, tmp_path):
    alone = joined(tmp_path / "alone.journal", Worker("c", "/c"))
    first, second = joined(storage, Worker("a", "/a")), joined(storage, Worker("b", "/b"))
    together = [study.next().settings for study in (first, second) * 3]
    assert [alone.next().settings for _ in range(6)] == together


def test_two_that_ask_for_the_last_trial_at_once_run_one(storage, monkeypatch):
    first, second = joined(storage, Worker("a", "/a"), 1), joined(storage, Worker("b", "/b"), 1)
    # Both have seen that there is none yet.
    answers = iter([False, True])
    monkeypatch.setattr(second, "_is_enough", lambda: next(answers))
    proposal = first.next()
    assert second.next() is None
    assert told(first, proposal)
    assert sorted(first.ended()) == [0]
    more = joined(storage, Worker("c", "/c"), 3)
    assert work(more) == [1, 2]


def test_two_that_take_up_the_same_trial_run_it_once(storage, monkeypatch):
    first, second = joined(storage, Worker("a", "/a"), 1), joined(storage, Worker("b", "/b"), 1)
    first.give_back(first.next())
    for number, attempts in first._attempts().items():
        first._queue(number, attempts)
        second._queue(number, attempts)
    proposal = first.next()
    assert second.next() is None
    assert told(first, proposal)
    assert work(second) == []
    assert sorted(first.ended()) == [0]


def test_a_living_worker_keeps_its_trial_and_a_silent_one_loses_it(any_storage):
    now = [0.0]
    first, second = joined(any_storage, Worker("a", "/a"), 1), joined(any_storage, Worker("b", "/b"), 1)
    second._silence._clock = lambda: now[0]
    held = first.next()
    for _ in range(5):
        assert second.next() is None
        now[0] += 100
        first.beat()
    assert second.next() is None
    now[0] += 120
    again = second.next()
    assert (again.number, again.settings) == (held.number, held.settings)
    # It comes back, and finds its trial taken.
    assert not told(first, held)
    assert told(second, again)
    assert first.next() is None
    assert first.homes() == {0: {"directory": "/b/0"}}


def test_a_worker_that_sleeps_as_it_begins_a_trial_goes_on_with_it_as_a_new_attempt(storage, monkeypatch):
    first, second = joined(storage, Worker("a", "/a"), 1), joined(storage, Worker("b", "/b"), 1)
    ask = first.study.ask

    def ask_and_sleep(space):
        monkeypatch.setattr(first.study, "ask", ask)
        trial = ask(space)
        assert second._end(trial)
        for number, attempts in second._attempts().items():
            second._queue(number, attempts)
        return trial

    monkeypatch.setattr(first.study, "ask", ask_and_sleep)
    assert work(first) == [0]
    assert work(second) == []


def test_a_trial_that_nobody_has_signed_is_run_again(storage):
    now = [0.0]
    study = joined(storage, Worker("a", "/a"), 1)
    study._silence._clock = lambda: now[0]
    study.study.ask()  # and killed there
    assert study.next() is None
    assert study.others() == {0: "a worker that has just begun"}
    now[0] = 120
    assert study.next().number == 0


def test_a_worker_that_goes_on_has_its_own_trial_at_once_and_no_other_s(storage):
    other = joined(storage, Worker("b", "/b"), 2)
    theirs = other.next()
    own = joined(storage, Worker("a", "/a"), 2).next()
    again = joined(storage, Worker("a", "/elsewhere"), 2)
    assert again.next().number == own.number
    assert again.next() is None
    assert told(other, theirs)


def test_what_failed_is_tried_again_by_the_next_that_joins(storage):
    first = joined(storage, Worker("a", "/a"), 1)
    assert told(first, first.next(), "failed")
    assert first.next() is None
    assert first.others() == {}
    assert work(joined(storage, Worker("b", "/b"), 1)) == [0]


def test_chosen_networks_of_others_are_found_where_they_are_seen(storage, tmp_path):
    place = Place(tmp_path / "worker")
    first = joined(storage, place.worker, 2)
    work(first)
    second = joined(storage, Worker("b", "/b"), 2)
    assert second.home(1, tmp_path / "own") == tmp_path / "1"
    assert first.home(1, tmp_path / "moved") == tmp_path / "moved" / "1"
    second.report(1, {"test_top1": 3.0})
    assert first.reported(1) == {"test_top1": 3.0}
    assert first.reported(0) == {}
    (tmp_path / "worker").write_text("another machine's directory of the same name")
    assert second.home(1, tmp_path / "own") is None
    place.close()


def test_a_study_that_is_there_is_joined_only_when_asked(storage):
    joined(storage, Worker("a", "/a"), joins=False)
    with pytest.raises(UserError, match=r"search\.storage=.*: holds a study already; resume=true joins it"):
        joined(storage, Worker("b", "/b"), joins=False)


def test_another_search_does_not_join(storage):
    joined(storage, Worker("a", "/a"))
    with pytest.raises(UserError, match=r"trainer\.epochs=4: the study in .* has 3; give what it has, or another"):
        joined(storage, Worker("b", "/b"), settings=SETTINGS | {"trainer.epochs": 4})
    with pytest.raises(UserError, match=r"search\.split=test: the study in .* has val"):
        joined(storage, Worker("b", "/b"), split="test")
    # Files may lie elsewhere on each machine.
    assert joined(storage, Worker("b", "/b"), settings=SETTINGS | {"data.train": "/there/images"}).next()
