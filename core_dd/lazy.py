"""Public names of a package, imported when first used, even where a submodule has the same name."""

import importlib
import importlib.abc
import importlib.util
import sys
import warnings
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
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


def moved(names: Mapping[str, str]) -> None:
    """Let modules be imported by the names they had, with a warning that names the new one."""
    sys.meta_path.insert(0, _Moved(dict(names)))


class _Moved(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a module under another name; both names are the same module."""

    def __init__(self, names: dict[str, str]) -> None:
        self.names = names
        self.specs: dict[str, ModuleSpec] = {}

    def find_spec(self, fullname, path, target=None):
        return importlib.util.spec_from_loader(fullname, self) if fullname in self.names else None

    def create_module(self, spec):
        new = self.names[spec.name]
        warnings.warn(f"{spec.name} is now {new}; the old name goes with version 0.3.", DeprecationWarning, 2)
        module = importlib.import_module(new)
        self.specs[new] = module.__spec__
        return module

    def exec_module(self, module):
        module.__spec__ = self.specs.pop(module.__name__)  # which the import system has just replaced
