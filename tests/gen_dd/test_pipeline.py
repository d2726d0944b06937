"""A saved model is a diffusers pipeline that draws what the sampler draws."""

import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from core_dd.data.images import load_data
from core_dd.errors import InputError
from core_dd.files import write_json
from core_dd.records import read as read_json
from gen_dd.pipeline import UViTPipeline
from gen_dd.sample import sample
from gen_dd.sampler import Sampler
from gen_dd.solvers import SOLVERS, guided
from gen_dd.uvit import UViT
from gen_dd.weights import load_model, save_model


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return UViT.from_preset("tiny", num_classes=10).eval()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "model"
    card = {
        "data": "digits",
        "fingerprint": load_data("digits").fingerprint,
        "class_names": list("0123456789"),
        "step": 12,
        "train": {"lr": 2e-4, "batch_size": 64},
        "metrics": {"classifier_frechet": 0.25},
    }
    grid = folder.parent / "samples.png"
    Image.new("L", (8, 8)).save(grid)
    save_model(model, folder, card, grid)
    return folder


@pytest.fixture
def pipeline(folder):
    pipeline = UViTPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_pipeline__loads_by_the_base_class(folder, model, tmp_path, monkeypatch):
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    pipeline = DiffusionPipeline.from_pretrained(folder, custom_pipeline="pipeline", trust_remote_code=True)
    assert type(pipeline) is UViTPipeline
    assert all(torch.equal(a, b) for a, b in zip(pipeline.unet.parameters(), model.parameters(), strict=True))


@pytest.mark.parametrize("steps", [5, 20])
@pytest.mark.parametrize("w", [1.0, 1.6])
def test_pipeline__equals_the_solver(pipeline, model, steps, w):
    labels = torch.tensor([3, 0, 9])
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected = SOLVERS["dpmpp_2m"](guided(model, labels, w - 1, 10), x, steps)
    images = pipeline(
        labels,
        guidance_scale=w,
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(5),
        output_type="pt",
    ).images
    assert torch.allclose(images, ((expected + 1) / 2).clamp(0, 1), atol=1e-5)


def test_pipeline__a_generator_for_each_image(pipeline):
    each = lambda: [torch.Generator().manual_seed(seed) for seed in (1, 2)]  # noqa: E731
    both = pipeline([4, 7], num_inference_steps=3, generator=each(), output_type="pt").images
    second = pipeline(7, num_inference_steps=3, generator=each()[1:], output_type="pt").images
    assert torch.allclose(both[1:], second, atol=1e-5)
    with pytest.raises(InputError, match="2 generators for 1 images"):
        pipeline(7, num_inference_steps=3, generator=each())


def test_pipeline__output_types(pipeline):
    images = pipeline([1, 2], num_inference_steps=2, generator=torch.Generator().manual_seed(0)).images
    assert [image.size for image in images] == [(8, 8), (8, 8)] and images[0].mode == "L"
    (arrays,) = pipeline([1, 2], num_inference_steps=2, output_type="np", return_dict=False)
    assert arrays.shape == (2, 8, 8, 1) and arrays.min() >= 0 and arrays.max() <= 1


@pytest.mark.parametrize("labels", [[-1], [0, 10], []])
def test_pipeline__label_out_of_range(pipeline, labels):
    with pytest.raises(InputError, match="class_labels must be from 0 to 9"):
        pipeline(labels)


def test_pipeline__bad_options(pipeline):
    with pytest.raises(InputError, match="guidance_scale must be >= 1"):
        pipeline(0, guidance_scale=0.5)
    with pytest.raises(InputError, match="output_type must be pil, np or pt, got 'jpg'"):
        pipeline(0, output_type="jpg")


def test_pipeline__no_guidance_where_the_null_class_was_not_learnt(tmp_path):
    """Saved by the model, then by the pipeline; a config.json that does not say is guided, as before."""
    model = UViT.from_preset("tiny", num_classes=10)
    model.register_to_config(null_trained=False)
    save_model(model, tmp_path / "first", {})
    UViTPipeline.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
    for name in ("first", "second"):
        pipeline = UViTPipeline.from_pretrained(tmp_path / name)
        assert len(pipeline([1], num_inference_steps=1).images) == 1
        with pytest.raises(InputError, match=r"trained with label_dropout 0.* Leave out .*guidance_scale"):
            pipeline([1], guidance_scale=2.0)
    place = tmp_path / "first" / "config.json"
    config = read_json(place)
    config.pop("null_trained")
    write_json(place, config)
    pipeline = UViTPipeline.from_pretrained(tmp_path / "first")
    assert len(pipeline([1], guidance_scale=2.0, num_inference_steps=1).images) == 1


def test_pipeline__saves_and_loads_again(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "copy")
    again = UViTPipeline.from_pretrained(tmp_path / "copy")
    draw = lambda p: p([1], num_inference_steps=3, generator=torch.Generator().manual_seed(0), output_type="pt").images  # noqa: E731
    assert torch.equal(draw(pipeline), draw(again))


def test_pipeline__saved_is_a_model_for_the_sampler(pipeline, model, tmp_path):
    pipeline.save_pretrained(tmp_path / "copy")
    drawn = sample(tmp_path / "copy", num_per_class=1, steps=2, bf16=False)
    assert torch.equal(drawn.images, sample(model, num_per_class=1, steps=2, bf16=False).images)
    assert drawn.meta["data"] is None  # a pipeline's folder does not say what it was trained on


def test_folder__is_still_what_the_sampler_reads(folder, model):
    loaded, card = load_model(folder)
    assert card["step"] == 12
    assert torch.equal(
        Sampler(loaded, steps=2, bf16=False).draw(range(3)), Sampler(model, steps=2, bf16=False).draw(range(3))
    )


def test_folder__uploaded_as_it_is_has_what_others_need(folder):
    """Card with its picture, data and recipe, the pipeline with its code, scheduler and weights; nothing else."""
    needed = {"README.md", "grid.png", "gendd.json", "model_index.json", "pipeline.py", "scheduler_config.json"}
    needed |= {"config.json", "diffusion_pytorch_model.safetensors"}
    assert {path.name for path in folder.iterdir()} == needed


def test_folder__weights_in_shards_are_read_too(model, tmp_path):
    model.save_pretrained(tmp_path / "shards", max_shard_size="1MB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    loaded, _ = load_model(tmp_path / "shards")
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))
    next((tmp_path / "shards").glob("*-00002-*")).unlink()
    with pytest.raises(InputError, match="damaged"):
        load_model(tmp_path / "shards")


def test_card__says_what_the_model_is(folder):
    text = (folder / "README.md").read_text()
    assert text.startswith("---\nlicense: apache-2.0\n") and (folder / "grid.png").is_file()
    wanted = ["digits, fingerprint `", "12 steps.", "lr: 0.0002", "| classifier_frechet | 0.25 |", "](grid.png)"]
    for words in (*wanted, "## Licence"):
        assert words in text
