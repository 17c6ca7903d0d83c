"""Guards the rows of the post-training benchmark: the figures by hand, the table."""

import math
from dataclasses import replace

import numpy as np
import pytest
from finished_rows import Row
from post_training_rows import COLUMNS, Task, fidelity, table

TASK = Task("lite0", weight_bits=4, activation_bits=8, method="default", seed=0, source="abc1234")
FIGURES = {"top1": 80.0, "drop": -4.0, "agreement": 90.0, "error_db": -20.0, "processor_seconds": 9.0, "peak_mb": 700.0}


def test_fidelity_by_hand():
    in_float = np.array([[3.0, 0.0], [0.0, 4.0], [5.0, 0.0], [0.0, 1.0]], np.float32)
    logits = np.array([[3.0, 0.0], [0.0, 4.0], [4.0, 0.0], [0.5, 0.0]], np.float32)
    found = fidelity(logits, in_float, labels=np.array([0, 1, 1, 1]))
    assert (found.top1, found.drop, found.agreement) == (50.0, -25.0, 75.0)
    assert found.error_db == pytest.approx(10 * math.log10((1 + 0.25 + 1) / (9 + 16 + 25 + 1)))


def test_equal_logits_have_no_error():
    logits = np.eye(3, dtype=np.float32)
    found = fidelity(logits, logits, labels=np.arange(3))
    assert (found.drop, found.agreement, found.error_db) == (0.0, 100.0, -math.inf)


def test_table_has_mean_and_deviation_over_seeds_and_the_largest_memory():
    other = FIGURES | {"top1": 82.0, "drop": -2.0, "peak_mb": 900.0}
    (line,) = table([Row(TASK, FIGURES), Row(replace(TASK, seed=1), other)])
    assert len(line) == len(COLUMNS)
    assert line[:5] == ["lite0 w4a8", "default", "0, 1", "81.00 ± 1.41", "-3.00 ± 1.41"]
    assert line[-2:] == ["900", ""]


def test_table_says_why_a_method_failed_and_counts_only_what_it_did():
    failed = [Row(replace(TASK, method="peer", seed=seed), {}, "a|b") for seed in (0, 1)]
    done = Row(replace(TASK, method="peer", seed=2), FIGURES)
    assert table(failed) == [["lite0 w4a8", "peer", "0, 1", "", "", "", "", "", "", "a/b"]]
    assert table([*failed, done])[0][3:5] == ["80.00", "-4.00"]
