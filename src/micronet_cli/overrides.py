"""What a user types, in Hydra's grammar; what Hydra complains of, in a user's words."""

import re
from pathlib import Path
from typing import Any

from micronet_cli.errors import UserError, near_misses
from micronet_cli.paths import CONFIG_DIRECTORIES

# Values that Hydra's grammar takes as they are, and values that can only be meant for it: lists, mappings, quoted text,
# interpolations.
PLAIN = re.compile(r"[A-Za-z0-9_/.:+%@?|*-]*")
MEANT_FOR_HYDRA = re.compile(r"""[\[{'"]|.*\$\{""")
NEEDS_NO_QUOTES = re.compile(r"[A-Za-z_/][\w./-]*")


def group_names() -> list[str]:
    """Config groups: the directories beside the packaged config.yaml and in the user's own config directory."""
    names = set()
    for directory in CONFIG_DIRECTORIES:
        names |= {path.name for path in directory.glob("*/") if path.is_dir()}
    return sorted(names)


def options_of(group: str) -> dict[str, Path]:
    """Option -> its file; the user's own stands before the packaged one of the same name."""
    found: dict[str, Path] = {}
    for directory in reversed(CONFIG_DIRECTORIES):
        root = directory / group
        for path in root.rglob("*.yaml"):
            option = path.relative_to(root).with_suffix("").as_posix()
            found[option] = path
    return found


def free_key(argument: str) -> str:
    """``key=value`` as ``++key=value``: rules can be added, and unknown keys reach the config check, which knows more.

    A rule's regular expression is quoted, for Hydra reads brackets and commas as its own; and so is any other value
    that Hydra's grammar refuses, as a path with brackets or an equals sign.

    >>> free_key("trainer.epochs=3"), free_key("stage=prune"), free_key("hydra.run.dir=x"), free_key("-m")
    ('++trainer.epochs=3', 'stage=prune', 'hydra.run.dir=x', '-m')
    >>> free_key("prune.rules.stem.match={stem}|fc")
    "++prune.rules.stem.match='{stem}|fc'"
    >>> free_key("init_from=lr=0.1"), free_key("hydra.run.dir=a (b)"), free_key("seed=1,2"), free_key("seed=range(3)")
    ("++init_from='lr=0.1'", "hydra.run.dir='a (b)'", '++seed=1,2', '++seed=range(3)')
    >>> free_key("data.train=train-{0000..0099}.tar")
    "++data.train='train-{0000..0099}.tar'"

    Raises:
        UserError: null for a group, which takes an option.
    """
    key, equals, value = argument.partition("=")
    is_group = key.split("@")[0] in group_names()
    if is_group and value == "null":
        raise UserError(f"{argument}: a group takes an option, as {key}=none where there is one")
    if key[:1] in ("-", "~"):
        return argument
    if value.startswith("~/"):
        value = str(Path(value).expanduser())  # a shell expands it only where a word begins
    if _needs_quotes(key, value):
        value = quoted(value)
    argument = f"{key}{equals}{value}"
    hydra_knows_it = is_group or "/" in key or key.split(".")[0] == "hydra"
    if hydra_knows_it or not equals or key[:1] == "+":
        return argument
    return f"++{argument}"


def _needs_quotes(key: str, value: str) -> bool:
    if key.endswith(".match"):
        return value[:1] not in ("'", '"')
    if PLAIN.fullmatch(value) or MEANT_FOR_HYDRA.match(value):
        return False
    return not _in_the_grammar(value)


def _in_the_grammar(value: str) -> bool:
    """Whether Hydra can read it: as text, or as a sweep like ``1,2`` or ``range(3)``."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(f"key={value}")
    except HydraException:
        return False
    return True


def quoted(text: str) -> str:
    r"""Text that Hydra's grammar reads as it is: backslashes before a quote are doubled, the quote has one of its own.

    >>> quoted("it's"), quoted("a\\d"), quoted("a\\")
    ("'it\\'s'", "'a\\d'", "'a\\\\'")
    """
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", text)
    escaped = re.sub(r"(\\+)$", r"\1\1", escaped)
    return f"'{escaped}'"


def as_override(key: str, value: Any) -> str:
    r"""``key=value`` for a plain value.

    >>> as_override("a", None), as_override("a", True), as_override("a", 1e-05), as_override("a", "w4a4")
    ('a=null', 'a=true', 'a=1e-05', 'a=w4a4')
    >>> as_override("a", "it's, two")
    "a='it\\'s, two'"
    """
    if value is None:
        return f"{key}=null"
    if isinstance(value, bool):
        return f"{key}={str(value).lower()}"
    if isinstance(value, str) and not NEEDS_NO_QUOTES.fullmatch(value):
        return f"{key}={quoted(value)}"
    return f"{key}={value}"


def explain(error: Exception) -> str:
    """Hydra's message in a line or two, with near misses."""
    from hydra.errors import MissingConfigException, OverrideParseException

    for link in _causes(error):
        if isinstance(link, MissingConfigException) and link.missing_cfg_file:
            return _no_such_option(link.missing_cfg_file, list(link.options or []))
        if isinstance(link, OverrideParseException):
            return _not_in_the_grammar(link.override.lstrip("+"), complaint=str(link))
    lines = [line for line in str(error).splitlines() if line.strip()]
    return "\n".join(lines)


def _causes(error: BaseException) -> list[BaseException]:
    """The error, what it was raised from, and so on."""
    chain = [error]
    cause = error.__cause__ or error.__context__
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    return chain


def _no_such_option(config_file: str, options: list[str]) -> str:
    group, _, option = config_file.rpartition("/")
    known = ", ".join(options)
    if group == "model":
        known = f"{known} and every timm name"
    listed = f" (there are {known})" if options else ""
    if not option:
        return f"{group}=: must be followed by an option{listed}"
    near = near_misses(option, options)
    return f"{group or 'config'}={option}: no such option{near}{listed}"


def _not_in_the_grammar(argument: str, complaint: str) -> str:
    first_line = complaint.splitlines()[0]
    key = argument.partition("=")[0]
    return f"{argument}: {first_line}; quote a value with signs of Hydra's grammar, as \"{key}='...'\""
