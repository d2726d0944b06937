"""The matching track: learn (or choose) a few images per class whose effect on training matches the real data's."""

from core_dd.lazy import export

export(
    __name__,
    {
        "METHODS": "matching_dd.methods:METHODS",
        "coreset": "matching_dd.coresets:coreset",
        "distill": "matching_dd.distill:distill",
        "losses": "matching_dd.losses",
    },
)
