"""The matching methods: one file, one class each. Adding one: its file, its line here, a YAML, a test."""

from types import MappingProxyType

from matching_dd.base import Method
from matching_dd.methods.dm import DM

METHODS: MappingProxyType[str, type[Method]] = MappingProxyType({"dm": DM})
"""Methods by name."""
