"""Numbered trials and their attempts, as every worker works them out from Optuna's order of trials."""

from types import SimpleNamespace

from micronet_cli.explore import attempts


def trial(place, state, **told):
    params = told.pop("params", {})
    system = {"fixed_params": told.pop("fixed")} if "fixed" in told else {}
    named = SimpleNamespace(name=state)
    return SimpleNamespace(number=place, state=named, user_attrs=told, params=params, system_attrs=system)


def test_a_new_trial_has_the_next_number_before_its_worker_has_written_it():
    trials = [
        trial(0, "FAIL"),
        trial(1, "COMPLETE", number=1),
        trial(2, "WAITING", number=0),
        trial(4, "RUNNING"),
        trial(3, "RUNNING"),
    ]
    found = attempts.by_number(trials)
    assert {number: [each.number for each in group] for number, group in found.items()} == {
        0: [0, 2],
        1: [1],
        2: [3],
        3: [4],
    }


def test_what_was_dropped_keeps_its_number_and_counts_for_nothing():
    found = attempts.by_number([trial(0, "COMPLETE"), trial(1, "FAIL", number=0, dropped=True), trial(2, "RUNNING")])
    assert [each.number for each in found[0]] == [0]
    assert attempts.state(found[0]) == "COMPLETE"
    assert list(found) == [0, 1]


def test_state_is_that_of_the_attempt_that_came_furthest():
    assert attempts.state([trial(0, "FAIL"), trial(1, "WAITING")]) == "WAITING"
    assert attempts.state([trial(0, "RUNNING"), trial(1, "WAITING")]) == "RUNNING"
    assert attempts.state([trial(0, "FAIL"), trial(1, "COMPLETE")]) == "COMPLETE"
    assert attempts.state([trial(0, "FAIL"), trial(1, "FAIL")]) == "FAIL"


def test_what_failed_was_not_cut_short():
    failed = trial(0, "FAIL", note={"status": "failed"})
    assert not attempts.was_cut_short([failed])
    assert attempts.was_cut_short([failed, trial(1, "FAIL")])
    assert not attempts.was_cut_short([failed, trial(1, "WAITING")])
    # Its worker was killed between the note and the objectives.
    assert attempts.was_cut_short([trial(0, "FAIL", note={"status": "completed"})])


def test_the_later_of_two_that_were_queued_at_once_is_needless():
    first, second = trial(1, "WAITING"), trial(2, "RUNNING")
    assert attempts.is_needless(second, [trial(0, "FAIL"), first, second])
    assert not attempts.is_needless(second, [trial(0, "FAIL"), trial(1, "FAIL"), second])
    assert not attempts.is_needless(first, [trial(0, "FAIL"), first, second])


def test_settings_are_the_last_ones_that_were_chosen():
    begun = trial(0, "FAIL", params={"a": 1})
    assert attempts.settings([begun, trial(1, "FAIL")]) == {"a": 1}
    assert attempts.settings([trial(0, "FAIL"), trial(1, "WAITING", fixed={"a": 2})]) == {"a": 2}
    assert attempts.settings([trial(0, "FAIL")]) == {}
