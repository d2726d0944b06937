import dataclasses
import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from socket import gethostname
from typing import ClassVar

import pytest
import yaml
from commands import PATIENCE_S, Process
from commands import run as run_command

from core_dd.errors import Diverged, InputError
from core_dd.files import LOCK
from core_dd.locks import Lock
from core_dd.options import RunConfig, option
from core_dd.run import Run, SilentRun, checkpoints, claimed, find_folder, read_stats


@dataclasses.dataclass(kw_only=True)
class Config(RunConfig):
    RENAMED: ClassVar[Mapping[str, str]] = {"rate": "lr"}
    tracker: str = "none"
    iterations: int = option(10, free_on_resume=True)
    lr: float = 1.0


def start(tmp_path, origin=None, **options):
    return Run.open(Config(out=str(tmp_path / "run"), **options), "test", origin)


def fill(run, first, last, every=2):
    for step in range(first, last + 1):
        run.log(step, loss=1 / step)
        if step % every == 0:
            with run.checkpoint(step) as folder:
                (folder / "state").write_text(str(step))


def test_open__numbers_runs(tmp_path):
    folders = [Run.open(Config(), "digits-dm").folder for _ in range(2)]
    assert [str(folder) for folder in folders] == ["runs/digits-dm/00000", "runs/digits-dm/00001"]
    saved = yaml.safe_load((folders[0] / "config.yaml").read_text())
    assert (saved["seed"], saved["iterations"], saved["lr"]) == (0, 10, 1.0)
    assert saved.keys() == {own.name for own in dataclasses.fields(Config)} - {"out", "resume", "dry_run"}


def test_open__other_folders_beside_the_numbered_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "a" / "00003-old").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "00001").mkdir()
    assert find_folder(None, "a", resume=False).name == "00002"


def test_open__refuses_an_existing_folder(tmp_path):
    start(tmp_path).close()
    with pytest.raises(InputError, match=r"run exists\. Choose another --out, or continue it with --resume"):
        start(tmp_path)


def test_open__resume_wants_a_run_with_the_same_config(tmp_path):
    with pytest.raises(InputError, match="nothing to resume"):
        start(tmp_path, resume=True)
    start(tmp_path).close()
    start(tmp_path, iterations=20, log_every=1, resume=True).close()
    with pytest.raises(InputError, match="was started with seed 0, now it is 1"):
        start(tmp_path, seed=1, resume=True)


def test_open__resume_takes_an_option_that_was_not_there_yet_by_its_default(tmp_path):
    start(tmp_path).close()
    saved = tmp_path / "run" / "config.yaml"
    assert "seed: 0\n" in saved.read_text()
    saved.write_text(saved.read_text().replace("seed: 0\n", ""))
    start(tmp_path, resume=True).close()
    with pytest.raises(InputError, match="was started with seed 0, now it is 1"):
        start(tmp_path, seed=1, resume=True)


def test_open__resume_understands_the_names_that_options_had(tmp_path):
    start(tmp_path, lr=2.0).close()
    saved = tmp_path / "run" / "config.yaml"
    assert saved.read_text().count("lr: 2.0") == 1
    saved.write_text(saved.read_text().replace("lr: 2.0", "rate: 2.0"))
    start(tmp_path, lr=2.0, resume=True).close()
    with pytest.raises(InputError, match=r"was started with lr 2\.0, now it is 3\.0"):
        start(tmp_path, lr=3.0, resume=True)


def test_checkpoint__keeps_the_newest_and_points_to_the_last(tmp_path):
    with start(tmp_path, keep=2) as run:
        fill(run, 1, 8)
    assert [step for step, _ in checkpoints(run.folder)] == [6, 8]
    assert (run.folder / "checkpoints" / "last" / "state").read_text() == "8"


def test_checkpoint__failure_keeps_the_previous(tmp_path):
    with start(tmp_path) as run:
        fill(run, 1, 2)
        with pytest.raises(ZeroDivisionError), run.checkpoint(4) as folder:
            (folder / "state").write_text("half")
            1 / 0  # noqa: B018
        assert run.last()[0] == 2
        assert not list((run.folder / "checkpoints").glob(".*tmp"))


def test_resume__drops_lines_after_the_checkpoint(tmp_path):
    with start(tmp_path) as run:
        fill(run, 1, 5)
    with (run.folder / "stats.jsonl").open("a") as stats:
        stats.write('{"step": 6, "lo')
    with start(tmp_path, resume=True) as run:
        assert run.last()[0] == 4
        fill(run, 5, 8)
    assert [line["step"] for line in read_stats(run.folder / "stats.jsonl")] == list(range(1, 9))


def test_log__non_finite_names_step_and_checkpoint(tmp_path):
    with start(tmp_path) as run:
        fill(run, 1, 2)
        with pytest.raises(Diverged, match=r"loss is nan at step 3\. The last good checkpoint is .*step-000002"):
            run.log(3, loss=float("nan"))
    assert [line["step"] for line in read_stats(run.folder / "stats.jsonl")] == [1, 2]


def test_log__lines_are_json(tmp_path):
    with start(tmp_path) as run:
        run.log(1, loss=0.5, accuracy=1)
    assert json.loads((run.folder / "stats.jsonl").read_text()) == {"step": 1, "loss": 0.5, "accuracy": 1.0}


def test_tracker__tensorboard_writes_events(tmp_path):
    with start(tmp_path, tracker="tensorboard") as run:
        run.log(1, loss=0.5)
    assert list(run.folder.rglob("events.out.tfevents*"))


def test_tracker__unknown(tmp_path):
    with pytest.raises(InputError, match="unknown tracker 'tensorbord'; did you mean 'tensorboard'"):
        start(tmp_path, tracker="tensorbord")
    assert not (tmp_path / "run").exists()


def test_tracker__not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: ["tensorboard"])
    with pytest.raises(InputError, match="tracker 'wandb' is not installed. pip install it, or pass --tracker none"):
        start(tmp_path, tracker="wandb")
    assert not (tmp_path / "run").exists()


def test_checkpoint__kill_inside_it_keeps_the_previous(tmp_path):
    code = (
        "import os, signal; from core_dd.options import RunConfig; from core_dd.run import Run\n"
        "run = Run.open(RunConfig(out='run', tracker='none'), 'test')\n"
        "with run.checkpoint(2) as folder: (folder / 'state').write_text('2')\n"
        "with run.checkpoint(4) as folder:\n"
        "    (folder / 'state').write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = run_command("-c", code)
    assert done.returncode == -signal.SIGKILL
    with Run.open(RunConfig(out="run", tracker="none", resume=True), "test") as run:
        assert run.last()[0] == 2
        assert not list((run.folder / "checkpoints").glob(".*tmp"))


def test_open__one_process_at_a_time(tmp_path):
    with start(tmp_path) as run:
        fill(run, 1, 2)
        before = sorted(run.folder.rglob("*"))
        for resume in (True, False):
            with pytest.raises(InputError, match=f"run (is in use by process {os.getpid()} on {gethostname()}|exists)"):
                start(tmp_path, resume=resume)
        assert sorted(run.folder.rglob("*")) == before
        fill(run, 3, 4)
    assert not (run.folder / LOCK).exists()
    start(tmp_path, resume=True).close()
    assert len(read_stats(run.folder / "stats.jsonl")) == 4


PRELUDE = """
import os, pathlib, signal, time
from core_dd.errors import InputError
from core_dd.locks import Lock
from core_dd.options import RunConfig
from core_dd.run import Run

def until(name):
    while not pathlib.Path(name).exists():
        time.sleep(0.002)

def begun(**options):
    try:
        return Run.open(RunConfig(tracker="none", **options), "x")
    except InputError as error:
        return f"InputError: {error}"
"""


def wait_until(ready) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def together(count: int, out: str | None) -> list[str]:
    """What so many processes say that begin a run at the same moment, and hold it until all have tried."""
    code = f"""{PRELUDE}
print("ready", flush=True)
until("go")
run = begun(out={out!r})
print(getattr(run, "folder", run), flush=True)
until("end")
"""
    started = [Process("-c", code) for _ in range(count)]
    for lines, signal_file in ((1, "go"), (2, "end")):
        wait_until(lambda lines=lines: all(process.stdout.count("\n") == lines for process in started))
        Path(signal_file).touch()
    assert [process.wait() for process in started] == [0] * count
    return [process.stdout.splitlines()[1] for process in started]


def test_open__a_kill_releases_the_folder(tmp_path):
    killed = run_command(
        "-c",
        f"{PRELUDE}\nrun = begun(out='run')\nrun.log(1, loss=1.0)\n"
        "with run.checkpoint(2) as folder: (folder / 'state').write_text('2')\n"
        "(run.folder / 'checkpoints' / '.step-000004.0a1b2c3d.tmp').mkdir()\n"
        "os.kill(os.getpid(), signal.SIGKILL)",
    )
    assert killed.returncode == -signal.SIGKILL and (tmp_path / "run" / LOCK).exists()
    with Run.open(RunConfig(out="run", tracker="none", resume=True), "x") as run:
        assert run.last()[0] == 2 and not list((run.folder / "checkpoints").glob(".*tmp"))
        other = run_command("-c", f"{PRELUDE}\nprint(begun(out='run', resume=True))")
        assert other.stdout.startswith("InputError") and "is in use by process" in other.stdout


def test_lock__a_fork_of_the_holder_does_not_keep_it(tmp_path):
    """As a worker that decodes images, which lives on for seconds when the training is killed."""
    holder = Process(
        "-c",
        f"{PRELUDE}\nlock, child = Lock.take(pathlib.Path()), os.fork()\nprint(child, flush=True)\ntime.sleep(600)",
    )
    holder.kill_once(lambda: holder.stdout.count("\n") == 2)  # the child says 0
    child = max(map(int, holder.stdout.split()))
    with Lock.take(tmp_path):
        os.kill(child, signal.SIGKILL)  # which is there


def test_open__simultaneous_starts_get_a_number_each():
    assert sorted(together(5, None)) == [f"runs/x/{i:05d}" for i in range(5)]


def test_open__of_simultaneous_starts_in_one_folder_one_begins():
    assert sorted(text.startswith("InputError") for text in together(5, "run")) == [False] + [True] * 4


def test_silent_run__takes_what_a_run_takes_and_leaves_nothing(tmp_path, capsys):
    """Every public method of `Run`, called alike; and nothing can be written into its folder by mistake."""
    written = []
    with start(tmp_path) as run, SilentRun() as silent:
        for each in (run, silent):
            each.say("hello")
            each.log(1, loss=1.0)
            with each.checkpoint(1) as folder:
                assert each.write(folder / "state", lambda path: written.append(path)) == folder / "state"
        silent.check(2, loss=float("nan"))
        silent.log(2, loss=float("nan"))
        assert silent.last() is None and run.last()[0] == 1
    assert capsys.readouterr().err.count("hello") == 1 and len(written) == 1
    with pytest.raises(NotADirectoryError):
        (silent.folder / "stats.jsonl").write_text("")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    own = {name for name, method in vars(Run).items() if callable(method) and not name.startswith("_")} - {"open"}
    assert own - vars(SilentRun).keys() == {"close"}


def test_claimed__offers_no_resume_where_there_is_none(tmp_path):
    (tmp_path / "a").touch()
    for resume, way_out in ((None, " or remove it first"), (False, ", or continue it with --resume")):
        with pytest.raises(InputError, match=f"exists. Choose another --out{way_out}"), claimed(tmp_path, "x", resume):
            pass


def test_open__resume_wants_the_data_it_was_begun_with(tmp_path):
    origin = {"data": "birds", "training_digest": "1"}
    start(tmp_path, origin=origin).close()
    start(tmp_path, origin=origin, resume=True).close()
    with pytest.raises(InputError, match=r"begun with other data: their training_digest was 1, now it is 2\. Resume"):
        start(tmp_path, origin=origin | {"training_digest": "2"}, resume=True)
    (tmp_path / "run" / "origin.json").unlink()
    start(tmp_path, origin=origin, resume=True).close()  # nothing was computed yet
    with start(tmp_path, origin=origin, resume=True) as run, run.checkpoint(1):
        (tmp_path / "run" / "origin.json").unlink()
    with pytest.raises(InputError, match=r"origin\.json: .*does not say what the run was made from"):
        start(tmp_path, origin=origin, resume=True)


def test_open__resume_knows_data_by_what_they_hold_and_text_as_it_was(tmp_path):
    @dataclasses.dataclass(kw_only=True)
    class Own(Config):
        data: str = "digits"
        init_from: str | None = None

    def begin(data, origin, **more):
        return Run.open(Own(out=str(tmp_path / "run"), data=data, init_from="1e5", **more), "test", origin)

    origin = {"data": "birds", "training_digest": "1"}
    begin("folder:birds", origin).close()
    begin("folder:/elsewhere/birds", origin, resume=True).close()
    assert "folder:/elsewhere/birds" in (tmp_path / "run" / "config.yaml").read_text()
    with pytest.raises(InputError, match="was started with data folder:/elsewhere/birds, now it is folder:birds"):
        (tmp_path / "run" / "origin.json").unlink()
        begin("folder:birds", {}, resume=True)


def test_open__where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write .*file/run: Not a directory\. Choose another folder"):
        start(tmp_path / "file")
    with pytest.raises(InputError, match=r"file exists\. Choose another --out"):
        Run.open(Config(out=str(tmp_path / "file")), "test")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["stats.jsonl", "log.txt"])
def test_lines__a_full_disk_is_one_sentence_and_resumable(tmp_path, name):
    message = f"cannot write .*{name}: No space left on device. Free some space"
    with pytest.raises(InputError, match=message), start(tmp_path) as run:
        fill(run, 1, 2)
        kept = (run.folder / "stats.jsonl").read_text()
        (run.folder / name).unlink(missing_ok=True)
        (run.folder / name).symlink_to("/dev/full")
        run.log(3, loss=1.0)
        run.say("hello")
    (run.folder / name).unlink()
    (run.folder / "stats.jsonl").write_text(kept + '{"step": 3, "lo')  # as far as the disk took it
    with start(tmp_path, resume=True) as run:
        fill(run, 3, 4)
    assert [line["step"] for line in read_stats(run.folder / "stats.jsonl")] == [1, 2, 3, 4]


def test_claimed__what_came_to_nothing_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), claimed("a/b/c", "x"):
        assert Path("a/b/c").is_dir()
        1 / 0  # noqa: B018
    assert list(tmp_path.iterdir()) == []
