"""YAML files that people write: read strictly, and wrong ones refused in a sentence."""

import os
import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

from core_dd.errors import InputError, brief


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read one YAML mapping.

    Raises:
        InputError: missing file, invalid YAML, a duplicate key, or a top level that is no mapping.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise InputError(f"no config file at {path}. Those of gendd go by their names, such as --config digits.")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from None
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError) as error:  # whatever its parts raise
        raise InputError(f"{path} is not valid YAML: {brief(' '.join(str(error).split()))}.") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"{path} holds a {type(values).__name__}, expected 'key: value' lines.")
    return values


DEEPEST = 20
"""How deep the values of a YAML file may be nested."""


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 2e-4 as a number (YAML 1.1 wants 2.0e-4), and refuses what no settings need: duplicate
    keys, aliases (a short file of them stands for gigabytes), deep nesting, OmegaConf's placeholders, and the null
    character."""

    depth = 0

    def compose_node(self, parent, index):
        mark = self.peek_event().start_mark
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "an alias (*name); write the value out", mark)
        if self.depth == DEEPEST:
            raise yaml.composer.ComposerError(None, None, f"nested deeper than {DEEPEST}", mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def construct_scalar(self, node):
        value = super().construct_scalar(node)
        if "${" in value or value == "???" or "\0" in value:
            raise yaml.constructor.ConstructorError(
                None, None, f"'{value}' is no value; write out what it stands for", node.start_mark
            )
        return value

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(None, None, "a key that is no name", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key '{key}'", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def yaml_text(values: Mapping[str, Any]) -> str:
    """Plain values as YAML that `read_yaml` reads as the same: text like 2e-4 is quoted."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that knows what `_Loader` takes for a number."""


for _own in (_Loader, _Dumper):
    _own.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )
