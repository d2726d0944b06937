"""Every file in configs/accelerate is one that accelerate reads, for as many processes as its name says."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "configs" / "accelerate"
PROCESSES = {"cpu": 1, "two_cpus": 2, "one_gpu": 1, "four_gpus": 4, "two_nodes_four_gpus": 8}
PROCESSES |= {"fsdp_two_cpus": 2, "fsdp_four_gpus": 4}


def test_accelerate__every_file_is_here():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == PROCESSES.keys()


@pytest.mark.parametrize("name", PROCESSES)
def test_accelerate__reads(name):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(FOLDER / f"{name}.yaml"))
    assert config.num_processes == PROCESSES[name]
    assert config.num_machines == (2 if name.startswith("two_nodes") else 1)
    assert config.use_cpu == ("cpu" in name) and config.mixed_precision == "no"
    assert (config.distributed_type == "FSDP") == name.startswith("fsdp")
