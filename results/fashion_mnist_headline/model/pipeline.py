from gen_dd.pipeline import UViTPipeline  # noqa: F401
