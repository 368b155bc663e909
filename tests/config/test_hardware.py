"""What other machines say is read as they say it; the profile follows from kind and memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ilab.hardware import GIB, Gpu, Hardware, amd_gpus, amd_gpus_of, detect, hardware_of, nvidia_gpus, visible
from ilab.profiles import choose, shipped, why

CPUINFO = "processor\t: 0\nmodel name\t: Intel(R) Xeon(R) Gold 6430\nprocessor\t: 1\n"
ROCM = {
    "card0": {"Card Series": "Radeon RX 7900 XTX", "Card Model": "0x744c", "VRAM Total Memory (B)": "25753026560"},
    "card1": {"Card series": "Radeon Graphics", "VRAM Total Memory (B)": "536870912"},
    "system": {"Driver version": "6.10"},
}


def machine(tmp_path: Path, answers: dict[str, str], *, memory: int = 64, **environment: str) -> Hardware:
    """A Linux machine whose tools answer by their names."""
    (tmp_path / "proc").mkdir(exist_ok=True)
    (tmp_path / "proc/cpuinfo").write_text(CPUINFO)
    (tmp_path / "proc/meminfo").write_text(f"MemTotal:       {memory * 1024 * 1024} kB\nMemFree: 1 kB\n")
    return hardware_of(lambda command: answers.get(command[0], ""), tmp_path, "Linux", "x86_64", environment)


@pytest.mark.parametrize(
    ("lines", "profile"),
    [
        ("NVIDIA GeForce RTX 4060, 8188\n", "gpu-8"),
        ("NVIDIA GeForce RTX 3060, 12288\n", "gpu-8"),
        ("NVIDIA GeForce RTX 4080, 16376\n", "gpu-16"),
        ("Tesla T4, 15360\n", "gpu-16"),
        ("NVIDIA GeForce RTX 4090, 24564\n", "gpu-24"),
        ("NVIDIA L4, 23034\n", "gpu-24"),
        ("NVIDIA L40S, 46068\n", "gpu-48"),
        ("NVIDIA A100-SXM4-80GB, 81920\n", "gpu-80"),
        ("NVIDIA H100 80GB HBM3, 81559\n", "gpu-80"),
        ("NVIDIA H200, 143771\n", "gpu-140"),
        ("NVIDIA B200, 183359\n", "gpu-140"),
        ("NVIDIA H100 80GB HBM3, 81559\n" * 2, "gpu-80"),
        ("NVIDIA H100 80GB HBM3, 81559\n" * 4, "gpus-4"),
        ("NVIDIA A100-SXM4-80GB, 81920\n" * 8, "gpus-8"),
        ("NVIDIA L40S, 46068\n" * 8, "gpus-8"),
        ("NVIDIA L4, 23034\n" * 8, "gpu-24"),
        ("NVIDIA GeForce RTX 4090, 24564\nNVIDIA GeForce RTX 4060, 8188\n", "gpu-8"),  # the smallest limits
        ("NVIDIA GeForce GTX 1050, 4096\n", "cpu"),
    ],
)
def test_any_gpu_of_nvidia_finds_a_profile(tmp_path: Path, lines: str, profile: str) -> None:
    found = machine(tmp_path, {"nvidia-smi": lines})
    assert found.kind == "gpu"
    assert choose(found).name == profile


def test_names_and_sizes_are_told_in_a_line(tmp_path: Path) -> None:
    found = machine(tmp_path, {"nvidia-smi": "NVIDIA L4, 23034\nTesla T4, 15360\nNVIDIA L4, 23034\n"})
    assert str(found) == "2 × NVIDIA L4 (22 GiB), NVIDIA Tesla T4 (15 GiB)"
    assert found.processor == "Intel Xeon Gold 6430"
    assert found.device_memory == 15360 << 20


def test_memory_that_is_shared_is_the_machines() -> None:
    assert nvidia_gpus("NVIDIA GB10, [N/A]\n", 120 * GIB) == (Gpu("NVIDIA GB10", "nvidia", 120 * GIB, shared=True),)


@pytest.mark.parametrize(
    "text", ["", "No devices were found\n", "NVIDIA-SMI has failed, since it could not\n", "a,b,c\n"]
)
def test_what_a_driver_complains_of_is_no_gpu(text: str) -> None:
    assert nvidia_gpus(text, GIB) == ()


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [(None, "012"), ("", ""), ("-1", ""), ("1", "1"), ("2,0", "20"), ("0,7,1", "0"), ("GPU-abc,GPU-def", "01")],
)
def test_hidden_gpus_do_not_count(wanted: str | None, numbers: str) -> None:
    gpus = tuple(Gpu(str(number), "nvidia", GIB) for number in range(3))
    assert "".join(gpu.name for gpu in visible(gpus, wanted)) == numbers


def test_hidden_gpus_leave_a_machine_without(tmp_path: Path) -> None:
    found = machine(tmp_path, {"nvidia-smi": "NVIDIA H200, 143771\n"}, CUDA_VISIBLE_DEVICES="")
    assert (found.kind, choose(found).name) == ("cpu", "cpu-32")


def test_radeon_by_its_tool_and_without_it(tmp_path: Path) -> None:
    by_tool = amd_gpus(json.dumps(ROCM))
    assert by_tool == (Gpu("Radeon RX 7900 XTX", "amd", 25753026560),), "graphics of a processor are no GPU for this"
    assert choose(machine(tmp_path, {"rocm-smi": json.dumps(ROCM)})).name == "gpu-24"
    device = tmp_path / "sys/class/drm/card1/device"
    device.mkdir(parents=True)
    for name, text in (
        ("vendor", "0x1002\n"),
        ("mem_info_vram_total", "17163091968\n"),
        ("product_name", "Radeon X\n"),
    ):
        (device / name).write_text(text)
    other = tmp_path / "sys/class/drm/card0/device"
    other.mkdir(parents=True)
    (other / "vendor").write_text("0x8086\n")
    assert amd_gpus_of(tmp_path) == (Gpu("Radeon X", "amd", 17163091968),)
    assert choose(machine(tmp_path, {})).name == "gpu-16"


@pytest.mark.parametrize("text", ["", "[]", "{", '{"card0": 1}', '{"card0": {"VRAM Total Memory (B)": "many"}}'])
def test_odd_answers_of_rocm_are_no_gpus(text: str) -> None:
    assert amd_gpus(text) == ()


@pytest.mark.parametrize(
    ("chip", "gigabytes", "kind", "profile"),
    [
        ("Apple M1", 8, "apple", "apple"),
        ("Apple M4", 16, "apple", "apple-16"),
        ("Apple M3 Pro", 36, "apple", "apple-32"),
        ("Apple M4 Max", 128, "apple", "apple-64"),
        ("Intel(R) Core(TM) i7-9750H", 32, "cpu", "cpu-32"),
    ],
)
def test_macs(tmp_path: Path, chip: str, gigabytes: int, kind: str, profile: str) -> None:
    told = {"machdep.cpu.brand_string": f"{chip}\n", "hw.memsize": f"{gigabytes << 30}\n"}
    found = hardware_of(lambda command: told[command[-1]], tmp_path, "Darwin", "arm64", {})
    assert (found.kind, choose(found).name) == (kind, profile)


def test_a_containers_limit_is_its_memory(tmp_path: Path) -> None:
    assert choose(machine(tmp_path, {})).name == "cpu-32"
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("max\n")
    assert machine(tmp_path, {}).memory == 64 * GIB
    (tmp_path / "sys/fs/cgroup/memory.max").write_text(f"{4 * GIB}\n")
    assert machine(tmp_path, {}).memory == 4 * GIB
    assert choose(machine(tmp_path, {})).name == "cpu"


@pytest.mark.parametrize(
    ("cpuinfo", "board", "name"),
    [
        ("model name\t: AMD EPYC 7763 64-Core Processor\n", "", "AMD EPYC 7763 64-Core Processor"),
        ("processor\t: 0\nCPU implementer\t: 0x41\n", "", "aarch64"),
        ("processor\t: 0\nCPU implementer\t: 0x41\n", "Raspberry Pi 5 Model B\0", "Raspberry Pi 5 Model B"),
    ],
)
def test_processors_of_all_makers(tmp_path: Path, cpuinfo: str, board: str, name: str) -> None:
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/cpuinfo").write_text(cpuinfo)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 16777216 kB\n")
    if board:
        (tmp_path / "proc/device-tree/model").write_text(board)
    found = hardware_of(lambda command: "", tmp_path, "Linux", "aarch64", {})
    assert (found.processor, found.kind, choose(found).name) == (name, "cpu", "cpu")


def test_gaudi_is_told_and_not_used(tmp_path: Path) -> None:
    found = machine(tmp_path, {"hl-smi": "HL-325L\nHL-325L\n"})
    assert (found.kind, choose(found).name) == ("cpu", "cpu-32")
    assert str(found).endswith("no GPU, 2 × Intel Gaudi HL-325L (not used by ilab)")
    assert machine(tmp_path, {"hl-smi": "hl-smi: no device\n"}).unused == ()


def test_the_reason_for_a_profile(tmp_path: Path) -> None:
    two = machine(tmp_path, {"nvidia-smi": "NVIDIA L4, 23034\nTesla T4, 15360\n"})
    assert why(choose(two), two) == "it is for a GPU with at least 15 GiB; the smallest GPU has 15.0 GiB"
    assert why(shipped()["cpu"], two) == "it was named; gpu-16 is the one that fits this machine"
    small = machine(tmp_path, {"nvidia-smi": "NVIDIA GeForce GTX 1050, 4096\n"})
    assert why(choose(small), small) == "4.0 GiB on a GPU are too little for every profile of GPUs"
    assert why(shipped()["gpus-8"], small).startswith("it was named")


def test_this_machine_is_found_without_torch() -> None:
    import subprocess
    import sys

    program = (
        "import sys; from ilab.hardware import detect; h = detect(); print(h.cores, h.memory, 'torch' in sys.modules)"
    )
    cores, memory, torch = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    assert int(cores) == detect().cores >= 1
    assert int(memory) > GIB
    assert torch == "False"
