"""What both tracks share: real data, the distilled-set file, and the judge."""

from core_dd.lazy import export

export(
    __name__,
    {
        "DistilledSet": "core_dd.distilled:DistilledSet",
        "ImageData": "core_dd.data:ImageData",
        "Scores": "core_dd.evaluate:Scores",
        "build_network": "core_dd.networks:build_network",
        "evaluate": "core_dd.evaluate:evaluate",
        "load_data": "core_dd.data:load_data",
    },
)
