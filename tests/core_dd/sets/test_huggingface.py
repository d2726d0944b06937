"""A set on the Hub: load_dataset reads it, its card says what it is, nothing is sent unasked, it comes back whole."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from core_dd.errors import InputError
from core_dd.sets.distilled import DistilledSet, new_meta
from core_dd.sets.export import export


@pytest.fixture
def dset(digits):
    index = torch.cat([members[:2] for members in digits.class_indices()])
    meta = new_meta(digits, method="DM", ipc=2, seed=0) | {"lr": 0.02}
    images, labels = digits.train_images[index].float() / 255 - 0.1, digits.train_labels[index]
    return DistilledSet(images, torch.eye(10)[labels] * 0.5 + 0.05, meta)


def test_load_dataset__reads_the_folder(dset, tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    folder = export(dset, tmp_path / "set", "huggingface")
    train = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(train) == 20 and train.features["label"].names == dset.meta["class_names"]
    assert isinstance(train.features["image"], datasets.Image) and train[3]["image"].size == (8, 8)
    assert torch.tensor(train["label"][:]).equal(dset.hard_labels)
    assert torch.tensor(train["soft_label"][:]).equal(dset.labels)


def test_card__is_what_the_hub_reads(dset, tmp_path):
    text = (export(dset, tmp_path / "set", "huggingface") / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    head = yaml.safe_load(head)
    assert head["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*"}]
    assert head["size_categories"] == ["n<1K"] and "dataset-distillation" in head["tags"]
    assert "| learned learning rate | 0.02 |" in body and "0, 1, 2, 3" in body and (tmp_path / "set/grid.png").is_file()


def test_set__comes_back_whole_or_from_parquet_alone(dset, digits, tmp_path):
    folder = export(dset, tmp_path / "set", "huggingface")
    again = DistilledSet.load(folder)
    assert again.digest() == dset.digest() and again.meta == dset.meta
    (folder / "distilled.safetensors").unlink()
    seen = DistilledSet.load(folder, digits)
    assert seen.images.dtype == torch.uint8 and torch.equal(seen.labels, dset.labels)
    assert torch.equal(seen.images, dset.images.clamp(0, 1).mul(255).round().byte())
    assert torch.equal(DistilledSet.load(folder / "data/train-00000-of-00001.parquet").images, seen.images)


@pytest.mark.parametrize("soft", [["a", "b"], [0.5, 0.5], [None, [0.5, 0.5]], [["a"], ["b"]]])
def test_read__soft_labels_that_are_no_numbers(dset, tmp_path, soft):
    folder = export(dset, tmp_path / "set", "huggingface")
    (folder / "distilled.safetensors").unlink()
    shard = folder / "data/train-00000-of-00001.parquet"
    table = pq.read_table(shard).slice(0, 2).drop_columns(["soft_label"])
    pq.write_table(table.append_column("soft_label", pa.array(soft)), shard)
    with pytest.raises(InputError, match="a soft_label is .*, expected a list of numbers"):
        DistilledSet.load(folder)


class Api:
    """What of `huggingface_hub.HfApi` is used; it keeps what it is asked."""

    def __init__(self, error=None):
        self.asked, self.error = [], error

    def create_repo(self, repo_id, **options):
        self.asked.append(("create", repo_id, options))
        return f"https://huggingface.co/datasets/{repo_id}"

    def upload_folder(self, *, folder_path, **options):
        from pathlib import Path

        files = sorted(str(file.relative_to(folder_path)) for file in Path(folder_path).rglob("*") if file.is_file())
        self.asked.append(("upload", files, options))
        if self.error:
            raise self.error


def test_push_to_hub__sends_the_folder_and_nothing_else(dset):
    api = Api()
    assert dset.push_to_hub("me/mine", private=True, api=api) == "https://huggingface.co/datasets/me/mine"
    (_, repo, made), (_, files, sent) = api.asked
    assert repo == "me/mine" and made == {"repo_type": "dataset", "private": True, "exist_ok": True}
    assert files == ["README.md", "data/train-00000-of-00001.parquet", "distilled.safetensors", "grid.png"]
    assert (sent["repo_id"], sent["repo_type"]) == ("me/mine", "dataset")


def test_push_to_hub__refused(dset):
    with pytest.raises(InputError, match="cannot push to mine: RuntimeError: 401. Log in .hf auth login."):
        dset.push_to_hub("mine", api=Api(RuntimeError("401\nmore")))


def test_export__to_a_place_that_is_taken(dset, tmp_path):
    (tmp_path / "set").mkdir()
    with pytest.raises(InputError, match="exists. Choose another"):
        export(dset, tmp_path / "set", "huggingface")
    dset.labels = dset.labels[:3]
    with pytest.raises(InputError, match="labels"):
        export(dset, tmp_path / "other", "huggingface")
    assert not (tmp_path / "other").exists()
