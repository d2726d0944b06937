"""Experts against a plain training loop; what the command writes; resume after kill -9; foreign folders."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from commands import Process
from safetensors.torch import load_file, save_file

from core_dd import files, records
from core_dd.data.images import load_data
from core_dd.errors import InputError
from core_dd.judge.augment import DSAugment
from core_dd.judge.networks import build_network
from core_dd.judge.training import initialise
from core_dd.rng import stream
from core_dd.run import read_stats
from core_dd.sets.distilled import read_tensors
from matching_dd.experts import Experts, ExpertsConfig, main, record
from matching_dd.methods import METHODS
from matching_dd.methods.mtt import MTTConfig

SMALL = {"network": "convnet1_w8", "epochs": 3, "tracker": "none", "device": "cpu"}


def contents(folder: str) -> dict[str, bytes]:
    """Every expert file of a folder."""
    return {path.name: path.read_bytes() for path in sorted(Path(folder).glob("expert-*"))}


@pytest.mark.parametrize("augment", ["dsa", "none"])
def test_record__equals_plain_training(digits, augment):
    """MTT's: plain SGD at one learning rate, shuffled batches, the last one shorter, DSA; weights after every epoch."""
    options = SMALL | {"epochs": 2, "lr": 0.1, "batch_size": 400, "augment": augment, "seed": 5, "bf16": False}
    record(ExpertsConfig(experts=2, out="run", **options), digits)
    experts = Experts("run", digits, "convnet1_w8", "mean_std")
    assert (len(experts), experts.epochs) == (2, 2)
    seed = stream(5, "experts").initial_seed()
    net = build_network("convnet1_w8", digits.shape, 10, stream(seed, "network", 1))
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    for epoch in range(3):
        recorded = experts.weights(1, epoch)
        assert recorded.keys() == net.state_dict().keys()
        for name, tensor in net.state_dict().items():
            torch.testing.assert_close(recorded[name], tensor, rtol=1e-4, atol=1e-5)
        order = torch.randperm(len(digits.train_labels), generator=stream(seed, "order", 1, epoch))
        for i, batch in enumerate(order.split(400)):
            x = (digits.train_images[batch] / 255 - digits.mean[0]) / digits.std[0]
            if augment == "dsa":
                generator = stream(seed, "augment", 1, 4 * epoch + i)
                x = DSAugment("color_crop_cutout_scale_rotate").per_image(x[None], [generator])[0]
            sgd.zero_grad()
            F.cross_entropy(net(x), digits.train_labels[batch]).backward()
            sgd.step()


def test_judge__begins_with_no_weights_that_sets_were_learnt_on(digits):
    """Else a set would be judged by the very networks that it was matched in."""
    judged = initialise("convnet1_w8", digits, range(5), 0, torch.device("cpu"))[1]["classifier.weight"]
    record(ExpertsConfig(experts=5, out="run", **SMALL | {"epochs": 1}), digits)
    recorded = Experts("run", digits, "convnet1_w8", "mean_std")
    drawn = [recorded.weights(expert, 0)["classifier.weight"] for expert in range(5)]
    for name in ("dm", "m3d", "dc", "idm", "cafe"):
        options = {"ipc": 1, "network": "convnet1_w8", "batch_real": 8, "compile": False, "device": "cpu"}
        method = METHODS[name](METHODS[name].Config(method=name, **options), digits)
        drawn += [method.draw_network(step).classifier.weight.detach().clone() for step in range(5)]
    assert not any(torch.equal(own, other) for own in judged for other in drawn)


def test_command__writes_files_and_index(digits):
    main(["--network=convnet1_w8", "--experts=3", "--epochs=4", "--at_once=2", "--tracker=none", "--out=run"])
    index = records.read(Path("run/index.json"))
    assert index["files"] == [f"expert-0000{i}.safetensors" for i in range(3)] == list(contents("run"))
    assert (index["network"], index["preprocess"], index["epochs"]) == ("convnet1_w8", "mean_std", 4)
    assert index["fingerprint"] == digits.fingerprint
    tensors, _ = read_tensors(Path("run/expert-00002.safetensors"))
    assert tensors["classifier.bias"].shape == (5, 10)
    losses = [line["loss"] for line in read_stats(Path("run/stats.jsonl"))]
    assert len(losses) == 8 and losses[3] < losses[0] and losses[7] < losses[4]


def test_resume__wants_as_many_experts(digits):
    record(ExpertsConfig(experts=2, out="run", **SMALL | {"epochs": 1}), digits)
    with pytest.raises(InputError, match="was started with experts 2, now it is 3"):
        record(ExpertsConfig(experts=3, out="run", resume=True, **SMALL | {"epochs": 1}), digits)


def test_record__is_the_same_whatever_is_trained_at_once(digits):
    for at_once in (1, 3):
        record(ExpertsConfig(experts=3, at_once=at_once, out=f"run{at_once}", **SMALL), digits)
    assert contents("run1") == contents("run3")


def test_batch_norm__statistics_are_recorded(digits):
    record(ExpertsConfig(experts=1, out="run", **SMALL | {"network": "convnet1_bn_w8"}), digits)
    weights = Experts("run", digits, "convnet1_bn_w8", "mean_std").weights(0, 3)
    assert weights["blocks.0.1.num_batches_tracked"] == 3 * 6 and weights["blocks.0.1.running_mean"].abs().max() > 0


def test_resume__after_kill_equals_uninterrupted_bit_for_bit():
    """Killed in the middle of an expert's training; with batch normalisation there are buffers to keep, too."""

    flags = ["--network=convnet1_bn_w8", "--experts=2", "--epochs=7", "--checkpoint_every=1", "--tracker=none"]
    process = Process("-m", "matching_dd.experts", *flags, "--device=cpu", "--out=killed")
    process.kill_once(lambda: list(Path("killed/checkpoints").glob("step-00000[2-9]")))
    assert not Path("killed/index.json").exists()
    main([*flags, "--device=cpu", "--out=killed", "--resume"])
    main([*flags, "--device=cpu", "--out=whole"])
    assert "resumed at epoch" in Path("killed/log.txt").read_text()
    assert contents("killed") == contents("whole") and len(contents("whole")) == 2
    assert Path("killed/stats.jsonl").read_bytes() == Path("whole/stats.jsonl").read_bytes()


def test_resume__refuses_other_images_under_the_same_path(digits):
    record(ExpertsConfig(experts=1, out="run", **SMALL), digits)
    other = replace(digits, train_images=digits.train_images.flip(3))
    with pytest.raises(InputError, match="run was begun with other data: their training_digest was"):
        record(ExpertsConfig(experts=1, out="run", resume=True, **SMALL), other)


def test_dry_run__prints_what_to_expect_and_writes_nothing(capsys):
    main(["--network=convnet1_w8", "--experts=7", "--epochs=9", "--dry_run", "--at_once=2"])
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["experts"] == 7
    assert "4 group(s) of 2, 6 steps per epoch" in printed and "# disk: " in printed and "# time: " in printed
    assert not list(Path().iterdir())


def test_experts__refuses_missing_and_foreign_ones(digits):
    record(ExpertsConfig(experts=1, out="run", **SMALL), digits)

    def refused(folder, message, data=digits, network="convnet1_w8", preprocess="mean_std"):
        with pytest.raises(InputError, match=message):
            Experts(folder, data, network, preprocess)

    refused(None, "give the folder of recorded experts: --experts FOLDER. Record some: gendd experts --data digits")
    refused("nowhere", "no experts at nowhere: there is no index.json. Record some: gendd experts")
    refused("run", "experts of digits .*, but the data are mnist", data=replace(digits, name="mnist", fingerprint="x"))
    for count in (1, 2):
        part = load_data("digits", limit_per_class=count)
        refused("run", rf"run holds experts trained on other training images of digits than these {10 * count}: ", part)
    refused("run", "network convnet1_w8, but the distillation has convnet2. Pass --network", network="convnet2")
    refused("run", "preprocess mean_std, but the distillation has zca", preprocess="zca")
    expert = Path("run/expert-00000.safetensors")
    expert.write_bytes(expert.read_bytes()[:500])
    with pytest.raises(InputError, match="cannot read run/expert-00000.safetensors"):
        Experts("run", digits, "convnet1_w8", "mean_std").weights(0, 0)


def test_experts__are_not_believed(digits):
    record(ExpertsConfig(experts=2, out="run", **SMALL), digits)
    place, file = Path("run/index.json"), Path("run/expert-00000.safetensors")
    index, own = records.read(place), load_file(file)
    for changes, message in (
        ({"files": ["../run/expert-00000.safetensors"]}, "names '../run/expert-00000.safetensors'"),
        ({"files": ["expert-00000.safetensors"] * 2}, "lists 'expert-00000.safetensors' twice"),
        ({"files": "all"}, "at files: expected array"),
        ({"epochs": "many"}, "at epochs: expected int"),
        ({"epochs": 0}, "at epochs: expected int >= 1"),
        ({"network": 3}, "at network: expected str"),
    ):
        files.write_json(place, index | changes)
        with pytest.raises(InputError, match=message):
            Experts("run", digits, "convnet1_w8", "mean_std")
    files.write_json(place, index)
    name = next(iter(own))
    save_file(own | {name: torch.zeros(len(own[name]), 1)}, file)
    with pytest.raises(InputError, match="is no trajectory of the network"):
        Experts("run", digits, "convnet1_w8", "mean_std")
    save_file({key: tensor.half() for key, tensor in own.items()}, file)
    with pytest.raises(InputError, match="is not of 32 bits, as experts are recorded"):
        Experts("run", digits, "convnet1_w8", "mean_std")
    save_file(own | {name: torch.full_like(own[name], torch.nan)}, file)
    with pytest.raises(InputError, match="weights that are not finite after epoch 1"):
        Experts("run", digits, "convnet1_w8", "mean_std").weights(0, 1)


def test_experts__of_a_subset_are_for_that_subset(digits):
    """Which images of a class are left is drawn by the seed; their order and number do not tell."""
    part, other = (load_data("digits", limit_per_class=5, seed=seed) for seed in (0, 1))
    record(ExpertsConfig(experts=1, out="run", **SMALL), part)
    assert len(Experts("run", load_data("digits", limit_per_class=5), "convnet1_w8", "mean_std")) == 1
    for data in (other, digits):
        with pytest.raises(InputError, match="run holds experts trained on other training images of digits"):
            Experts("run", data, "convnet1_w8", "mean_std")


def test_experts__keep_the_validation_split_of_a_distillation_aside(digits):
    main(["--network=convnet1_w8", "--experts=1", "--epochs=1", "--val_fraction=0.2", "--seed=3", "--tracker=none",
          "--out=run"])  # fmt: skip
    split = load_data("digits", val_fraction=0.2, seed=3)
    assert len(Experts("run", split, "convnet1_w8", "mean_std")) == 1
    config = MTTConfig(val_fraction=0.2, seed=4)
    with pytest.raises(InputError, match=r"trained on other .* gendd experts .* --val_fraction 0\.2 --seed 4\."):
        Experts("run", config.load_data(4, 0.2), "convnet1_w8", "mean_std", config)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"experts": 0}, "experts must be >= 1, got 0"),
        ({"epochs": 0}, "epochs must be >= 1, got 0"),
        ({"at_once": 0}, "at_once must be >= 1, got 0"),
        ({"lr": 0.0}, "lr must be > 0, got 0"),
        ({"val_fraction": 1.0}, r"val_fraction must be in \[0, 1\), got 1\.0"),
        ({"augment": "dsaa"}, "unknown augment 'dsaa'; did you mean 'dsa'"),
    ],
)
def test_config__refuses(options, message):
    with pytest.raises(InputError, match=message):
        ExpertsConfig(**options)


def test_record__diverging_stops_before_anything_is_kept(digits):
    with pytest.raises(InputError, match="loss is nan at step"):
        record(ExpertsConfig(experts=1, out="run", **SMALL | {"lr": 1e30}), digits)
    assert not contents("run")
