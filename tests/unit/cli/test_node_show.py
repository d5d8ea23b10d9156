"""What `manta node show` says of a machine."""

from __future__ import annotations

from manta.cli.commands.node import _cpu, _disk, _gpus
from manta.protocol.machine import ROCM, Capabilities, GpuInfo, Load

GIB = 1 << 30


def test_gpus_are_shown_one_by_one_with_what_is_free_of_them() -> None:
    card = GpuInfo("A100", 80 * GIB, "GPU-1", driver="550.54", toolkit="12.4")
    amd = GpuInfo("gfx90a", 64 * GIB, "rocm:1", ROCM, "6.7", "6.1")
    has = Capabilities(gpus=(card, card, amd))
    told = "A100, 80.0 GiB, driver 550.54, CUDA 12.4"
    assert _gpus(has, Load(gpu_room=(80 * GIB, -1, 10 * GIB))) == [
        f"{told}, free",
        f"{told}, taken",
        "gfx90a, 64.0 GiB, driver 6.7, ROCM 6.1, 10.0 GiB free",
    ]
    assert _gpus(Capabilities(gpus=(card,)), Load()) == [f"{told}, free"]
    assert _gpus(Capabilities(), Load(gpu_room=(1,))) == ["none"]


def test_a_node_that_says_little_is_shown_with_what_it_says() -> None:
    load = Load(cpu_usage=0.25, load_average=1.5, disk_free=5 * GIB)
    assert _cpu(Capabilities(cores=1), load) == "1 core, 25% used, load 1.50"
    assert _disk(Capabilities(), load) == "5.0 GiB free"
    has = Capabilities(
        processor="Fast 9000",
        cores=8,
        physical_cores=4,
        cpu_frequency=3600.0,
        disk_size=9 * GIB,
        disk_speed=200.0 * (1 << 20),
        scratch=GIB,
    )
    assert _cpu(has, load) == "Fast 9000, 8 cores (4 physical), 3.6 GHz, 25% used, load 1.50"
    assert _disk(has, load) == (
        "9.0 GiB, 5.0 GiB free, writes 200.0 MiB/s, 1.0 GiB for each task's scratch"
    )
