"""What a job is keyed by."""

from dataclasses import replace

from core_dd.compare.configs import told
from core_dd.compare.jobs import Job, key_of
from core_dd.compare.reading import DataChoice
from matching_dd.methods.dm import DMConfig

ORIGINS = {"digits": {"fingerprint": "f"}}


def job(**options) -> Job:
    return Job(
        kind="set", title="x", function="x:y", data=DataChoice("digits", name="digits"), **told(DMConfig(**options))
    )


def test_key__changes_with_every_option_that_decides_what_comes_out():
    keys = {key_of(job(**options), ORIGINS, "1") for options in ({}, {"lr_img": 2.0}, {"seed": 1}, {"init": "noise"})}
    assert len(keys) == 4
    assert {key_of(job(**options), ORIGINS, "1") for options in ({"log_every": 3}, {"lr_img": 1.0})} < keys
    assert key_of(job(), ORIGINS, "2") not in keys and key_of(job(), {"digits": {"fingerprint": "g"}}, "1") not in keys


def test_key__is_the_same_after_an_option_was_added_whose_default_changes_nothing():
    now = job()
    before = replace(now, options={key: own for key, own in now.options.items() if key != "val_fraction"})
    assert "val_fraction" in now.options and key_of(before, ORIGINS, "1") == key_of(now, ORIGINS, "1")
    other = replace(now, options=now.options | {"val_fraction": 0.1})
    assert key_of(other, ORIGINS, "1") != key_of(now, ORIGINS, "1")


def test_key__changes_with_the_code_of_a_network_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    source = tmp_path / "network_of_keys.py"
    source.write_text("def net(in_shape, num_classes): ...\n")
    own = replace(job(), options=job().options | {"network": "network_of_keys:net"})
    before = key_of(own, ORIGINS, "1")
    assert key_of(own, ORIGINS, "1") == before
    source.write_text("def net(in_shape, num_classes): ...  # another\n")
    assert key_of(own, ORIGINS, "1") != before
    assert len({key_of(replace(own, options={"network": name}), ORIGINS, "1") for name in ("timm:a", "timm:b")}) == 2
