"""The report on made-up run directories: what is found, what is read, what the page holds and what a browser shows."""

import json
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser

import pytest

from micronet_cli.errors import UserError
from micronet_cli.explore.run_report import find_runs, html, read_runs
from tests.conftest import metrics_of

HOSTILE = "</script><img src=x onerror=alert(1)>'\"&amp;"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update",
    "--disable-background-networking", "--disable-sync", "--virtual-time-budget=5000", "--dump-dom",
)  # fmt: skip


def write_run(directory, top1=None, score=None, status="completed", **more):
    directory.mkdir(parents=True)
    metrics = {"stage": "prune", "status": status, "top1": top1, "micronet_score": score, "split": "test"} | more
    (directory / "metrics.json").write_text(json.dumps(metrics))
    return directory


@pytest.fixture
def runs(tmp_path):
    """Five runs of every kind, one broken, one an earlier run's leavings."""
    root = tmp_path / "outputs"
    dense = write_run(root / "pipeline" / "1_train", 90.0, 0.02, stage="train", versions={"torch": "2"})
    (dense / "config.yaml").write_text("optim: {lr: 0.1, betas: [1, 2]}\ndata: {_target_: a.Digits}\nquantize: {}\n")
    lines = [{"kind": "step", "step": i, "epoch": 0, "loss": 1 / i, "top1": None} for i in range(1, 1001)]
    lines += [{"kind": "epoch", "step": 1000, "epoch": 0, "val_top1": 90.0}]
    (dense / "history.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines) + '{"kind": "ste')
    (dense / "layers.csv").write_text(
        "layer,storage_params,math_ops,bits,sparsity\nconv1,10.0,100.0,4x32,0.5\nrelu,0.0,5.0,32,\n"
    )
    pruned = write_run(root / "sweep" / "2", 92.0, 0.01, overrides=["optim.lr=0.1", "seed=1"])
    (pruned / "config.yaml").write_text(f"data: {{_target_: a.Digits}}\ninit_from: {dense}\n")
    worse = write_run(root / "sweep" / "10", 91.0, 0.015, overrides=["optim.lr=0.2", "seed=1"], loss=float("nan"))
    (worse / "config.yaml").write_text("data: {_target_: a.Digits}\n")
    write_run(root / "stopped", status="interrupted")
    crashed = write_run(root / "crashed", status="failed")
    (crashed / "layers.csv").write_text("layer,storage_params\n")  # it had begun
    (crashed / "checkpoints").mkdir()
    write_run(root / "sweep" / "2" / "previous", 1.0, 1.0)
    write_run(root / "page", stage="report")
    (root / "broken").mkdir()
    (root / "broken" / "metrics.json").write_text('{"top1": 9')
    (root / "list").mkdir()
    (root / "list" / "metrics.json").write_text("[1]")
    return root


def found_in(root):
    return read_runs(find_runs(f"{root}/**"))


def test_nested_runs_are_found_in_natural_order(runs):
    names = [run["name"] for run in found_in(runs).runs]
    assert names == ["crashed", "pipeline/1_train", "stopped", "sweep/2", "sweep/10"]


@pytest.mark.parametrize("pattern", ["", "/", "/sweep", "/*", "/**", "/sweep/*", "/sweep/**/metrics.json"])
def test_any_pattern_leaves_previous_out(runs, pattern):
    found = [path.relative_to(runs).as_posix() for path in find_runs(f"{runs}{pattern}")]
    assert {"sweep/2", "sweep/10"} <= set(found)
    assert len(found) == len(set(found))
    assert not [name for name in found if "previous" in name]


def test_no_runs_is_a_mistake(tmp_path):
    with pytest.raises(UserError, match=r"no metrics\.json there"):
        find_runs(f"{tmp_path}/*")


def test_broken_files_are_listed(runs):
    (runs / "sweep" / "2" / "config.yaml").write_text("a: [1")
    (runs / "sweep" / "2" / "layers.csv").write_text("nothing\n1\n")
    problems = found_in(runs).problems
    assert {path.removeprefix(str(runs)) for path in problems} == {
        "/broken/metrics.json", "/list/metrics.json", "/sweep/2/config.yaml", "/sweep/2/layers.csv",
    }  # fmt: skip
    assert all(problems.values())


def test_odd_metrics_do_not_take_the_others_with_them(runs):
    for name, odd in (("odd", {"overrides": 5}), ("huge", {"top1": 10**400, "micronet_score": 0.1})):
        (runs / name).mkdir()
        (runs / name / "metrics.json").write_text(json.dumps({"stage": "eval", "status": "completed"} | odd))
    found = found_in(runs)
    assert found.problems[f"{runs}/odd/metrics.json"] == "overrides: must be a list"
    assert [run["benchmark"] for run in found.runs if run["name"] == "huge"] == [None]
    assert len(found.runs) == 6


def test_front_is_of_completed_runs_of_one_benchmark(runs):
    write_run(runs / "half", 99.0, 0.001, status="interrupted")
    write_run(runs / "text", "99.0", 0.001)
    write_run(runs / "nan", float("nan"), 0.001)
    other = write_run(runs / "other", 10.0, 0.5)
    (other / "config.yaml").write_text("data: {_target_: a.ImageFolder, test: /x/val.tar}\n")
    found = {run["name"]: run for run in found_in(runs).runs}
    assert {name for name, run in found.items() if run["front"]} == {"sweep/2", "other"}
    assert found["half"]["benchmark"] is None
    assert found["other"]["benchmark"].startswith("ImageFolder val.tar, test")


def test_commands_that_were_refused_are_no_runs(runs):
    write_run(runs / "refused", status="failed", reason="data.train: missing", overrides=["data=imagefolder"])
    found = found_in(runs)
    assert found.refused == [
        {"name": "refused", "overrides": ["data=imagefolder"], "reason": "data.train: missing"},
    ]
    assert "refused" not in [run["name"] for run in found.runs]


class Page(HTMLParser):
    """Tags, what they would load, and the data inside the page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.loads, self.labels, self.ids, self._data = [], [], [], set(), None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        self.ids.add(attributes.get("id"))
        self.loads += [v for k, v in attrs if k in ("src", "href", "data", "action", "poster", "srcset")]
        self._data = attributes.get("id") == "data"

    def handle_data(self, text):
        if self._data:
            self.data = json.loads(text)
            self._data = False


def test_page_is_one_file_that_loads_nothing(runs):
    text = html(found_in(runs), "outputs/**")
    page = Page(text)
    assert page.loads == []
    assert page.tags.count("script") == 6
    assert "default-src 'none'" in text
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL).group(1)
    assert "@import" not in style
    assert "url(" not in style
    assert text.count("plotly.js v") == 1


def test_page_holds_what_was_read(runs):
    page = Page(html(found_in(runs), "outputs/**"))
    assert page.data["pattern"] == "outputs/**"
    metrics = {run["name"]: run["metrics"] for run in page.data["runs"]}
    assert metrics["sweep/10"]["loss"] is None  # NaN is no JSON
    assert metrics["stopped"]["status"] == "interrupted"
    assert metrics["crashed"]["status"] == "failed"
    assert len(page.data["problems"]) == 2


def test_hostile_text_stays_text(runs):
    write_run(runs / "evil", 50.0, 0.03, stage=HOSTILE, overrides=[f"name={HOSTILE}"])
    calm, text = Page(html(found_in(runs), "x")), html(found_in(runs), HOSTILE)
    assert Page(text).tags == calm.tags
    assert Page(text).data["pattern"] == HOSTILE
    assert "<img" not in text


def test_stage_writes_the_page_into_its_run(micronet, runs):
    run = micronet("stage=report", f"runs={runs}/**")
    assert len(Page((run / "report.html").read_text()).data["runs"]) == 5
    metrics = metrics_of(run)
    assert (metrics["stage"], metrics["status"], metrics["runs"], metrics["unreadable"]) == (
        "report",
        "completed",
        5,
        2,
    )


def test_nothing_to_report_touches_nothing(mistake, tmp_path):
    assert "no metrics.json there" in mistake("stage=report", f"runs={tmp_path}/none*")
    assert not (tmp_path / "run0" / "metrics.json").exists()


# What a reader does: sort by top-1 twice, then filter; the rows after each go to the end of the page.
READER = """<script>
const rows = () => [...document.querySelectorAll("#runs tbody th button")].map(button => button.textContent);
const heads = () => [...document.querySelectorAll("#runs thead button")];
const press = () => heads().find(button => button.textContent.startsWith("top")).click();
const seen = {};
seen.first = rows(); press(); seen.up = rows(); press(); seen.down = rows();
filter.value = "sweep lr=0.2"; filter.oninput(); seen.filtered = rows();
seen.points = document.getElementById("front").data[1].x.length;
filter.value = ""; filter.oninput();
seen.about = [...document.querySelectorAll("#runs tbody th small")].map(small => small.textContent);
seen.cards = [...document.querySelectorAll("#cards dd")].map(card => card.firstChild.textContent);
document.getElementById("helpers").click(); seen.helped = rows().length;
seen.jump = document.documentElement.scrollWidth - document.documentElement.clientWidth;
document.body.append(Object.assign(document.createElement("output"), {textContent: JSON.stringify(seen)}));
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium on PATH")
def test_browser_draws_sorts_and_filters_without_errors(runs, tmp_path):
    write_run(runs / "zz <b>evil</b> & co", 50.0, 0.03, overrides=[f"name={HOSTILE}"])
    write_run(runs / "zz score", stage="score")
    page = tmp_path / "report.html"
    page.write_text(html(found_in(runs), HOSTILE) + READER)
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path}/profile", f"file://{page}#b=4"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert "data-errors" not in re.search(r"<html[^>]*>", shown).group()
    assert shown.count('class="main-svg"') >= 3
    assert "<img" not in shown
    seen = json.loads(unescape(re.search(r"<output>(.*?)</output>", shown).group(1)))
    assert seen["first"] == [run["name"] for run in found_in(runs).runs if run["name"] != "zz score"]
    # What is missing comes last, whichever way the column is sorted.
    ups = ["zz <b>evil</b> & co", "pipeline/1_train", "sweep/10", "sweep/2"]
    assert seen["up"] == [*ups, "crashed", "stopped"]
    assert seen["down"] == [*ups[::-1], "crashed", "stopped"]
    assert seen["filtered"] == ["sweep/10"]
    assert seen["points"] == 1
    # The pair is the chosen small network and the dense one that it came from.
    assert "prune \u00b7 from 2 \u00b7 lr=0.1" in seen["about"]
    assert seen["cards"] == ["7", "92.00", "0.01000", "\u2013"]
    assert seen["helped"] == len(seen["first"]) + 1
    assert seen["jump"] == 0  # nothing is wider than the window
