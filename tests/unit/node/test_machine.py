"""What a node finds out about its machine: its GPUs, its disk, its processor, its kernel."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pynvml
import pytest

from manta.node.capabilities import disk, gpus, machine
from manta.node.isolation import landlock
from manta.node.runners.gpus import Gpu, devices, environment
from manta.protocol.machine import ROCM, GpuInfo

GIB = 1 << 30


@pytest.fixture
def dev(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("dev", "sys"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(gpus, "DEV", tmp_path / "dev")
    monkeypatch.setattr(gpus, "SYS", tmp_path / "sys")
    monkeypatch.setattr(gpus, "ROCM_VERSION", tmp_path / "version")
    return tmp_path / "dev"


class Nvml:
    """Answers as the library's functions do where a driver has these GPUs."""

    def __init__(self, *memories: int, fails: str = "", divided: int | None = None) -> None:
        self.open = 0
        self.divided = divided
        self.names: dict[str, Any] = {
            "nvmlInit": self.init,
            "nvmlShutdown": self.shutdown,
            "nvmlSystemGetDriverVersion": lambda: "550.54.15",
            "nvmlSystemGetCudaDriverVersion_v2": lambda: 12040,
            "nvmlDeviceGetCount": lambda: len(memories),
            "nvmlDeviceGetHandleByIndex": lambda number: number,
            "nvmlDeviceGetName": lambda number: f"A{number}",
            "nvmlDeviceGetUUID": lambda number: f"GPU-{number}",
            "nvmlDeviceGetMinorNumber": lambda number: 7 - number,
            "nvmlDeviceGetMigMode": self.mig_mode,
            "nvmlDeviceGetMemoryInfo": lambda number: type("M", (), {"total": memories[number]}),
        }
        if fails:
            self.names[fails] = self.refuse

    def init(self) -> None:
        self.open += 1

    def shutdown(self) -> None:
        self.open -= 1

    def mig_mode(self, number: int) -> list[int]:
        if number == 0:  # one that can't be divided
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return [int(number == self.divided), 0]

    def refuse(self, *_: object) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)


def with_driver(dev: Path, monkeypatch: pytest.MonkeyPatch, nvml: Nvml) -> None:
    (dev / "nvidiactl").touch()
    for name, function in nvml.names.items():
        monkeypatch.setattr(pynvml, name, function)


def test_gpus_of_nvidia_are_what_the_driver_tells(dev: Path, monkeypatch) -> None:
    nvml = Nvml(24 * GIB, 80 * GIB)
    with_driver(dev, monkeypatch, nvml)
    first, second = gpus.find().gpus
    assert first == Gpu(
        GpuInfo("A0", 24 * GIB, "GPU-0", "cuda", "550.54.15", "12.4"), dev / "nvidia7", "GPU-0"
    )
    assert (second.info.memory, second.device) == (80 * GIB, dev / "nvidia6")
    assert nvml.open == 0


def test_a_gpu_that_is_divided_is_named_and_not_given_out(dev: Path, monkeypatch) -> None:
    nvml = Nvml(24 * GIB, 80 * GIB, 80 * GIB, divided=1)
    with_driver(dev, monkeypatch, nvml)
    assert [gpu.info.name for gpu in gpus.find().gpus] == ["A0", "A2"]
    assert gpus.find().divided == ("A1",)
    assert nvml.open == 0


@pytest.mark.parametrize("function", ["nvmlInit", "nvmlDeviceGetName"])
def test_a_driver_that_does_not_answer_says_why_and_has_no_gpus(
    dev: Path, monkeypatch, function: str
) -> None:
    with_driver(dev, monkeypatch, Nvml(24 * GIB, fails=function))
    assert gpus.find() == ((), (), "the driver cannot be asked (GPU is lost)")


def test_why_a_driver_does_not_answer_is_logged_once_and_again_when_it_changes(
    dev: Path, monkeypatch, caplog
) -> None:
    caplog.set_level("INFO")
    nvml, watcher = Nvml(24 * GIB), gpus.Watcher()
    with_driver(dev, monkeypatch, nvml)

    def said_in(looks: int) -> list[str]:
        caplog.clear()
        for _ in range(looks):
            watcher.find()
        return [record.message for record in caplog.records]

    def refuse(code: int) -> None:
        def refusing() -> None:
            raise pynvml.NVMLError(code)

        monkeypatch.setattr(pynvml, "nvmlInit", refusing)

    refuse(pynvml.NVML_ERROR_GPU_IS_LOST)
    [lost] = said_in(3)
    assert "the driver cannot be asked (GPU is lost)" in lost
    refuse(pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH)
    [mismatch] = said_in(3)
    assert "GPUs are not used" in mismatch
    assert "GPU is lost" not in mismatch
    monkeypatch.setattr(pynvml, "nvmlInit", nvml.names["nvmlInit"])
    assert said_in(3) == ["The driver of the GPUs can be asked again"]
    refuse(pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH)
    assert said_in(3) == [mismatch]


def test_without_a_driver_its_library_is_not_asked(dev: Path, monkeypatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: pytest.fail("asked"))
    assert gpus.find().gpus == ()


def amd(dev: Path, number: int, **properties: object) -> Path:
    node = dev.parent / "sys/class/kfd/kfd/topology/nodes" / str(number)
    for bank, (heap, size) in enumerate([(0, 5), (1, 60 * GIB), (2, 4 * GIB)]):
        (node / f"mem_banks/{bank}").mkdir(parents=True)
        (node / f"mem_banks/{bank}/properties").write_text(
            f"heap_type {heap}\nsize_in_bytes {size}\nflags 0\n"
        )
    lines = "".join(f"{name} {value}\n" for name, value in properties.items())
    (node / "properties").write_text(lines)
    (node / "name").write_text("gfx90a\n")
    return node


def test_gpus_of_amd_are_what_the_kernel_shows(dev: Path) -> None:
    (dev.parent / "sys/module/amdgpu").mkdir(parents=True)
    (dev.parent / "sys/module/amdgpu/version").write_text("6.7.0\n")
    (dev.parent / "version").write_text("6.1.2-119\n")
    amd(dev, 0, cpu_cores_count=64, simd_count=0)
    amd(dev, 1, cpu_cores_count=0, simd_count=440, drm_render_minor=128, unique_id=0xABC)
    amd(dev, 10, simd_count=440, drm_render_minor=129, unique_id="broken")
    first, second = gpus.find().gpus
    assert first == Gpu(
        GpuInfo("gfx90a", 64 * GIB, "rocm:GPU-0000000000000abc", ROCM, "6.7.0", "6.1.2-119"),
        dev / "dri/renderD128",
        "GPU-0000000000000abc",
    )
    assert (second.device.name, second.name) == ("renderD129", "1")


def test_a_topology_that_is_half_there_breaks_nothing(dev: Path) -> None:
    node = amd(dev, 0, simd_count=4)
    (node / "properties").write_bytes(b"simd_count 4\n\xff\n")
    assert gpus.find().gpus == ()
    (node / "properties").write_text("simd_count 4\njust words here\n")
    (node / "mem_banks/1/properties").write_text("heap_type 1\n")
    (node / "name").unlink()
    [found] = gpus.find().gpus
    assert (found.info.name, found.info.memory) == ("AMD GPU", 4 * GIB)


def test_tasks_are_told_of_the_gpus_that_they_have_and_of_no_others() -> None:
    cuda = [Gpu(GpuInfo("A", 1, f"GPU-{n}"), Path(f"/dev/nvidia{n}"), f"GPU-{n}") for n in (0, 3)]
    amd = Gpu(GpuInfo("B", 1, "rocm:GPU-x", ROCM), Path("/dev/dri/renderD128"), "GPU-x")
    assert environment(cuda) == {
        "CUDA_VISIBLE_DEVICES": "GPU-0,GPU-3",
        "NVIDIA_VISIBLE_DEVICES": "GPU-0,GPU-3",
        "ROCR_VISIBLE_DEVICES": "",
    }
    assert environment([amd])["ROCR_VISIBLE_DEVICES"] == "GPU-x"
    assert environment([]) == {
        "CUDA_VISIBLE_DEVICES": "",
        "NVIDIA_VISIBLE_DEVICES": "void",
        "ROCR_VISIBLE_DEVICES": "",
    }
    assert devices([]) == []
    assert {Path("/dev/nvidia0"), Path("/dev/nvidia3")} <= {*devices(cuda)}
    assert Path("/dev/nvidia1") not in devices(cuda)


def test_the_disk_is_measured_once_and_again_when_it_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "MOST_BYTES", 1 << 20)
    assert disk.kept(tmp_path) == 0
    measured = disk.measure(tmp_path)
    assert measured > 0
    assert disk.kept(tmp_path) == measured
    assert [path.name for path in tmp_path.iterdir()] == [disk.FILE]
    (tmp_path / disk.FILE).write_text('{"device": 1, "written": 7}')
    assert disk.kept(tmp_path) == 0
    (tmp_path / disk.FILE).write_text("damaged")
    assert disk.kept(tmp_path) == 0


def test_a_disk_that_is_nearly_full_is_not_measured(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(disk, "SPARE", 1 << 60)
    assert disk.measure(tmp_path) == 0
    assert not list(tmp_path.iterdir())


def test_a_disk_that_takes_nothing_leaves_no_draft(tmp_path: Path, monkeypatch) -> None:
    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", full)
    with pytest.raises(OSError, match="No space"):
        disk.measure(tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_the_kernel_has_is_told_in_words(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(machine, "PROC", tmp_path)
    monkeypatch.setattr(machine, "SYS", tmp_path / "sys")
    monkeypatch.setattr(landlock, "available", lambda: 0)
    assert machine.security() == ()
    for path, text in {
        "sys/kernel/seccomp/actions_avail": "kill",
        "sys/user/max_user_namespaces": "100",
        "sys/kernel/apparmor_restrict_unprivileged_userns": "1",
        "sys/fs/cgroup/cgroup.controllers": "cpu",
        "sys/kernel/security/lsm": "capability,apparmor",
        "cpuinfo": "processor : 0\nmodel name\t: Fast 9000\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    limited = "user namespaces (of programs that AppArmor lets)"
    assert machine.security() == ("seccomp", limited, "cgroups v2", "apparmor")
    assert machine.processor() == "Fast 9000"
    (tmp_path / "sys/kernel/unprivileged_userns_clone").write_text("0")
    assert limited not in machine.security()
