"""Guards the documentation: the site builds offline, its Python runs, its command lines compose and bind."""

import doctest
import inspect
import itertools
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import open_dict

from micronet_cli.command.cli import free_key
from micronet_cli.config import SETTINGS, check_config
from micronet_cli.dotted_path import locate
from micronet_cli.overrides import group_names, options_of
from micronet_cli.stages.inherit import DEFAULT_MODEL, inherited
from micronet_cli.stages.node import stage_module
from tests.conftest import TINY

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CONFIGS = sorted((ROOT / "conf").rglob("*.yaml"))
# What stands for a run's directory.
AN_EXPORT = re.compile(r"=EXPORT/model\.mnet$")
A_RUN = re.compile(r"=(outputs/[\w/]+|<run>|RUN|PRUNED|SHRUNK|DENSE)$")


def code_blocks(text):
    """(language, code) of fenced and of indented blocks."""
    fenced = re.compile(r"^( *)```+ *(\w*)[^\n]*\n(.*?)^\1```+ *$", re.DOTALL | re.MULTILINE)
    for found in fenced.finditer(text):
        yield found[2], re.sub(f"(?m)^{found[1]}", "", found[3])
    rest = fenced.sub("\n", text)
    for found in re.finditer(r"(?:^    .*\n?)+", rest, re.MULTILINE):
        yield "", re.sub(r"(?m)^    ", "", found[0])


def command_lines(text):
    """Every ``micronet ...`` line as overrides; continued lines joined, a loop's variable is its first value."""
    loops = dict(re.findall(r"for (\w+) in (\S+)", text))
    for line in re.sub(r"\s*\\\n\s*", " ", text).splitlines():
        line = re.sub(r"\$(\w+)", lambda found: loops.get(found[1], found[0]), line).strip()
        if re.match(r"micronet( |$)", line) and not re.match(r"micronet:? [a-z]+[^=]*$", line):
            yield [word for word in shlex.split(line, comments=True)[1:] if "=" in word and word[0] != "-"]


@dataclass(frozen=True)
class Command:
    """A command line of a page."""

    page: Path
    overrides: list[str]

    @property
    def typed(self):
        return " ".join(self.overrides)

    def __str__(self):
        return f"{self.page.name}-{self.typed[:60]}"


# The page on a package of one's own: tests/test_extending.py runs it, outside the repository.
OWN_PACKAGE = ROOT / "docs" / "extending.md"


def commands():
    for page in PAGES:
        if page == OWN_PACKAGE:
            continue
        for _, code in code_blocks(page.read_text()):
            for overrides in command_lines(code):
                yield Command(page, overrides)
    for path in CONFIGS:
        comments = "\n".join(re.findall(r"(?m)^# ?(.*)", path.read_text()))
        for overrides in command_lines(comments):
            yield Command(path, overrides)


COMMANDS = list({command.typed: command for command in commands()}.values())


# What the reader puts in; and options that the pages make or mistype themselves.
LEFT_OPEN = re.compile(r"<\w+>|\.\.\.|^$")
EXAMPLES = {"mine", "budget", "count", "prunne"}


def inline_overrides(text):
    """Every ``key=value`` of a code span of the prose, as a shell would hand it over; other code is left out."""
    prose = re.sub(r"(?ms)^( *)```.*?^\1```", "", text)
    for span in re.findall(r"`([^`\n]+)`", prose):
        try:
            words = shlex.split(span)
        except ValueError:
            continue  # an apostrophe: no command line
        for word in words:
            key, equals, value = word.partition("=")
            first = re.split(r"[.@/]", key.lstrip("+"))[0]
            if equals and first in KEYS and not LEFT_OPEN.search(value):
                yield word


def parameters_of(group):
    """First keys below a group, of any of its options."""
    nodes = [DEFAULT_MODEL] if group == "model" else []
    for path in options_of(group).values():
        node = yaml.safe_load(path.read_text()) or {}
        nodes.append(node.get(group, node))  # a stage's file has the stage below a key
    found = set()
    for node in nodes:
        found |= set(node)
        if "_target_" in node:
            found |= set(inspect.signature(locate(node["_target_"], group)).parameters)
    return found


KEYS = {*group_names(), *SETTINGS}
INLINE = sorted({word for page in PAGES for word in inline_overrides(page.read_text())})


def single_jobs(overrides):
    """Jobs of a sweep, so many that each of its choices is in one; of a single run, itself."""
    parsed = OverridesParser.create().parse_overrides([free_key(o) for o in overrides])
    choices = []
    for override in parsed:
        if override.is_sweep_override():
            key = override.get_key_element()
            choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            choices.append([override.input_line])
    count = max(len(those) for those in choices) if choices else 1
    repeated = [itertools.islice(itertools.cycle(those), count) for those in choices]
    return list(zip(*repeated, strict=True)) or [()]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run to start from, two steps old, packed as well."""
    from micronet_cli.command.cli import main

    where = tmp_path_factory.mktemp("docs") / "outputs" / "dense"
    main(["stage=train", *TINY, "trainer.max_steps=2", f"hydra.run.dir={where}"])
    packed = tmp_path_factory.mktemp("packed")
    main(["stage=export", f"init_from={where}", "export.onnx=false", f"hydra.run.dir={packed}"])
    shutil.copy(packed / "model.mnet", where)
    return where


def test_command_line_is_read_as_a_shell_would():
    text = "$ ls\nfor m in agp lamp; do\n  micronet -m prune=$m \\\n    a=1,2 'b=c d' 0.42  # why\ndone\nmicronet\n"
    assert list(command_lines(text)) == [["prune=agp", "a=1,2", "b=c d"], []]
    assert single_jobs(["a=1,2", "b=3"]) == [("++a=1", "++b=3"), ("++a=2", "++b=3")]
    assert single_jobs(["a=1,2", "b=3,4,5"]) == [("++a=1", "++b=3"), ("++a=2", "++b=4"), ("++a=1", "++b=5")]
    assert single_jobs([]) == [()]


def test_command_lines_are_found():
    assert len(COMMANDS) > 40
    assert {command.page.name for command in COMMANDS} >= {
        "README.md",
        "tutorial.md",
        "pruning.md",
        "lamp.yaml",
        "report.yaml",
    }


def test_inline_overrides_are_found():
    text = "`a` of `data=webdataset data.train='x-{0..9}.tar'`, `f(x=1)`, `prune=<name>`\n```\nseed=1\n```\n`seed=2`"
    assert list(inline_overrides(text)) == ["data=webdataset", "data.train=x-{0..9}.tar", "seed=2"]
    assert len(INLINE) > 50


@pytest.mark.parametrize("word", INLINE)
def test_inline_override_is_read_as_it_stands_and_its_key_exists(word):
    (parsed,) = OverridesParser.create().parse_overrides([free_key(word)])
    typed_key, _, value = word.partition("=")
    key = typed_key.lstrip("+")
    if re.search(r"[{}|~]", value) and not value.startswith("{"):
        assert str(parsed.value()) == value
    if "." not in key and key in group_names() and key != "model":
        assert set(value.split(",")) <= {*options_of(key), *EXAMPLES}
    group, _, below = key.partition(".")
    if below and group != "hydra":
        assert below.split(".")[0] in parameters_of(group)


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_command_line_composes_and_binds(composed, run, monkeypatch, command):
    monkeypatch.chdir(run.parents[1])
    given = [AN_EXPORT.sub(f"={run}/model.mnet", A_RUN.sub(f"={run}", o)) for o in command.overrides]
    for job in single_jobs(given):
        config = compose("config", list(job), return_hydra_config=True)
        HydraConfig.instance().set_config(config)  # stage=search asks it
        with open_dict(config):
            del config["hydra"]
        config = inherited(config)
        getattr(stage_module(config), "check", check_config)(config)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if "```python" in page.read_text() and page != OWN_PACKAGE], ids=lambda p: p.name
)
def test_python_blocks_run(page, run, monkeypatch):
    """In the order of the page, in one namespace in which ``model`` is a network and RUN, EXPORT a run's directory."""
    import micronet_cli

    monkeypatch.chdir(run.parent)
    names = {"model": micronet_cli.load(run), "RUN": str(run), "EXPORT": str(run), "__name__": "__docs__"}
    for language, code in code_blocks(page.read_text()):
        if language != "python":
            continue
        if ">>>" in code:
            test = doctest.DocTestParser().get_doctest(code, names, page.name, page.name, 0)
            assert doctest.DocTestRunner().run(test, clear_globs=False).failed == 0
            names = test.globs
        else:
            exec(compile(code, page.name, "exec"), names)


class Loads(HTMLParser):
    """Addresses that a page loads by itself (links that a reader may follow do not count)."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        loading = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src"}.get(tag)
        self.found += [value for key, value in attrs if key == loading]


def test_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("material", reason="needs mkdocs-material, the extra docs")
    # Not --quiet: it keeps the warnings from being counted.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    pages = {path.relative_to(tmp_path / "site").as_posix(): path for path in (tmp_path / "site").rglob("*.html")}
    assert {
        "index.html",
        "tutorial.html",
        "options/prune.html",
        "library.html",
        "api.html",
        "benchmarks/scoring.html",
    } <= pages.keys()
    for name, path in pages.items():
        elsewhere = [address for address in Loads(path.read_text()).found if re.match(r"(https?:)?//", address)]
        assert not elsewhere, name
    options = pages["options/prune.html"].read_text()
    assert all(path.stem in options for path in (ROOT / "conf" / "prune").glob("*.yaml"))
    assert "Masks that shrink along a schedule" in options
