"""The matching methods: one file, one class each. Adding one: its file, its line here, a YAML, a test."""

from types import MappingProxyType

from matching_dd.base import Method
from matching_dd.methods.cafe import CAFE
from matching_dd.methods.datadam import DataDAM
from matching_dd.methods.dc import DC
from matching_dd.methods.dm import DM
from matching_dd.methods.dsa import DSA
from matching_dd.methods.ead import EAD
from matching_dd.methods.idc import IDC
from matching_dd.methods.idm import IDM
from matching_dd.methods.m3d import M3D
from matching_dd.methods.mtt import MTT

METHODS: MappingProxyType[str, type[Method]] = MappingProxyType(
    {
        "cafe": CAFE,
        "datadam": DataDAM,
        "dc": DC,
        "dm": DM,
        "dsa": DSA,
        "ead": EAD,
        "idc": IDC,
        "idm": IDM,
        "m3d": M3D,
        "mtt": MTT,
    }
)
"""Methods by name."""
