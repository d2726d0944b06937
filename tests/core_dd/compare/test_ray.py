"""The executor on Ray: here, on a cluster of two nodes of which one is killed, and with nodes that share no folder."""

import signal
import socket
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from comparisons import TINY, accuracies, compare, tables, write

from core_dd.errors import InputError
from core_dd.report.ranking import read_entry

pytest.importorskip("ray", reason="not here: ray (pip install 'gendd[ray]')")

MARKED = """\
import time
from pathlib import Path

import ray

from matching_dd import coreset


def make(data, ipc, seed, out, marks):
    marks = Path(marks)
    node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else "here"
    with (marks / "begun").open("a") as file:
        file.write(f"{ipc} {seed} {node}\\n")
    if (marks / "deadly").exists() and (marks / "deadly").read_text() == node:
        time.sleep(600)
    return coreset("random", data, ipc, seed)
"""
PATIENCE_S = 200


def test_packed__comes_out_as_it_went_in_and_names_folders_as_they_are_called():
    from core_dd.compare.ray import packed, renamed, unpack

    Path("a/b").mkdir(parents=True)
    Path("a/b/state.pt").write_bytes(b"\x00 /here/x")
    Path("a/config.yaml").write_text("experts: /here/x\n")
    for name in ("a/empty", "a/done.json", "a/.lock", "a/.half.12345678.tmp"):
        Path(name).touch()
    content = packed("a")
    assert sorted(content) == ["b/state.pt", "config.yaml", "done.json", "empty"]
    unpack(renamed(content, {"/here/x": "there"}), "c")
    assert Path("c/b/state.pt").read_bytes() == b"\x00 /here/x" and Path("c/empty").read_bytes() == b""
    assert Path("c/config.yaml").read_text() == "experts: there\n"
    assert packed("nowhere") == {}


def test_unpack__done_is_written_last(monkeypatch):
    from core_dd.compare import ray

    content = {name: np.zeros(1, np.uint8) for name in ("done.json", "z")}
    monkeypatch.setattr(ray.files, "atomic", lambda path: _refuse(path, "z"))
    with pytest.raises(OSError, match="full"):
        ray.unpack(content, "out")
    assert not Path("out/done.json").exists()


def _refuse(path: Path, name: str):
    if path.name == name:
        raise OSError("full")
    raise AssertionError(f"{path} came before {name}")


def test_connect__to_what_does_not_answer_is_one_sentence_soon(monkeypatch):
    from core_dd.compare import ray

    monkeypatch.setattr(ray, "ANSWER_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        silent = f"127.0.0.1:{mute.getsockname()[1]}"
        for address, why in [("127.0.0.1:1", "refused"), (silent, "timed out"), (f"ray://{silent}", "timed out")]:
            with pytest.raises(InputError, match=f"no Ray cluster answers at {address} .*{why}"):
                compare(write(), "--executor=ray", "--workers=1", f"--address={address}")
    with pytest.raises(InputError, match="--address 6379 is not written as HOST:PORT"):
        ray.connect("6379")
    assert not Path("out").exists()


def test_connect__to_another_kind_of_server():
    from core_dd.compare.ray import connect

    with socket.create_server(("127.0.0.1", 0)) as web:

        def answer():
            other, _ = web.accept()
            with other:
                other.recv(100)
                other.sendall(b"HTTP/1.0 404 Not Found\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(InputError, match="what listens there does not speak HTTP/2"):
            connect(f"127.0.0.1:{web.getsockname()[1]}")


def local_tables(**changed) -> dict[str, list[str]]:
    """What the same comparison gives in this process."""
    assert compare(write(**changed), "--out=local") == 0
    return tables("local")


@pytest.fixture
def cluster():
    """Two nodes of one core each on this machine: the cluster, and the second node."""
    from ray.cluster_utils import Cluster

    before = signal.getsignal(signal.SIGTERM)
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = found.add_node(num_cpus=1)
    found.wait_for_nodes()
    signal.signal(signal.SIGTERM, before)  # a node in this process takes it for itself
    yield found, second
    found.shutdown()


@pytest.mark.slow
def test_ray__a_comparison_whose_node_is_killed_ends_complete_and_equal_to_the_local_one(
    cluster, monkeypatch, tmp_path, capsys
):
    nodes, second = cluster
    monkeypatch.setattr(sys, "path", sys.path.copy())
    Path("mine.py").write_text(MARKED)
    marks = tmp_path / "marks"
    marks.mkdir()
    producers = {"Mine": {"function": "mine:make", "marks": str(marks)}, "DM": {"method": "dm", **TINY}}
    expected = local_tables(producers=producers, seeds=3)
    (marks / "begun").unlink()
    (marks / "deadly").write_text(second.node_id)

    def kill():
        deadline, begun = time.monotonic() + PATIENCE_S, marks / "begun"
        while time.monotonic() < deadline and not (
            begun.exists() and second.node_id in begun.read_text() and any(Path("out").glob("scores/*/done.json"))
        ):
            time.sleep(0.05)
        nodes.remove_node(second, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    flags = ["--executor=ray", f"--address={nodes.address}", "--threads=1", "--memory_gib=0.5", "--workers=2"]
    assert compare("small.yaml", *flags) == 0
    killer.join()
    begun = [line.split() for line in (marks / "begun").read_text().splitlines()]
    [lost] = [own[:2] for own in begun if own[2] == second.node_id]
    assert [own[:2] for own in begun].count(lost) == 2 and len(begun) == 7  # six sets, one of them twice
    assert tables("out") == expected and len(accuracies()) == 12
    assert "2 tasks of 1 core, 0.5 GiB on 2 Ray nodes" in capsys.readouterr().err


@pytest.mark.slow
def test_ray__here_in_copies_sets_scores_and_logs_come_back():
    before = signal.getsignal(signal.SIGTERM)
    producers = {"Random": {"coreset": "random"}, "Herding": {"coreset": "herding", "network": "convnet1_w8"}}
    producers["MTT"] = {"method": "mtt", "network": "convnet1_w8", "iterations": 2, "syn_steps": 2, "expert_epochs": 2,
                        "max_start_epoch": 1, "experts": {"experts": 1, "epochs": 3, "batch_size": 256}}  # fmt: skip
    changed = {"producers": producers, "ipc": 1, "seeds": 1}
    expected = local_tables(**changed)
    assert compare("small.yaml", "--executor=ray", "--copy", "--workers=2", "--threads=1", "--memory_gib=0.5") == 0
    assert tables("out") == expected
    assert signal.getsignal(signal.SIGTERM) == before
    [folder] = Path("out/sets").glob("MTT*")
    [experts] = Path("out/experts").iterdir()
    assert f"experts: {experts}\n" in (folder / "config.yaml").read_text()
    for score in Path("out/scores").iterdir():
        assert Path(read_entry(score / "scores.json").record["set"]["path"]).is_dir()
    assert (
        all("20" in log.read_text() for log in Path("out/logs").iterdir())
        and len(list(Path("out/logs").iterdir())) == 8
    )


@pytest.mark.slow
def test_ray__what_fits_no_node_is_said_before_any_work():
    with pytest.raises(InputError, match="no node of the Ray cluster has what a task takes, 1 core, 99999.0 GiB"):
        compare(write(), "--executor=ray", "--workers=1", "--threads=1", "--memory_gib=99999")
    with pytest.raises(InputError, match="no node of the Ray cluster has a GPU"):
        compare(write(), "--executor=ray", "--workers=1", "--device=cuda")
    assert not Path("out").exists()
