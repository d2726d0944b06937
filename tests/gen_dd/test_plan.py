"""A plan for a budget, by short trials on a validation split."""

import re

import pytest
import torch
from commands import ROOT
from commands import run as run_command

from core_dd import records
from core_dd.data.images import load_data
from core_dd.errors import InputError
from core_dd.files import write_json
from core_dd.judge.protocols import QUICK
from core_dd.sets.distilled import DistilledSet
from gen_dd import plan as planning
from gen_dd.budget import Clock
from gen_dd.options import SampleConfig
from gen_dd.plan import GROWTH, KEPT, Setting, Trials, halving, make_plan, settings
from gen_dd.sample import run
from gen_dd.sampler import Sampler
from gen_dd.sieve import Sieve
from gen_dd.uvit import UViT, image_flops
from gen_dd.weights import save_model

CPU = torch.device("cpu")
NETWORK = "convnet1_w8"
FACTS = {"weights": "", "solver": "dpmpp_2m", "seed": 0}
PLAIN, FILTERED = (Setting(steps=2, cfg_scale=0.0, filter=share) for share in (None, 0.05))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return UViT.from_preset("tiny", num_classes=10).eval()


@pytest.fixture
def folder(model, tmp_path):
    save_model(model, tmp_path / "run" / "model", {"data": "digits", "class_names": list("0123456789"), "train": {}})
    return tmp_path / "run"


@pytest.fixture
def short(monkeypatch):
    """Two settings, and classifiers that are trained for five steps."""
    monkeypatch.setattr(planning, "STEPS", {"": (1,)})
    monkeypatch.setattr(planning, "CFG_SCALES", (0.0,))
    monkeypatch.setattr(planning, "QUICK", QUICK.shortened(steps=5))


def test_settings__are_those_that_the_model_can_cheapest_first():
    plain, guided, tuned = settings("unipc", False), settings("dpmpp_2m", True), settings("consistency", False)
    assert {setting.cfg_scale for setting in plain} == {0.0} and len(guided) == 12
    assert sorted({setting.steps for setting in guided}) == [10, 20, 50]
    assert [setting.steps for setting in tuned] == [1, 1, 2, 2, 4, 4]
    costs = [setting.evaluations for setting in guided]
    assert costs == sorted(costs) and costs[-1] == 100


def test_halving__tries_the_best_again_with_more_and_believes_the_last_round():
    candidates, tried = settings("dpmpp_2m", True), []
    promising = candidates[2:7]

    def attempt(setting, times):
        tried.append((setting, times))
        rank = promising.index(setting) if setting in promising else 9
        return 7 * times, rank / 10 if times == GROWTH else 1 - rank / 10

    trials = halving(candidates, attempt)
    assert tried == [(setting, 1) for setting in candidates] + [(setting, GROWTH) for setting in promising[:KEPT]]
    assert [trial["round"] for trial in trials] == [1] * 12 + [2] * KEPT
    last = trials[12]
    assert (last["steps"], last["filter"]) == (promising[2].steps, promising[2].filter)
    assert last["per_class"] == 7 * GROWTH and last["accuracy"] == 0.2


def test_said__tells_how_sure_the_choice_is():
    trials = [
        {"round": number, "per_class": 5, "accuracy": accuracy, "steps": 2, "cfg_scale": 0.0, "filter": None}
        for number, accuracy in ((1, 0.99), (1, 0.8), (2, 0.9), (2, 0.86), (2, 0.83))
    ]
    chosen = {"steps": 2, "cfg_scale": 0.0, "filter": None}
    plan = {**FACTS, "budget": None, "seconds": 1.0, "validation_images": 144, "chosen": chosen, "trials": trials}
    sure = "steps 2, cfg_scale 0, filter none; 90.0 % (84.3 to 94.1) on 144 validation images, the best of 2 settings"
    assert planning.said(plan) == f"plan: {sure}, which they do not tell from 1 of the last round"
    assert planning.said(plan | {"validation_images": 10**6}).endswith(
        "90.0 % (89.9 to 90.1) on 1000000 validation images, the best of 2 settings"
    )
    for trial in trials[2:]:
        trial["accuracy"] += 0.1  # of all 20 right, nobody knows that all would be
    assert "100.0 % (83.9 to 100.0) on 20 validation images" in planning.said(plan | {"validation_images": 20})
    assert planning.said(plan | {"validation_images": 20}).endswith("tell from 2 of the last round")
    del plan["validation_images"]
    assert "100.0 % on the validation split" in planning.said(plan)


def trials_of(model, candidates, per_class=2):
    data = load_data("digits", val_fraction=0.1)
    sieve = Sieve.fit(data, 0.05, network=NETWORK, protocol="quick", seed=0, device=CPU)
    return Trials(
        lambda steps, cfg_scale: Sampler(model, steps=steps, cfg_scale=cfg_scale, bf16=False),
        lambda share: sieve, data, per_class, candidates,
        network=NETWORK, filter_network=NETWORK, seed=0, device=CPU,
    )  # fmt: skip


def test_trials__draw_with_equal_evaluations(model, short):
    dear = Setting(steps=5, cfg_scale=1.0, filter=None)
    trials = trials_of(model, [PLAIN, FILTERED, dear])
    assert trials(dear, 1)[0] == 2 and trials(PLAIN, 1)[0] == 10 and trials(PLAIN, 2)[0] == 20
    trials.passing[2, 0.0] = 0.5  # an image is drawn 1.875 times on average, at most 4 times
    trials.look = 0.0
    assert trials(FILTERED, 1)[0] == 5
    trials.look = 3.0  # 20 evaluations, of which an image takes 1.875 times 2 and 3
    assert trials(FILTERED, 1)[0] == 2
    assert trials(FILTERED, 1) == trials(FILTERED, 1)


def test_trials__count_a_look_of_the_filter_by_its_operations(model, short):
    products = 12 * 12 * 9 * 8 + 6 * 6 * 8 * 10  # a convolution of 1 to 8 channels (grey images padded), a linear layer
    assert trials_of(model, [PLAIN, FILTERED]).look == pytest.approx(2 * products / image_flops(model))


def test_make_plan__of_a_seed_is_the_same_whatever_the_machine(model, short):
    plans = []
    for seconds in (1.0, 100.0):
        trials = trials_of(model, [PLAIN, FILTERED], per_class=1)
        trials.forecast = lambda clock, seconds=seconds: seconds
        plans.append(make_plan(trials, Clock(1e4), **FACTS))
    assert all(plans[0][name] == plans[1][name] for name in ("chosen", "trials")) and len(plans[0]["trials"]) == 4


def test_trials__forecast_what_they_take(model, short):
    clock = Clock(10.0)
    few, many = (trials_of(model, [PLAIN, FILTERED], per_class).forecast(clock) for per_class in (1, 10**6))
    assert 0 < few < many and clock.parts.keys() == {"measure"}


def test_trials__forecast_counts_the_filter_by_its_own_network(model, short, monkeypatch):
    takes = {NETWORK: 10.0, "convnet3": 1000.0}
    monkeypatch.setattr(Trials, "judging", lambda self, network: takes[network])
    trials = trials_of(model, [PLAIN, FILTERED])
    trials.filter_network = "convnet3"
    assert 1040 <= trials.forecast(Clock(10.0)) < 1060


def test_make_plan__refuses_trials_that_do_not_fit(model, short, monkeypatch):
    monkeypatch.setattr(Trials, "forecast", lambda self, clock: 30.0)
    with pytest.raises(InputError, match=r"take about 30 s here, more than 50% of .* Give a budget of 6\d s or more"):
        make_plan(trials_of(model, [PLAIN]), Clock(20.0), **FACTS)
    clock = Clock(70.0)
    trials = trials_of(model, [PLAIN])
    trials.forecast = lambda own: setattr(clock, "budget", 0.01) or 1.0
    with pytest.raises(InputError, match="ended before the trials of --plan auto did"):
        make_plan(trials, clock, **FACTS)


def test_run__plans_draws_and_keeps_the_plan(folder, tmp_path, short, monkeypatch, capsys):
    monkeypatch.setattr(Trials, "forecast", lambda self, clock: 1.0)
    options = {"model": str(folder), "device": "cpu", "batch": 20, "plan_network": NETWORK, "filter_network": NETWORK}
    auto = options | {"plan": "auto", "plan_per_class": 1, "budget": "120s"}
    run(SampleConfig(**auto, out="pool", num_per_class=1))
    said, kept = capsys.readouterr().out, records.read(tmp_path / "pool" / "plan.json")
    chosen = kept["chosen"]
    assert len(kept["trials"]) == 4 and chosen["steps"] == 1
    assert said.count("\n") >= 2 + 4 and "validation accuracy" in said
    index = records.read(tmp_path / "pool" / "index.json")
    assert {name: index["identity"][name] for name in chosen} == chosen
    summary = (tmp_path / "pool" / "summary.txt").read_text()
    assert f"plan: steps {chosen['steps']}, cfg_scale 0, filter" in summary
    assert f") on {kept['validation_images']} validation images, the best of 2 settings" in summary
    assert re.search(r", plan [\d.]+ s", said), "what the trials took is accounted for"

    run(SampleConfig(**auto, out="pool", num_per_class=2, resume=True))
    assert "validation accuracy" not in capsys.readouterr().out
    assert records.read(tmp_path / "pool" / "plan.json") == kept and len(DistilledSet.load("pool")) == 20
    del options["filter_network"]  # the plan has it
    run(SampleConfig(**options, plan="pool/plan.json", out="other", num_per_class=2))
    assert torch.equal(DistilledSet.load("pool").images, DistilledSet.load("other").images)

    write_json(tmp_path / "filtered.json", kept | {"chosen": chosen | {"filter": 0.05}})
    run(SampleConfig(**options, plan="filtered.json", out="filtered", num_per_class=1))
    assert records.read(tmp_path / "filtered" / "index.json")["identity"]["filter_network"] == NETWORK

    (tmp_path / "begun").mkdir()  # as a kill between planning and drawing leaves it
    write_json(tmp_path / "begun" / "plan.json", kept | {"seconds": 1e6})
    with pytest.raises(InputError, match="a budget of 120 s is too short: starting took 1"):
        run(SampleConfig(**auto, out="begun", num_per_class=1, resume=True))
    own = options | {"filter_network": NETWORK, "plan": "begun/plan.json", "budget": "120s"}
    with pytest.raises(InputError, match="a budget of 120 s is too short: starting took 1"):
        run(SampleConfig(**own, out="begun", num_per_class=1, resume=True))
    with pytest.raises(InputError, match=r"begun/plan.json is a plan for seed 0, and here they are 1"):
        run(SampleConfig(**auto, out="begun", num_per_class=1, resume=True, seed=1))
    with pytest.raises(InputError, match="is a plan for expansion None, and here they are 1.3"):
        run(SampleConfig(**options, plan="pool/plan.json", out="third", num_per_class=2, expansion=1.3))

    write_json(tmp_path / "theirs.json", kept | {"weights": "0123"})
    with pytest.raises(InputError, match="is a plan for weights 0123, and here they are"):
        run(SampleConfig(**options, plan="theirs.json", out="third", num_per_class=2))
    (tmp_path / "pool" / "plan.json").unlink()
    with pytest.raises(InputError, match="pool was drawn without a plan"):
        run(SampleConfig(**auto, out="pool", num_per_class=2, resume=True))


@pytest.mark.slow
def test_command__two_processes_follow_the_plan_that_the_first_makes(folder, tmp_path):
    flags = {"model": folder, "out": "two", "device": "cpu", "batch": 20, "num_per_class": 4, "budget": "900s"}
    flags |= {"plan": "auto", "plan_per_class": 1, "plan_network": NETWORK, "filter_network": NETWORK}
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    words = [f"--{name}={value}" for name, value in flags.items()]
    done = run_command(*launch, ROOT / "scripts" / "sample_timed.py", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("validation accuracy") == 1
    run(SampleConfig(model=str(folder), out="one", device="cpu", batch=20, num_per_class=4, plan="two/plan.json"))
    one, two = (DistilledSet.load(tmp_path / out).images.int() for out in ("one", "two"))
    assert (one - two).abs().max() <= 2
