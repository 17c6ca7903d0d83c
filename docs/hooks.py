"""What mkdocs asks while it builds: the menu, pages from outside docs/, and a page for every config group.

The text of the option pages is the comments of the YAMLs and the docstrings of what their ``_target_`` names, so it
cannot drift from them.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "conf"
SOURCE = ROOT / "src"
# Pages from elsewhere in the repository: page -> file.
OUTSIDE = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
# The menu; a page that is not named here comes under "More".
MENU: dict[str, tuple[str, ...]] = {
    "Start": ("index.md", "tutorial.md"),
    "Methods": ("pruning.md", "quantization.md", "ptq.md", "distillation.md", "explore.md", "sweeps.md"),
    "Results": ("scoring.md", "report.md", "format.md", "onnx.md"),
    "Python": ("library.md", "api.md"),
    "Extend": ("extending.md", "contributing.md", "changelog.md"),
}
GROUPS = {
    "stage": "What a run does. A stage presets other groups; what is typed on the command line wins.",
    "model": "The network. Any name of timm is an option; `init_from` brings its own.",
    "data": "Images, how they are augmented and batched.",
    "prune": "Which weights go, and when.",
    "quantize": "How weights and layer inputs are quantised.",
    "ptq": "Quantisation without training: what is done before weights are rounded, and how they are.",
    "distill": "A teacher in the loss.",
    "optim": "Optimiser and learning-rate schedule.",
    "trainer": "The training loop.",
    "eval": "What is evaluated.",
    "export": "What a network is written as.",
    "sensitivity": "How much each layer minds being compressed.",
    "budget": "How a budget is spent on layers.",
    "search": "Which settings are tried, and what for.",
    "score": "The rules that the MicroNet score is counted by.",
    "logger": "Where curves go besides `history.jsonl`.",
    "experiment": "Whole recipes, added with `+experiment=...`; they may override every group.",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and give the menu its order."""
    pages = {page: (ROOT / name).read_text() for page, name in OUTSIDE.items()}
    pages |= {f"benchmarks/{path.name}": path.read_text() for path in sorted((ROOT / "benchmarks").glob("*.md"))}
    pages |= {f"options/{group}.md": text for group, text in option_pages()}
    for page, text in pages.items():
        files.append(File.generated(config, page, content=text))
    config.nav = menu([file.src_uri for file in files.documentation_pages()])
    return files


def on_page_markdown(markdown: str, page: Any, config: MkDocsConfig, files: Files) -> str:
    """Links as the repository's browsers want them become links between pages; those to source files become text."""
    depth = page.file.src_uri.count("/")

    def link(found: re.Match[str]) -> str:
        text, target, anchor = found.groups(default="")
        path = (ROOT / OUTSIDE.get(page.file.src_uri, f"docs/{page.file.src_uri}")).parent / target
        if page.file.src_uri.startswith("benchmarks/"):
            path = ROOT / "benchmarks" / target
        inside = path.resolve().relative_to(ROOT).as_posix() if path.resolve().is_relative_to(ROOT) else target
        to = {name: uri for uri, name in OUTSIDE.items()}.get(inside, inside.removeprefix("docs/"))
        return f"[{text}]({'../' * depth}{to}{anchor})" if files.get_file_from_path(to) else text

    return re.sub(r"\[([^\]]+)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)", link, markdown)


def menu(pages: list[str]) -> list[dict[str, list[str]]]:
    """Sections with the pages that are there; nothing is left out."""
    named = {section: [page for page in listed if page in pages] for section, listed in MENU.items()}
    options = [page for page in pages if page.startswith("options/")]
    named["Options"] = sorted(options, key=lambda page: [*GROUPS, Path(page).stem].index(Path(page).stem))
    named["Benchmarks"] = sorted(page for page in pages if page.startswith("benchmarks/"))
    seen = {page for listed in named.values() for page in listed}
    named["More"] = [page for page in pages if page not in seen]
    return [{section: listed} for section, listed in named.items() if listed]


def option_pages() -> Iterator[tuple[str, str]]:
    """Group and the Markdown of its page, for every group under conf/."""
    for directory in sorted(path for path in CONF.iterdir() if path.is_dir() and path.name != "hydra"):
        options = {file.relative_to(directory).with_suffix("").as_posix(): file for file in directory.rglob("*.yaml")}
        parts = [f"# {directory.name}", GROUPS.get(directory.name, "")]
        targets: dict[str, None] = {}
        for name, file in sorted(options.items()):
            text, body = split_comment(file.read_text())
            parts += [f"## {name}", text, f"```yaml\n{body.strip()}\n```"]
            targets |= dict.fromkeys(re.findall(r"_target_: (micronet_cli\.[\w.]+)", body))
        described = [(target, docstring(target)) for target in sorted(targets)]
        if any(doc for _, doc in described):
            parts.append("## Keys")
            parts += [f"`{target}`\n\n```text\n{doc}\n```" for target, doc in described if doc]
        yield directory.name, "\n\n".join(part for part in parts if part) + "\n"


def split_comment(text: str) -> tuple[str, str]:
    """The comment that a YAML begins with, as Markdown, and the rest."""
    lines = text.splitlines()
    head = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    comment = [line[1:] for line in lines[:head] if line != "# @package _global_"]
    prose = re.compile(r" \S")
    said = [line[1:] if prose.match(line) else f"\n    {line.strip()}\n" if line.strip() else "" for line in comment]
    joined = re.sub(r"\n{3,}", "\n\n", re.sub(r"\n\n    (?=\S)", "\n\n    ", "\n".join(said))).strip("\n")
    return re.sub(r"(    [^\n]*)\n\n(?=    )", r"\1\n", joined), "\n".join(lines[head:])


def docstring(target: str) -> str | None:
    """Docstring of the class behind a dotted path, read without importing it."""
    module, _, name = target.rpartition(".")
    path = SOURCE / f"{module.replace('.', '/')}.py"
    if not path.is_file():
        path = SOURCE / module.replace(".", "/") / "__init__.py"
    found = [node for node in ast.parse(path.read_text()).body if getattr(node, "name", None) == name]
    return ast.get_docstring(found[0]) if found else None
