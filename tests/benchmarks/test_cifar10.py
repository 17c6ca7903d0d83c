"""Guards the CIFAR-10 benchmark's rows: which there are, what keeps two apart, the table, and the line on scores."""

from argparse import Namespace
from dataclasses import replace

from cifar10 import COLUMNS, DENSE, Task, table, tasks, told
from cifar10_recipes import RECIPES
from finished_rows import Row

TASK = Task("micronet", seed=0, epochs=5, judged_by="test", extra="", source="abc1234")
FIGURES = {name: 1.0 for name, _ in COLUMNS.values()} | {"top1": 87.0, "micronet_score": 0.0006}
GIVEN = Namespace(hold_back=None, seeds=[0, 1], recipes=list(RECIPES), epochs=5, extra=[], source="abc1234")


def test_recipes_train_for_equally_many_epochs_in_all():
    stages = {len(recipe.stages) for recipe in RECIPES.values()}
    assert len(stages) == 1


def test_every_seed_comes_with_every_recipe_before_the_next_seed():
    planned = [(task.recipe, task.seed) for task in tasks(GIVEN)]
    assert planned == [(DENSE, 0), ("reference", 0), ("micronet", 0), ("reference", 1), ("micronet", 1)]


def test_rows_judged_otherwise_or_of_another_commit_lie_in_other_directories():
    others = [
        replace(TASK, seed=1),
        replace(TASK, epochs=1),
        replace(TASK, source="def5678"),
        replace(TASK, judged_by="500 a class held back"),
        replace(TASK, extra="data=other trainer.max_steps=2"),
    ]
    paths = {task.path for task in [TASK, *others]}
    assert len(paths) == 6
    assert all(len(path.parts) == 3 for path in paths)


def test_table_has_means_and_leaves_out_what_the_dense_network_does_not_have():
    rows = [
        Row(replace(TASK, recipe=DENSE), {"top1": 88.0}),
        Row(TASK, FIGURES),
        Row(replace(TASK, seed=1), FIGURES | {"top1": 87.5}),
    ]
    dense, micronet = table(rows)
    assert dense == [DENSE, "88.00", *[""] * (len(COLUMNS) - 1)]
    assert micronet[:2] == [RECIPES["micronet"].title, "87.25 ± 0.35"]


def test_scores_are_compared_where_both_recipes_were_run():
    micronet = Row(TASK, FIGURES)
    reference = Row(replace(TASK, recipe="reference"), FIGURES | {"micronet_score": 0.0024})
    assert "0.250 of the reference's" in told([micronet, reference], GIVEN)
    assert "of the reference's" not in told([micronet], GIVEN)
