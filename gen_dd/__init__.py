"""The generative track: train a class-conditional U-ViT, sample inside a time budget, select."""

from core_dd.lazy import export

export(
    __name__,
    {
        "UViT": "gen_dd.uvit:UViT",
        "UViTPipeline": "gen_dd.pipeline:UViTPipeline",
        "load_official": "gen_dd.checkpoint:load_official",
        "sample": "gen_dd.sample:sample",
        "select": "gen_dd.select:select",
    },
)
