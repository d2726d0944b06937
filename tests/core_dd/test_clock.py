import time

import psutil

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
