"""What both tracks share: real data, the distilled-set file, and the judge."""

from core_dd.lazy import export, moved

export(
    __name__,
    {
        "DistilledSet": "core_dd.sets.distilled:DistilledSet",
        "ImageData": "core_dd.data.images:ImageData",
        "Scores": "core_dd.judge.evaluate:Scores",
        "build_network": "core_dd.judge.networks:build_network",
        "evaluate": "core_dd.judge.evaluate:evaluate",
        "load_data": "core_dd.data.images:load_data",
    },
)

moved(
    {
        "core_dd.distilled": "core_dd.sets.distilled",
        "core_dd.evaluate": "core_dd.judge.evaluate",
        "core_dd.networks": "core_dd.judge.networks",
    }
)
