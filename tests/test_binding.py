"""The binder itself: what it notes of dotted paths, and what a file may name. Values and mistakes: test_config.py."""

from collections.abc import Callable
from typing import Any

from micronet_cli.binding import Binder
from micronet_cli.functional.pruning import magnitude

MAGNITUDE = "micronet_cli.functional.pruning.magnitude"
PACKED_BYTES = {"_target_": "micronet_cli.functional.packing.packed_bytes", "count": 9, "base": 2}


def call_it(measure: Any = None, sizes: dict = {}, rows: list = []) -> dict:  # noqa: B006
    return {"measure": measure, "sizes": sizes, "rows": rows}


CALL_IT = f"{__name__}.call_it"


def test_every_path_that_is_followed_is_noted():
    binder = Binder()
    assert binder.build({"_target_": CALL_IT, "measure": PACKED_BYTES}, Any, "x")["measure"] == 2
    assert binder.named == [CALL_IT, PACKED_BYTES["_target_"]]
    assert binder.problems == []


def test_a_file_names_what_is_ours_or_trusted_alone():
    node = {"_target_": CALL_IT}
    binder = Binder(trust=[])
    assert binder.build(node, Any, "x") is None
    assert binder.refused == binder.problems
    assert "give trust=[tests]" in binder.refused[0]
    assert Binder(trust=["tests"]).build(node, Any, "x")["rows"] == []
    assert Binder(trust=[]).build(PACKED_BYTES, Any, "x") == 2


def test_items_of_a_list_are_bound_and_those_of_a_bare_mapping_kept():
    node = {"_target_": CALL_IT, "sizes": {"a": PACKED_BYTES}, "rows": [PACKED_BYTES]}
    built = Binder().build(node, Any, "x")
    assert built["sizes"] == {"a": PACKED_BYTES}
    assert built["rows"] == [2]


def test_unknown_keys_are_told_in_their_order_beside_other_mistakes():
    binder = Binder()
    node = {"_target_": PACKED_BYTES["_target_"], "zeta": 1, "count": "x", "alpha": 2}
    assert binder.build(node, Any, "x") is None
    said = [problem.partition(":")[0] for problem in binder.problems]
    assert said == ["x.zeta", "x.alpha", "x.count='x'", "x.base"]


def test_a_function_by_its_path_is_the_function():
    assert Binder().build(MAGNITUDE, Callable[..., Any], "x") is magnitude
