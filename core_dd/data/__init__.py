"""Real data: read, checked, and held in memory or streamed from the disk."""

from core_dd.lazy import export

export(
    __name__,
    {"ImageData": "core_dd.data.images:ImageData", "load_data": "core_dd.data.images:load_data"},
)
