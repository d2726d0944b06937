import subprocess
import sys
import time

import psutil
import pytest

from core_dd import clock


def test_began__this_process_however_the_clock_is_set(monkeypatch):
    """Its age is that which psutil tells from the machine's clock, as long as nobody sets it."""
    age = time.time() - psutil.Process().create_time()
    monkeypatch.setattr(time, "time", lambda real=time.time: real() + 3600)
    assert abs(clock.now() - clock.began(psutil.Process()) - age) < 30


def test_began__without_proc_from_the_process_s_age(monkeypatch):
    monkeypatch.setattr(clock.Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError()))
    age = time.time() - psutil.Process().create_time()
    assert abs(clock.now() - clock.began(psutil.Process()) - age) < 30


@pytest.mark.parametrize("launched", [False, True])
def test_command_start__is_when_the_first_process_was_started(tmp_path, launched):
    """psutil alone is off by the fraction of a second in which the machine was booted, and by what its clock is set."""
    code = "import time; time.sleep(0.5); from core_dd.clock import command_start; print(command_start())"
    command = [sys.executable, "-c", code]
    if launched:
        (tmp_path / "torchrun").write_text('sleep 0.5; "$@"; exit')
        command = ["bash", tmp_path / "torchrun", *command]
    before = clock.now()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    after = clock.now()
    start = float(process.communicate()[0])
    assert before - 0.02 <= start <= after + 0.02  # known to a hundredth of a second
