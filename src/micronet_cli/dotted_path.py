"""What a dotted path names, and whether a file may name it.

A user's own config and command line may name anything that can be imported. What a file names is imported only if it is
micronet's, or of a package that the user trusts.
"""

import importlib
import os
import pkgutil
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from micronet_cli.errors import UserError, near_misses
from micronet_cli.renamed import RENAMED

OWN = "micronet_cli"
# Frames of these directories are not where a user's own code went wrong.
STANDARD_LIBRARY = sysconfig.get_paths()["stdlib"]
LIBRARIES = sysconfig.get_paths()["purelib"]
NOT_THE_USERS = (STANDARD_LIBRARY, f"{LIBRARIES}/torch", f"{LIBRARIES}/timm", str(Path(__file__).parent), "<frozen")


def make_working_directory_importable() -> None:
    """Find the user's package where the command is run, behind everything that is installed."""
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)


def locate(path: str, where: str) -> Any:
    """The function or class behind a dotted path; one of an earlier version is followed.

    Raises:
        UserError: it names nothing, or its module cannot be imported; ``where`` is its place in the config.
    """
    path = RENAMED.get(path, path)
    module, _, name = path.rpartition(".")
    if not module or not name:
        raise UserError(f"{where}: {path!r} is not a dotted path, as package.module.name")
    return _attribute(_imported(module, path, where), name, path, where)


def import_named(path: str, where: str) -> Any:
    """The module of this name.

    Raises:
        UserError: there is none, or it cannot be imported.
    """
    return _imported(path, path, where)


def _imported(module: str, path: str, where: str) -> Any:
    """A module, or a class in one, that ``path`` goes through."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        itself_is_missing = error.name is not None and f"{module}.".startswith(f"{error.name}.")
        if not itself_is_missing:
            raise _broken(path, where, error) from error
    except Exception as error:  # whatever the user's module does while it is imported
        raise _broken(path, where, error) from error
    owner, _, name = module.rpartition(".")
    if not owner:
        here = [found.name for found in pkgutil.iter_modules([os.getcwd()])]
        near = near_misses(module, here)
        raise UserError(
            f"{where}: {path!r} cannot be imported; there is no {module} in {os.getcwd()} or installed{near}"
        )
    return _attribute(_imported(owner, path, where), name, path, where)


def _broken(path: str, where: str, error: Exception) -> UserError:
    return UserError(f"{where}: {path!r} cannot be imported ({failure(error)})")


def _attribute(owner: Any, name: str, path: str, where: str) -> Any:
    if hasattr(owner, name):
        return getattr(owner, name)
    submodules = [found.name for found in pkgutil.iter_modules(getattr(owner, "__path__", []))]
    known = {*dir(owner), *submodules}
    near = near_misses(name, sorted(known))
    raise UserError(f"{where}: {path!r} cannot be imported; {owner.__name__} has no {name}{near}")


def failure(error: BaseException) -> str:
    """An error of the user's own code in a line, with the file and the line where it happened."""
    said = " ".join(str(error).split())
    text = f"{type(error).__name__}: {said}" if said else type(error).__name__
    place = _place(error)
    return f"{text}, {place}" if place else text


def _place(error: BaseException) -> str | None:
    if isinstance(error, SyntaxError) and error.filename:
        return None if error.filename in str(error) else f"{error.filename}:{error.lineno}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(NOT_THE_USERS):
            return f"{frame.filename}:{frame.lineno}"
    return None


def is_within(path: str, packages: Iterable[str]) -> bool:
    """Whether a dotted path lies in one of the packages.

    >>> is_within("a.b.c", ["a"]), is_within("a.b.c", ["a.b"]), is_within("ab.c", ["a"])
    (True, True, False)
    """
    return any(f"{path}.".startswith(f"{package}.") for package in packages)


def refusal(path: Any, trust: Sequence[str]) -> str | None:
    """Why a file may not name ``path``; None where it may.

    >>> refusal("micronet_cli.functional.pruning.magnitude", []), refusal("a.f", ["a"])
    (None, None)
    >>> refusal("a.f", ["b"])
    "'a.f' is not allowed in a file, for it is not micronet's; if you trust it, give trust=[a]"
    """
    if not isinstance(path, str):
        return f"{path!r:.80} is not allowed in a file; a dotted path must be text"
    if is_within(path, (OWN, *trust)):
        return None
    package = path.partition(".")[0]
    return f"{path!r:.80} is not allowed in a file, for it is not micronet's; if you trust it, give trust=[{package}]"


def borrowed(path: str, found: Any) -> str | None:
    """Why a file may not name what one of micronet's modules merely imports; None where it is micronet's own.

    Args:
        path: the dotted path.
        found: what it names.
    """
    home = getattr(found, "__module__", None) or ""
    if not is_within(path, [OWN]) or is_within(home, [OWN]):
        return None
    return f"{path!r:.80} is not allowed in a file, for it is not micronet's own"


def checked_trust(trust: Any, where: str = "trust") -> tuple[str, ...]:
    """The packages that files may name.

    Raises:
        UserError: it is no list of names, or one of them cannot be imported.
    """
    if isinstance(trust, str):
        raise UserError(f"{where}={trust}: must be a list; give {where}=[{trust}]")
    packages = tuple(trust or ())
    for package in packages:
        if not isinstance(package, str) or not package:
            raise UserError(f"{where}: {package!r} must be the name of a package")
        import_named(package, where)
    return packages
