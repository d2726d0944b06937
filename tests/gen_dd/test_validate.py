"""Evaluation while training: what is measured, by which names, and that the best is kept."""

import pytest
import torch

from core_dd.data.images import load_data
from core_dd.errors import InputError
from core_dd.judge import fidelity
from core_dd.records import read as read_json
from core_dd.run import read_stats
from gen_dd.options import TrainConfig
from gen_dd.train import train
from gen_dd.validate import Validator, is_better
from gen_dd.weights import load_model

NETWORK = "convnet1_w8"
QUICK = {
    "iterations": 8, "batch_size": 8, "warmup": 2, "lr": 1e-3, "ema_decay": 0.5, "log_every": 3, "checkpoint_every": 4,
    "grid_every": 0, "tracker": "none",
    "check_images": 0, "device": "cpu", "limit_per_class": 8, "bf16": False, "compile": False,
    "eval_every": 4, "eval_images": 30, "eval_steps": 2, "inception_weights": "none",
    "eval_network": NETWORK,
}  # fmt: skip


@pytest.fixture(scope="module")
def data():
    return load_data("digits", limit_per_class=8, val_fraction=0.25)


@pytest.fixture(scope="module")
def inception(tmp_path_factory):
    """A file of Inception weights, drawn at random."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Random(FeatureExtractorInceptionV3):
        def load_state_dict(self, state):
            """Leave the weights as they were drawn."""

    folder = tmp_path_factory.mktemp("inception")
    torch.save({}, folder / "none.pth")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Random("inception-v3-compat", ["2048"], feature_extractor_weights_path=folder / "none.pth")
    torch.save(net.state_dict(), folder / "inception.pth")
    return folder / "inception.pth"


def make_validator(data, **options):
    defaults = {
        "images": 20,
        "ipc": 0,
        "inception_weights": "none",
        "network": NETWORK,
        "seed": 0,
        "device": torch.device("cpu"),
    }
    return Validator.open(data, **defaults | options)


def test_measure__without_inception_the_substitute_has_its_own_name(data):
    validator = make_validator(data)
    images, labels = data.train_images[:20], data.train_labels[:20]
    scores = validator.measure(images, labels)
    expected = fidelity.classifier_frechet(images, data, fidelity.real_classifier(data, NETWORK, 0))
    assert scores == {"classifier_frechet": pytest.approx(expected, rel=1e-3)}
    assert validator.notes == (
        "FID is not measured because inception_weights is 'none'; classifier_frechet takes its place.",
    )


def test_measure__classifier_is_trained_once_for_all_runs(data):
    scores = [make_validator(data).measure(data.val_images, data.val_labels) for _ in range(2)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)


@pytest.mark.slow
def test_measure__fid_is_torch_fidelitys(inception):
    """The features are those of torch-fidelity's own loader; the distance of so few is a sum of singular values."""
    from torch_fidelity.utils import create_feature_extractor, get_featuresdict_from_dataset

    few = load_data("digits", limit_per_class=1, val_fraction=0.0)
    images = few.test_images[:6]
    validator = make_validator(few, inception_weights=str(inception), images=6)
    ours = validator.measure(images, few.test_labels[:6])["fid"]

    options = {"feature_extractor_weights_path": str(inception), "verbose": False}
    net = create_feature_extractor("inception-v3-compat", ["2048"], cuda=False, **options)
    a, b = (
        get_featuresdict_from_dataset(Listed(part.expand(-1, 3, -1, -1)), net, 8, False, True, False)["2048"].double()
        for part in (images, few.train_images)
    )
    shift = (a.mean(0) - b.mean(0)).square().sum()
    a, b = ((part - part.mean(0)) / (len(part) - 1) ** 0.5 for part in (a, b))
    expected = shift + a.square().sum() + b.square().sum() - 2 * torch.linalg.svdvals(a @ b.T).sum()
    assert ours == pytest.approx(expected.item(), rel=1e-3) and validator.notes == ()

    again = make_validator(few, inception_weights=str(inception))
    again.data = None  # the statistics kept beside the others do without it
    assert torch.equal(again._cached_reference()[0], validator._reference[0])
    other = make_validator(load_data("digits", limit_per_class=1, seed=1), inception_weights=str(inception))
    assert not torch.equal(other._cached_reference()[0], validator._reference[0])  # as many images, but others


class Listed(torch.utils.data.Dataset):
    """Images as torch-fidelity wants them."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i]


def test_load_inception__damaged_download_is_said_and_done_without(data, tmp_path, monkeypatch):
    place = tmp_path / "hub" / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"half a download")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    validator = make_validator(data, inception_weights=None)
    assert validator.inception is None and "its weights could not be downloaded (" in validator.notes[0]


def test_load_inception__bad_file(data, tmp_path):
    with pytest.raises(InputError, match="no Inception weights at nowhere.pth"):
        make_validator(data, inception_weights="nowhere.pth")
    torch.save({"weight": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="holds no weights of torch-fidelity's Inception"):
        make_validator(data, inception_weights=str(tmp_path / "other.pth"))


@pytest.mark.slow
def test_accuracy__of_the_real_images_on_the_validation_split(data):
    validator = make_validator(data, network="convnet2_w16")
    right = validator.accuracy(data.train_images, data.train_labels)
    wrong = validator.accuracy(data.train_images, (data.train_labels + 1) % 10)
    assert right > 0.6 and wrong < 0.2


def test_is_better__by_the_first_that_was_measured():
    assert is_better({"fid": 3.0}, {"fid": 4.0}) and not is_better({"fid": 4.0}, {"fid": 4.0})
    assert is_better({"fid": 9.0, "val_accuracy": 0.6}, {"fid": 4.0, "val_accuracy": 0.5})
    assert is_better({"fid": 3.0}, {"classifier_frechet": 1.0}) and is_better({"fid": 3.0}, {})


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train") / "run"
    train(TrainConfig(**QUICK | {"out": str(folder), "val_fraction": 0.25, "eval_ipc": 4}))
    return folder


def test_train__logs_evaluations_and_keeps_the_best(evaluated):
    lines = {line["step"]: line for line in read_stats(evaluated / "stats.jsonl")}
    assert sorted(lines) == [3, 4, 6, 8]
    assert {"classifier_frechet", "val_accuracy", "loss"} <= lines[4].keys() and "val_accuracy" not in lines[6]
    best = max((4, 8), key=lambda step: (lines[step]["val_accuracy"], -step))
    _, card = load_model(evaluated / "best")
    assert card["step"] == best
    assert card["metrics"] == {name: lines[best][name] for name in ("classifier_frechet", "val_accuracy")}
    assert [path.name for path in (evaluated / "models").iterdir()] == [f"step-{best:06d}"]


def test_train__the_model_has_a_card_with_picture_and_metrics(evaluated):
    text = (evaluated / "model" / "README.md").read_text()
    assert "| val_accuracy |" in text and (evaluated / "model" / "grid.png").is_file()
    assert read_json(evaluated / "model" / "gendd.json")["train"]["val_fraction"] == 0.25


def test_train__evaluation_changes_no_step(evaluated, tmp_path):
    train(TrainConfig(**QUICK | {"out": str(tmp_path / "run"), "val_fraction": 0.25, "eval_every": 0}))
    plain, ours = (load_model(folder)[0] for folder in (tmp_path / "run", evaluated))
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), ours.parameters(), strict=True))


def test_train__evaluates_with_another_solver_from_a_resume_on(evaluated, tmp_path):
    options = QUICK | {"out": str(tmp_path / "run"), "val_fraction": 0.25, "eval_ipc": 4}
    train(TrainConfig(**options | {"iterations": 4}))
    train(TrainConfig(**options, resume=True, eval_solver="dpm_fast"))
    ours, theirs = (read_stats(folder / "stats.jsonl") for folder in (tmp_path / "run", evaluated))
    assert ours[1] == pytest.approx(theirs[1], rel=1e-5) and ours[-1]["loss"] == theirs[-1]["loss"]
    assert ours[-1]["classifier_frechet"] != pytest.approx(theirs[-1]["classifier_frechet"], rel=1e-3)
    with pytest.raises(InputError, match="unknown eval_solver 'dpm-fast'; did you mean 'dpm_fast'"):
        TrainConfig(eval_solver="dpm-fast")


def test_train__resumed_evaluations_equal_the_uninterrupted_ones(evaluated, tmp_path):
    options = QUICK | {"out": str(tmp_path / "run"), "val_fraction": 0.25, "eval_ipc": 4}
    train(TrainConfig(**options | {"iterations": 4}))
    train(TrainConfig(**options, resume=True))
    ours, theirs = (read_stats(folder / "stats.jsonl")[-1] for folder in (tmp_path / "run", evaluated))
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert (tmp_path / "run" / "best").resolve().name == (evaluated / "best").resolve().name


def test_train__scores_that_were_measured_otherwise_do_not_rule_the_best(tmp_path):
    """A distance of few samples is larger than that of many, whatever the model."""
    options = QUICK | {"out": str(tmp_path / "run"), "grid_every": 0}
    train(TrainConfig(**options | {"iterations": 4, "eval_images": 300}))
    train(TrainConfig(**options, resume=True))
    card = load_model(tmp_path / "run" / "best")[1]
    assert card["step"] == 8 and card["train"]["eval_images"] == 30
    assert read_stats(tmp_path / "run" / "stats.jsonl")[-1]["classifier_frechet"] > 0


def test_train__a_card_has_the_scores_of_its_own_step(tmp_path):
    train(TrainConfig(**QUICK | {"out": str(tmp_path / "run"), "checkpoint_every": 3, "keep": 9}))
    checkpoints = tmp_path / "run" / "checkpoints"
    cards = {step: load_model(checkpoints / f"step-{step:06d}")[1]["metrics"] for step in (3, 6, 8)}
    assert cards[3] == cards[6] == {} and cards[8].keys() == {"classifier_frechet"}
