"""What can be compared, and which runs are looked at first: val chooses, the reported split is shown."""

from micronet_cli.explore.benchmarks import benchmarks


def a_run(top1, score, val=None, parent=None, **metrics):
    figures = {"stage": "prune", "status": "completed", "split": "test", "top1": top1, "micronet_score": score}
    if val is not None:
        figures["val_top1"] = val
    return {"metrics": figures | metrics, "config": {"data._target_": "a.Digits"}, "parent": parent}


def test_val_chooses_though_another_run_is_luckier_on_test():
    runs = [
        a_run(95.0, 0.004, val=95.5),
        a_run(96.0, 0.002, val=94.6, parent=0),
        a_run(94.0, 0.001, val=95.0, parent=0),
    ]
    (found,) = benchmarks(runs)
    assert (found["chosen_by"], found["not_compared"]) == ("val", 0)
    assert (found["best"], found["small"], found["dense"]) == (0, 2, 0)
    assert [run["front"] for run in runs] == [False, True, True]  # of what is reported


def test_a_collapsed_network_is_not_the_one_to_look_at():
    runs = [
        a_run(95.0, 0.004, val=95.0),
        a_run(94.5, 0.002, val=94.5, parent=0),
        a_run(10.0, 0.0001, val=10.0, parent=0),
    ]
    assert benchmarks(runs)[0]["small"] == 1


def test_runs_without_a_figure_of_val_are_counted_and_not_chosen():
    runs = [a_run(95.0, 0.004, val=95.0), a_run(99.0, 0.001)]
    (found,) = benchmarks(runs)
    assert (found["best"], found["not_compared"]) == (0, 1)


def test_the_reported_split_chooses_only_where_nothing_else_can():
    (found,) = benchmarks([a_run(95.0, 0.004), a_run(94.5, 0.002)])
    assert (found["chosen_by"], found["best"], found["small"]) == ("test", 0, 1)


def test_splits_are_benchmarks_of_their_own_and_the_largest_comes_first():
    runs = [a_run(95.0, 0.004), a_run(95.0, 0.004, split="val"), a_run(94.0, 0.003, split="val")]
    assert [found["name"] for found in benchmarks(runs)] == ["Digits, val; score", "Digits, test; score"]


def test_runs_that_did_not_end_or_have_no_figures_are_on_no_benchmark():
    runs = [a_run(95.0, 0.004, status="interrupted"), a_run("95.0", 0.004), a_run(float("nan"), 0.004)]
    assert benchmarks(runs) == []
    assert not any(run["front"] for run in runs)


def test_the_front_of_milliseconds_is_of_runs_that_were_measured_alike():
    alike = {"latency_batch_size": 1, "latency_threads": 1}
    runs = [
        a_run(95.0, 0.004, latency_ms=9.0, **alike),
        a_run(94.0, 0.001, latency_ms=12.0, **alike),  # the best by score is slow
        a_run(93.0, 0.002, latency_ms=3.0, **alike),
        a_run(99.0, 0.003, latency_ms=0.1, latency_batch_size=1, latency_threads=8),
        a_run(99.0, 0.005),
    ]
    benchmarks(runs)
    assert [run["latency_front"] for run in runs] == [True, False, True, False, False]


def test_runs_with_other_images_of_the_same_split_are_a_benchmark_of_their_own():
    runs = [a_run(95.0, 0.004, images=359), a_run(94.0, 0.003, images=359), a_run(99.0, 0.001, images=16)]
    first, second = benchmarks(runs)
    assert (first["name"], second["name"]) == ("Digits, test; score (359 images)", "Digits, test; score (16 images)")
    assert (first["best"], second["best"]) == (0, 2)
    assert [run["front"] for run in runs] == [True, True, True]


def held_back(run, **data):
    run["config"] |= {f"data.{key}": value for key, value in data.items()}
    return run


def test_trials_on_other_held_back_images_are_not_on_one_front():
    runs = [a_run(95.0, 0.004, split="val", images=144), a_run(96.0, 0.003, split="val", images=144)]
    held_back(runs[0], split_seed=0)
    held_back(runs[1], split_seed=1)
    names = [found["name"] for found in benchmarks(runs)]
    assert names == ["Digits, val; score (144 images, split_seed=0)", "Digits, val; score (144 images, split_seed=1)"]
    assert [run["front"] for run in runs] == [True, True]


def test_val_chooses_among_those_that_held_the_same_images_back():
    runs = [
        held_back(a_run(95.0, 0.004, val=95.0), val_fraction=0.1),
        held_back(a_run(94.0, 0.003, val=94.0), val_fraction=0.1),
        held_back(a_run(90.0, 0.002, val=99.0), val_fraction=0.01),
    ]
    (found,) = benchmarks(runs)
    assert (found["best"], found["chosen_by"], found["not_compared"]) == (0, "val", 1)
    # On the reported images all of them are compared.
    assert [run["front"] for run in runs] == [True, True, True]
