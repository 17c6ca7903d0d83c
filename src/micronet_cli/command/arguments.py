"""The arguments as typed: flags that there are, and overrides with a value."""

import argparse
import re
from pathlib import Path

from micronet_cli.command.passwords import refuse_typed
from micronet_cli.errors import UserError, near_misses
from micronet_cli.overrides import options_of

CONFIG_DIRECTORY = {"--config-dir", "-cd"}
SWITCHES = {"-m", "--multirun", "--resolve", "-r", "--run"}


def take_config_dir(arguments: list[str]) -> tuple[list[str], Path | None]:
    """The arguments without ``--config-dir DIR``, and the directory.

    >>> take_config_dir(["stage=score", "--config-dir", "mine"])[0]
    ['stage=score']

    Raises:
        UserError: the directory is missing.
    """
    for place, argument in enumerate(arguments):
        flag, equals, directory = argument.partition("=")
        if flag not in CONFIG_DIRECTORY:
            continue
        before = arguments[:place]
        after = arguments[place + 1 :]
        if not equals:
            if not after:
                raise UserError(f"{flag}: must be followed by a directory")
            directory, *after = after
        return before + after, Path(directory).expanduser()
    return arguments, None


def switches_first(arguments: list[str]) -> list[str]:
    """The arguments in an order that argparse takes: not with overrides on both sides of a flag."""
    return sorted(arguments, key=lambda argument: argument not in SWITCHES)


def flags() -> list[str]:
    """Every flag of the command line, in its long form."""
    listed = _parser().format_usage()
    return re.findall(r"--[\w-]+", listed)


def check(arguments: list[str]) -> None:
    """Before Hydra, whose parser would print its usage.

    Raises:
        UserError: a flag that does not exist, an override without a value, or a password that files would keep.
    """
    parser = _parser()
    parser.exit_on_error = False
    parser.allow_abbrev = False
    try:
        parsed, unknown = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        flag = (error.argument_name or "").partition("/")[0]
        raise UserError(f"{flag}: {error.message}") from None
    for argument in unknown:
        if argument.startswith("-"):
            flag = argument.partition("=")[0]
            near = near_misses(flag, flags()) if flag.startswith("--") else ""
            raise UserError(f"{argument}: no such flag{near or '; --hydra-help lists them'}")
    refuse_typed([*parsed.overrides, *unknown])
    for argument in [*parsed.overrides, *unknown]:
        if "=" not in argument and not argument.startswith("~"):
            raise UserError(f"{argument}: must be GROUP=OPTION or KEY=VALUE{_as_a_stage(argument)}")


def parsed(arguments: list[str]) -> argparse.Namespace:
    """What Hydra makes of arguments that were checked."""
    return _parser().parse_args(arguments)


def complete_flag(line: str) -> bool:
    """Print the flags that the last word of ``line`` may become; whether it is one (Hydra completes anything else)."""
    word = re.split(r"\s", line)[-1]
    if not word.startswith("-"):
        return False
    print(" ".join(flag for flag in flags() if flag.startswith(word)))
    return True


def _parser() -> argparse.ArgumentParser:
    from hydra._internal.utils import get_args_parser  # there is no public door to it

    return get_args_parser()


def _as_a_stage(word: str) -> str:
    stages = options_of("stage")
    meant = word if word in stages else "train"
    near = near_misses(word, stages)
    if near:
        return near.replace("did you mean ", "did you mean stage=").replace(" or ", " or stage=")
    return f", as stage={meant}; micronet --help lists them"
