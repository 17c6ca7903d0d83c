"""The families of networks that timm itself has: tests register networks of their own in the same process."""

from importlib.util import find_spec

from timm.models import list_modules

FAMILIES = [family for family in list_modules() if find_spec(f"timm.models.{family}") is not None]
