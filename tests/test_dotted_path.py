"""Guards what dotted paths name: anything of the user's, with their own errors shown, and what files may name."""

import os
import sys

import pytest

from micronet_cli.dotted_path import borrowed, checked_trust, locate, make_working_directory_importable, refusal
from micronet_cli.errors import UserError

MODULES = {
    "good.py": "class Outer:\n    class Inner:\n        pass\n",
    "fails.py": "x = 1\nundefined_name\n",
    "imports.py": "import not_installed_anywhere\n",
    "syntax.py": "def f(:\n",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The package ownpkg in the working directory, which is importable."""
    (tmp_path / "ownpkg").mkdir()
    (tmp_path / "ownpkg" / "__init__.py").touch()
    for name, text in MODULES.items():
        (tmp_path / "ownpkg" / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    make_working_directory_importable()
    yield
    for module in [name for name in sys.modules if name.partition(".")[0] == "ownpkg"]:
        del sys.modules[module]


def test_anything_importable_is_found(package):
    assert locate("ownpkg.good.Outer", "x").__name__ == "Outer"
    assert locate("ownpkg.good.Outer.Inner", "x").__name__ == "Inner"
    assert sys.path[-1] == sys.path[-1].strip()


WRONG = {
    "the module's own error": ("ownpkg.fails.f", r"NameError: name 'undefined_name' is not defined, .*fails\.py:2"),
    "its own import": ("ownpkg.imports.f", r"No module named 'not_installed_anywhere', .*imports\.py:1"),
    "its syntax": ("ownpkg.syntax.f", r"SyntaxError: .*syntax\.py"),
    "module mistyped": ("ownpkg.goood.Outer", r"ownpkg has no goood; did you mean good"),
    "package mistyped": ("ownpkgg.good.Outer", r"there is no ownpkgg in .*; did you mean ownpkg\?"),
    "name mistyped": ("ownpkg.good.Outr", r"ownpkg\.good has no Outr; did you mean Outer"),
    "no path": ("Outer", r"'Outer' is not a dotted path"),
}


@pytest.mark.parametrize(("path", "said"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_said_in_a_line(package, path, said):
    with pytest.raises(UserError, match=said) as caught:
        locate(path, "prune.importance")
    assert str(caught.value).startswith(f"prune.importance: '{path}'"[:20])
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_may_name_what_is_trusted():
    assert refusal("micronet_cli.a.b", ()) is None
    assert refusal("ownpkg.a", ("ownpkg",)) is None
    assert "trust=[ownpkg2]" in refusal("ownpkg2.a", ("ownpkg",))
    assert "must be text" in refusal(3, ())


def test_what_a_module_merely_imports_is_not_its_own():
    assert borrowed("micronet_cli.dotted_path.locate", locate) is None
    assert "not micronet's own" in borrowed("micronet_cli.dotted_path.os.system", os.system)
    assert "not micronet's own" in borrowed("micronet_cli.dotted_path.os", os)
    assert borrowed("ownpkg.system", os.system) is None  # the user trusts that package


def test_trust_is_a_list_of_packages_that_are_there(package):
    assert checked_trust(["ownpkg"]) == ("ownpkg",)
    assert checked_trust(None) == ()
    with pytest.raises(UserError, match=r"trust=ownpkg: must be a list; give trust=\[ownpkg\]"):
        checked_trust("ownpkg")
    with pytest.raises(UserError, match=r"trust: 'ownpkgg' cannot be imported; .* did you mean ownpkg"):
        checked_trust(["ownpkgg"])
