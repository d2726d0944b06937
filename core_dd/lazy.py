"""Public names of a package, imported when first used, even where a submodule has the same name."""

import importlib
import sys
from collections.abc import Mapping
from types import ModuleType


def export(package: str, names: Mapping[str, str]) -> None:
    """Let `package.NAME` mean the module or the "module:attribute" it maps to; called from the package's `__init__`.

    Properties of the package's class win over what its dict holds, so `matching_dd.distill` is the function although
    the import system stores the submodule under that name; `from matching_dd.distill import main` finds the submodule.
    """

    def public(target: str) -> property:
        module, _, attribute = target.partition(":")

        def load(_):
            found = importlib.import_module(module)
            return getattr(found, attribute) if attribute else found

        return property(load, lambda _, submodule: None)  # the setter: what the import system calls

    sys.modules[package].__all__ = sorted(names)
    sys.modules[package].__class__ = type("Package", (ModuleType,), {key: public(to) for key, to in names.items()})
