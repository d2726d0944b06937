import dataclasses

import pytest
import torch
from conftest import shared_data
from makers import write_image_folder

from core_dd import records
from core_dd.data.images import load_data
from core_dd.errors import InputError
from core_dd.judge import unfinished
from core_dd.judge.submit import TARGETS, SubmitConfig, from_tensor, judged_by, main, submit, target_of, to_tensor
from core_dd.judge.training import Training
from core_dd.sets.distilled import DistilledSet, new_meta


@pytest.fixture
def data(digits, generator):
    """20 classes of random colour images that call themselves CIFAR-100."""
    images = torch.randint(0, 256, (240, 3, 32, 32), generator=generator, dtype=torch.uint8)
    labels = torch.arange(240) % 20
    return dataclasses.replace(
        digits, name="cifar100", train_images=images, train_labels=labels, test_images=images[:40],
        test_labels=labels[:40], class_names=tuple(map(str, range(20))),
    )  # fmt: skip


def made(data, count):
    meta = new_meta(data, method="uvit", ipc=None, seed=0)
    return DistilledSet(data.train_images[:count], data.train_labels[:count], meta)


def test_to_tensor__class_by_class_and_normalised(data):
    tensor = to_tensor(made(data, 200), TARGETS["cifar100"], 20, track=1)
    assert tensor.shape == (200, 3, 32, 32) and tensor.dtype == torch.float32
    expected = (data.train_images[7 + 20].float() / 255)[1] * (1 / 0.2564) - 0.4866 / 0.2564
    assert torch.allclose(tensor[7 * 10 + 1, 1], expected, atol=1e-5)  # class 7's second image, green channel


def test_to_tensor__track_2_hands_in_the_fullest_equal_number(data):
    assert len(to_tensor(made(data, 139), TARGETS["cifar100"], 20, track=2)) == 120  # 6 or 7 per class


def test_to_tensor__track_1_wants_ten(data):
    with pytest.raises(InputError, match="track 1 wants 10 images per class, the set has 6 to 7"):
        to_tensor(made(data, 139), TARGETS["cifar100"], 20, track=1)


def test_from_tensor__round_trip(data, tmp_path):
    torch.save(to_tensor(made(data, 200), TARGETS["cifar100"], 20, track=1), tmp_path / "cifar100.pt")
    again = from_tensor(tmp_path / "cifar100.pt", data, TARGETS["cifar100"])
    assert again.labels.tolist() == [k for k in range(20) for _ in range(10)]
    assert torch.allclose(again.images[71], data.train_images[27].float() / 255, atol=1e-6)


@pytest.mark.parametrize(
    "tensor", [torch.zeros(199, 3, 32, 32), torch.zeros(200, 3, 28, 28), torch.zeros(200).double()]
)
def test_from_tensor__refuses_other_shapes(data, tmp_path, tensor):
    torch.save(tensor, tmp_path / "cifar100.pt")
    with pytest.raises(InputError, match=r"expected float32 \(ipc x 20, 3, 32, 32\)"):
        from_tensor(tmp_path / "cifar100.pt", data, TARGETS["cifar100"])


def test_submit__only_challenge_data(data):
    with pytest.raises(InputError, match="x is no dataset of the challenge: by its content it is mnist, of 20 classes"):
        target_of(dataclasses.replace(data, name="mnist"), "x")
    with pytest.raises(InputError, match=r"x has 20 classes .* but the challenge wants 100 and \(3, 32, 32\)"):
        target_of(data, "x")
    names, images = tuple(map(str, range(100))), data.train_images[:, :, :16, :16]
    with pytest.raises(InputError, match=r"images of shape \(3, 16, 16\), but"):
        target_of(dataclasses.replace(data, class_names=names, train_images=images), "x")


@pytest.fixture
def toy(tmp_path, generator, monkeypatch):
    """Flags for ten images of each of 4 classes, 8x8, which the challenge is made to know as toy; they are the set."""
    target = dataclasses.replace(TARGETS["cifar100"], classes=4, shape=(3, 8, 8))
    monkeypatch.setattr("core_dd.judge.submit.TARGETS", {"toy": target})
    images = torch.randint(0, 256, (40, 8, 8, 3), generator=generator, dtype=torch.uint8).numpy()
    for split in ("train", "test"):
        write_image_folder(tmp_path / "toy" / split, images, [number % 4 for number in range(40)])
    made(load_data("folder:toy"), 40).save("set.safetensors")
    return {"data": "folder:toy", "set": "set.safetensors", "out": "out", "device": "cpu"}


def test_submit__takes_a_file_of_other_people_and_what_it_leaves_open(toy):
    data = load_data("folder:toy")
    torch.save([data.train_images.float() / 255, data.train_labels], "data.pt")
    with pytest.raises(InputError, match="how many tiles an image holds. Add --factor 2"):
        submit(SubmitConfig(**toy | {"set": "data.pt"}))
    path, _ = submit(SubmitConfig(**toy | {"set": "data.pt"}, factor=1, iterations=2))
    ours, _ = submit(SubmitConfig(**toy | {"out": "ours"}, iterations=2))
    assert torch.allclose(torch.load(path), torch.load(ours), atol=1e-6)


def test_submit__says_how_much_of_the_protocol_scored_it_and_in_which_order(tmp_path, toy, capsys):
    main([word for name, value in toy.items() for word in (f"--{name}", value)] + ["--iterations", "2"])
    said = capsys.readouterr().out
    assert "scored by the challenge protocol with 2 steps instead of 1001: " in said
    assert "its classes are in the order class0, class1, class2, ..., class3 " in said
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["cifar100.pt", "cifar100.scores.json"]
    scores = records.read(tmp_path / "out" / "cifar100.scores.json")
    assert scores["data"]["class_names"] == [f"class{k}" for k in range(4)]
    assert judged_by(SubmitConfig(**toy, epochs=3), 1000) == "the challenge protocol with 16 steps instead of 4004"
    assert judged_by(SubmitConfig(**toy), 1000) == "the challenge protocol"


def test_submit__nothing_stands_there_before_it_was_scored(tmp_path, toy, monkeypatch):
    def fails(*_, **__):
        raise InputError("found by the scoring alone")

    monkeypatch.setattr("core_dd.judge.submit.evaluate", fails)
    with pytest.raises(InputError, match="found by the scoring alone"):
        submit(SubmitConfig(**toy, iterations=2))
    assert not list(tmp_path.glob("out/*"))


def test_submit__goes_on_with_its_scoring(tmp_path, toy, monkeypatch, capsys):
    step = Training.step

    def until_six(self, number):
        if number == 6:
            raise KeyboardInterrupt
        return step(self, number)

    monkeypatch.setattr(unfinished, "EVERY_S", 0.0)
    monkeypatch.setattr(unfinished, "_SHARE", float("inf"))
    with monkeypatch.context() as stopped, pytest.raises(KeyboardInterrupt):
        stopped.setattr(Training, "step", until_six)
        submit(SubmitConfig(**toy, iterations=8))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["cifar100.pt.training"]
    submit(SubmitConfig(**toy, iterations=8))
    assert "goes on at step 6 of 8" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["cifar100.pt", "cifar100.scores.json"]


@pytest.mark.parametrize("bf16", [True, False])
def test_submit__scores_in_bf16_only_where_it_may(toy, monkeypatch, bf16):
    told = []

    def stops(*_, bf16, **__):
        told.append(bf16)
        raise InputError("stop")

    monkeypatch.setattr("core_dd.judge.submit.evaluate", stops)
    with pytest.raises(InputError, match="stop"):
        submit(SubmitConfig(**toy, bf16=bf16))
    assert told == [bf16]


def test_submit__refuses_what_does_not_fit(tmp_path, toy):
    data = load_data("folder:toy")
    foreign, few, soft = (made(data, 40) for _ in range(3))
    few.images, few.labels = (tensor[[0, 1, 10, 11, 20, 21, 30, 31]] for tensor in (few.images, few.labels))
    foreign.meta |= {"data": "mnist", "fingerprint": "ea358c2091367acc"}
    soft.labels = torch.full((40, 4), 0.25)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "cifar100.pt").touch()
    for name, dset, message in (
        ("foreign", foreign, "was made from mnist"),
        ("few", few, "track 1 wants 10 images per class, the set has 2 to 2"),
        ("soft", soft, "takes no soft labels"),
    ):
        dset.save(f"{name}.safetensors")
        with pytest.raises(InputError, match=message):
            submit(SubmitConfig(**toy | {"set": f"{name}.safetensors"}))
    with pytest.raises(InputError, match="there/cifar100.pt exists"):
        submit(SubmitConfig(**toy | {"out": "there"}))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_submit__on_real_cifar100(tmp_path):
    """Ten real images per class, written, reread and scored by two steps of the challenge protocol."""
    place = shared_data("cifar100")
    data = load_data(f"parquet:{place}")
    index = torch.cat([members[:10] for members in data.class_indices()])
    meta = new_meta(data, method="random", ipc=10, seed=0)
    DistilledSet(data.train_images[index], data.train_labels[index], meta).save(tmp_path / "set.safetensors")
    options = {"data": f"parquet:{place}", "set": str(tmp_path / "set.safetensors"), "out": str(tmp_path / "out")}
    path, scores = submit(SubmitConfig(**options, iterations=2))
    assert torch.load(path, weights_only=True).shape == (1000, 3, 32, 32)
    assert len(scores.accuracies) == 3 and scores.record["smoke"]
