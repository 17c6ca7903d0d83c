"""The page's arithmetic: axes without outliers, ticks of a logarithmic axis, labels that do not lie on each other."""

import json
import shutil
import subprocess
from itertools import pairwise

import pytest

from micronet_cli.explore.run_report import PAGE

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="needs node on PATH")


def evaluated(expression):
    """What ``expression`` gives below places.js."""
    script = f"{(PAGE / 'places.js').read_text()}\nconsole.log(JSON.stringify({expression}));"
    shown = subprocess.run([NODE, "-e", script], capture_output=True, text=True, timeout=60, check=True)
    return json.loads(shown.stdout)


def test_a_collapsed_network_does_not_squash_the_axis():
    assert evaluated("withoutOutliers([95, 96, 94, 95.5, 93, 10, 94.5], 3)") == [93, 96]
    assert evaluated("withoutOutliers([95, 10], 3)") == [10, 95]  # too few to tell
    assert evaluated("withoutOutliers([], 3)") == [0, 1]
    assert evaluated("withoutOutliers([95, 95, 95, 95, 95, NaN], 3)") == [95, 95]


def test_ticks_are_read_at_a_glance():
    assert evaluated("logTicks([Math.log10(0.0004), Math.log10(0.006)])") == [0.0005, 0.001, 0.002, 0.005]


def test_labels_do_not_lie_on_each_other_nor_on_points():
    points = [{"x": 100 + 4 * i, "y": 100, "text": str(i + 10)} for i in range(20)]
    sides = evaluated(f"placeLabels({json.dumps(points)})")
    assert sides[0] == "top center"  # the first chooses first
    assert None in sides  # there is no room for all of them
    for side in ("top center", "bottom center"):
        places = [point["x"] for point, own in zip(points, sides, strict=True) if own == side]
        gaps = [later - earlier for earlier, later in pairwise(places)]
        assert all(gap >= 14 for gap in gaps)  # as wide as two letters


def test_a_point_without_a_text_has_no_label():
    assert evaluated('placeLabels([{"x": 0, "y": 0, "text": ""}])') == [None]
