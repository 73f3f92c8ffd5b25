"""The GPUs that torch has here: what target each is, and what starts kernels on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch

from fusec.calibration import Machine, calibrated
from fusec.errors import OptionError, Unsupported, UnsupportedError
from fusec.options import Options
from fusec.runtime.ahead import INSTALL, triton_version
from fusec.runtime.cuda import Cuda
from fusec.runtime.launcher_gpu import Driver
from fusec.target import GPUS, Target, resolve

ARCHITECTURES = 9
"""The major capability from which on Triton's code is for exactly one architecture."""
OLDEST = (8, 0)
"""The compute capability from which on kernels are written for CUDA."""


class Kind(NamedTuple):
    """A kind of GPU, as torch names it."""

    target: Callable[[torch.device], Target]
    """Raises `UnsupportedError` for a device that fusec has no code for."""
    machine: Callable[[torch.device], Machine]
    """What figures that were measured there are true of."""
    driver: Callable[[], Driver]
    measures: str
    """The module of the process that takes the time of kernels there."""


def target_of(name: str, options: Options) -> Target:
    """The target that a GPU is, by torch's name of it, with what was measured of it; or
    the one that the options name, if its code runs there.

    Raises `UnsupportedError` where programs cannot run at all, `OptionError` where they
    cannot for the target that is wanted.
    """
    device = torch.device(name)
    if device.type not in KINDS:
        raise _unsupported(device, f"fusec knows no devices called {device.type}")
    if find_spec("triton") is None:
        raise _unsupported(device, f"it takes Triton: {INSTALL}")
    own = KINDS[device.type].target(device)
    if options.target is None:
        return calibrated(own, machine_of(name), options.cache_dir)
    chosen = resolve(options.target)
    if not _runs(chosen, own):
        raise OptionError(
            f"code for the target {chosen.name!r} cannot run on {name}: that is an"
            f" {own.name}",
            fix="leave the target out",
        )
    return chosen


def _runs(target: Target, device: Target) -> bool:
    """Whether a GPU runs code for a target: that of its own family, no newer one."""
    if target.kind != device.kind:
        return False
    if target.kind != "cuda":
        return target.cpu == device.cpu
    (major, minor), (own, most) = _capability(target), _capability(device)
    if major >= ARCHITECTURES:
        return (major, minor) == (own, most)
    return major == own and minor <= most


def machine_of(name: str) -> Machine:
    """What figures that were measured on a GPU are true of."""
    device = torch.device(name)
    return KINDS[device.type].machine(device)


def facts_of(name: str, options: Options) -> object:
    """What code for a GPU depends on: its target, and the version of Triton."""
    try:
        return target_of(name, options), triton_version()
    except UnsupportedError:
        return None


def identity_of(name: str) -> tuple[str, ...]:
    """What times that were measured on a GPU are true of, besides its target; nothing
    where that is no GPU of this machine."""
    if torch.device(name).type not in KINDS:
        return ()
    return repr(machine_of(name)), triton_version()


def measured_by(name: str) -> str:
    """The module of the process that takes the time of kernels on a GPU."""
    return KINDS[torch.device(name).type].measures


def driver_of(name: str) -> Driver:
    """What starts kernels on a GPU. Raises `UserError` where that is not installed."""
    return KINDS[torch.device(name).type].driver()


@cache
def _cuda_target(device: torch.device) -> Target:
    if torch.version.hip is not None:
        raise _unsupported(device, "fusec runs programs on NVIDIA's GPUs only, as yet")
    return described(torch.cuda.get_device_properties(device), device)


def described(facts: Any, device: torch.device) -> Target:
    """A target by what torch tells of a GPU's properties.

    What torch does not tell, such as rates, is that of the newest card we know which is
    no newer; its bandwidth where torch tells the clock and the width of the memory.
    """
    own = facts.major, facts.minor
    if own < OLDEST:
        needs = f"fusec needs compute capability {OLDEST[0]}.{OLDEST[1]}"
        raise _unsupported(device, f"{needs}, {facts.name} has {own[0]}.{own[1]}")
    known = [target for target in GPUS.values() if target.kind == "cuda"]
    like = max((t for t in known if _capability(t) <= own), key=_capability)
    core = like.gpu
    assert core is not None
    cores, name = facts.multi_processor_count, f"sm_{facts.major}{facts.minor}"
    rate = _memory_rate(facts) or like.dram_rate_all
    return replace(
        like,
        name=name,
        cpu=name,
        cores=cores,
        llc_bytes=facts.L2_cache_size,
        llc_rate=like.llc_rate * like.cores / cores,
        dram_rate=2 * rate / cores,
        dram_rate_all=rate,
        gpu=replace(
            core,
            registers=facts.regs_per_multiprocessor,
            shared=facts.shared_memory_per_multiprocessor,
            shared_of_program=facts.shared_memory_per_block_optin,
            threads=facts.max_threads_per_multi_processor,
        ),
    )


def _memory_rate(facts: Any) -> float:
    """Bytes per second: two transfers in each cycle of kHz, bits wide; 0 if unknown."""
    clock, width = (
        getattr(facts, f"memory_{x}", 0) for x in ("clock_rate", "bus_width")
    )
    return 2e3 * clock * width / 8


def _cuda_machine(device: torch.device) -> Machine:
    return described_machine(torch.cuda.get_device_properties(device))


def described_machine(facts: Any) -> Machine:
    """What figures are true of, by what torch tells of a GPU's properties: cards of one
    name differ in their clocks."""
    clocks = [getattr(facts, n, 0) for n in ("clock_rate", "memory_clock_rate")]
    told = [f" {kilohertz // 1000} MHz" for kilohertz in clocks if kilohertz]
    features = f"sm_{facts.major}{facts.minor}{''.join(told)}"
    return Machine(facts.name, features, facts.multi_processor_count)


def _capability(target: Target) -> tuple[int, int]:
    digits = target.cpu.removeprefix("sm_")
    return int(digits[:-1]), int(digits[-1])


def _unsupported(device: torch.device, reason: str) -> UnsupportedError:
    return UnsupportedError([Unsupported(f"a graph on {device}", reason)])


_CUDA = Kind(_cuda_target, _cuda_machine, cache(Cuda), "fusec.runtime.measure_worker")
KINDS: dict[str, Kind] = {"cuda": _CUDA}
"""By the names of torch's devices. Tests add one whose memory is the CPU's."""
