"""Targets: facts about a device, as data.

What to generate and what it will cost are decided from these figures alone, so code
for another machine comes out the same wherever it is compiled:

    target = resolve("x86-64-v3")     AVX2 with FMA: 8 lanes of f32, 16 registers
    target = resolve(None)            the machine itself

A CPU is one of three levels of the x86-64 psABI, plus the extensions that the kernel
reports. Bandwidths and clock are those of a two-core Zen 5 machine: defaults of the
right magnitude, which `fusec calibrate` replaces by those of the machine itself.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

from fusec.errors import OptionError, UserError


@dataclass(frozen=True, slots=True)
class Multiprocessor:
    """What programs share of one core of a GPU."""

    registers: int
    """Of 32 bits, of all threads."""
    shared: int
    """Bytes of shared memory, of all programs."""
    shared_of_program: int
    """Bytes of it that one program may have."""
    threads: int
    """Threads that there is room for."""
    programs: int
    """Programs that there are at a time, at most."""

    @property
    def reserved(self) -> int:
        """Bytes of shared memory that the system takes for each program."""
        return self.shared - self.shared_of_program


@dataclass(frozen=True, slots=True)
class Target:
    """One device. Sizes in bytes, rates in bytes or cycles per second.

    A core is a CPU's, or a multiprocessor of a GPU.
    """

    name: str
    cpu: str
    """LLVM's name of the processor."""
    features: tuple[str, ...]
    """LLVM's names of the instruction sets that code may use; on a GPU, what its cores
    have besides vector units."""
    vector_bits: int
    """Width of a vector register: on a GPU, of a warp's."""
    registers: int
    """Vector registers that code can name."""
    kind: Literal["cpu", "cuda", "hip"] = "cpu"
    triple: str = "x86_64-unknown-linux-gnu"
    cores: int = 2
    vector_pipes: int = 2
    """Vector arithmetic instructions that start in one cycle, on one core."""
    hertz: float = 3.97e9
    l1_bytes: int = 48 << 10
    """First-level data cache of one core."""
    l2_bytes: int = 1 << 20
    """The last memory that a core has to itself: a CPU's second-level cache, the only
    level of a GPU's."""
    llc_bytes: int = 32 << 20
    """Last-level cache, shared by all cores: a CPU's third level, a GPU's second."""
    l2_rate: float = 239e9
    """Bytes read per second and core, as are the next two."""
    llc_rate: float = 120e9
    dram_rate: float = 40e9
    dram_rate_all: float = 78e9
    """Reads by all cores together."""
    nontemporal: bool = True
    """Stores can bypass the caches."""
    backend: str = "llvm"
    """Which of `codegen.backend` writes its code."""
    keeps: bool = True
    """What a kernel leaves in the caches of a core is there for the next one."""
    scratch: bool = True
    """A kernel may hand values from sweep to sweep in scratch memory, near a core."""
    packs: bool = True
    """What its products read may be packed in panels."""
    peels: bool = True
    """A loop may end in a part of its own, for what is left; else each trip is a whole
    block, masked."""
    owns_rows: bool = True
    """A program may have all of some rows of a product's result, for what is computed
    of a whole row."""
    updates: tuple[str, ...] = ()
    """The dtypes whose elements programs combine in memory, all at once, for less than
    it takes to look for those that meet: sums of them, and extremes of integers."""
    launch: float = 1.5e-6
    """Seconds to start a kernel and to join its threads."""
    latency: float = 0.0
    """Seconds that programs wait for memory before they have anything to do, and that
    nothing else hides: on a GPU, where all begin at once."""
    library: tuple[tuple[str, float], ...] = ()
    """The products of matrices that torch's library does well, by the dtype of their
    factors: its multiply-adds for each that f32's peak has."""
    gpu: Multiprocessor | None = None
    """What its cores are, of a GPU."""

    @property
    def is_gpu(self) -> bool:
        """Whether a program is shared out to threads, as Triton does it: in blocks
        whose extents are powers of two."""
        return self.gpu is not None

    def has(self, feature: str) -> bool:
        """Whether an instruction set, by LLVM's name, may be used."""
        return feature in self.features

    @property
    def feature_string(self) -> str:
        """The features as LLVM takes them: `+avx2,+fma`."""
        return ",".join(f"+{feature}" for feature in self.features)

    def lanes(self, bits: int) -> int:
        """Elements of that width in one vector register."""
        return self.vector_bits // bits


_V1 = ("sse2",)
_V2 = (*_V1, "sse3", "ssse3", "sse4.1", "sse4.2", "cx16", "popcnt")
_V3 = (*_V2, "avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe")
_V4 = (*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")

X86_64 = Target("x86-64", "x86-64", _V1, vector_bits=128, registers=16)
X86_64_V3 = Target("x86-64-v3", "x86-64-v3", _V3, vector_bits=256, registers=16)
X86_64_V4 = Target("x86-64-v4", "x86-64-v4", _V4, vector_bits=512, registers=32)


def _gpu(
    name: str,
    cores: int,
    pipes: int,
    hertz: float,
    shared_kib: int,
    l2_mib: int,
    l2_rate: float,
    dram_rate: float,
    products: tuple[tuple[str, float], ...],
    kind: Literal["cuda", "hip"] = "cuda",
    warp: int = 32,
    threads: int = 2048,
    programs: int = 32,
    features: tuple[str, ...] = (),
) -> Target:
    """A GPU by its datasheet: `pipes` warps multiply and add in a cycle of each core;
    rates are bytes per second of the whole device; `features` are what its cores have
    besides vector units and tensor cores."""
    shared = shared_kib << 10
    core = Multiprocessor(
        registers=(64 << 10) if kind == "cuda" else 128 << 10,
        shared=shared,
        # CUDA takes a KiB of each program's.
        shared_of_program=shared - (1 << 10) if kind == "cuda" else shared,
        threads=threads,
        programs=programs,
    )
    return Target(
        name,
        name,
        ("mma", *features),
        vector_bits=32 * warp,
        registers=255,
        kind=kind,
        triple="nvptx64-nvidia-cuda" if kind == "cuda" else "amdgcn-amd-amdhsa",
        cores=cores,
        vector_pipes=pipes,
        hertz=hertz,
        l1_bytes=shared,
        l2_bytes=shared,
        llc_bytes=l2_mib << 20,
        l2_rate=128 * hertz,
        llc_rate=l2_rate / cores,
        dram_rate=2 * dram_rate / cores,
        dram_rate_all=dram_rate,
        backend="triton",
        keeps=False,
        scratch=False,
        packs=False,
        peels=False,
        owns_rows=False,
        updates=("f32", "f64", "i32", "i64"),
        launch=2.5e-6,
        latency=7e-7,
        library=products,
        gpu=core,
    )


def _tensor_cores(narrow: float) -> tuple[tuple[str, float], ...]:
    """What a vendor's library reaches of tensor cores that do `narrow` multiply-adds on
    halves for each that vector units do on f32: eight tenths (power sets the limit)."""
    halves = [(name, 0.8 * narrow) for name in ("f16", "bf16")]
    return ("f32", 0.85), *halves, ("i8", 1.6 * narrow)


SM_80 = _gpu("sm_80", 108, 2, 1.41e9, 164, 40, 3.7e12, 2.04e12, _tensor_cores(16))
SM_89 = _gpu(
    "sm_89",
    142,
    4,
    2.52e9,
    100,
    96,
    4.5e12,
    0.864e12,
    _tensor_cores(4),
    threads=1536,
    programs=24,
)
_COPIES = ("descriptors",)
"""Hardware that copies blocks of matrices between memory and shared memory, which
tensor descriptors tell of."""
SM_90 = _gpu(
    "sm_90",
    132,
    4,
    1.98e9,
    228,
    50,
    5.5e12,
    3.35e12,
    _tensor_cores(14.8),
    features=_COPIES,
)
SM_100 = _gpu(
    "sm_100",
    148,
    4,
    1.96e9,
    228,
    126,
    9.0e12,
    8.0e12,
    _tensor_cores(30),
    features=_COPIES,
)
GFX942 = _gpu(
    "gfx942",
    304,
    2,
    2.1e9,
    64,
    256,
    9.0e12,
    5.3e12,
    _tensor_cores(8),
    kind="hip",
    warp=64,
)
"""A100 (SXM, 80 GB), L40S, H100 (SXM), B200 and MI300X. Peaks and sizes are those of
the vendors' datasheets, rates of the second-level cache those that others measured."""

TARGETS: Mapping[str, Target] = {t.name: t for t in (X86_64, X86_64_V3, X86_64_V4)}
"""The processors that can be named."""
GPUS: Mapping[str, Target] = {t.name: t for t in (SM_80, SM_89, SM_90, SM_100, GFX942)}
"""The GPUs that can be named."""


def resolve(name: str | None) -> Target:
    """The target of that name; the host for None. Raises `OptionError` if unknown."""
    if name is None:
        return host()
    known = {**TARGETS, **GPUS}
    if name not in known:
        raise OptionError(
            f"fusec has no target {name!r}",
            fix=f"the targets are {', '.join(known)}; leave it out for this machine",
        )
    return known[name]


def check_runs_here(target: Target) -> None:
    """Raise `OptionError` unless this machine has the target's instruction sets."""
    if target.is_gpu:
        raise OptionError(
            f"code for the target {target.name!r} cannot run on this machine",
            fix="leave the target out; `fusec dump --option target=…` shows its code",
        )
    missing = sorted(set(target.features) - set(host().features))
    if missing:
        raise OptionError(
            f"code for the target {target.name!r} cannot run on this machine, which"
            f" lacks {', '.join(missing)}",
            fix="leave the target out; `fusec dump --option target=…` shows its code",
        )


LLC_SHARE = 16 << 20
"""Bytes of the last-level cache to count on for each core: a virtual machine reports
all of its socket's, which it shares with its neighbours."""


_CPUINFO = Path("/proc/cpuinfo")


@cache
def host() -> Target:
    """This machine: its level, extensions, caches and the cores we may run on; its
    speed by default (`calibration.target_of` knows what was measured).

    Raises `UserError` where the processor is not an x86-64.
    """
    machine = platform.machine()
    if machine not in ("x86_64", "AMD64"):
        raise UserError(
            f"fusec has no target for this machine's processor, {machine}",
            fix=f"name one of {', '.join(TARGETS)} to generate code for another",
        )
    target = from_flags({*cpu_says("flags").split()})
    cores = _usable_cores()
    caches = _cache_sizes(Path("/sys/devices/system/cpu/cpu0/cache"))
    return replace(
        target,
        name="host",
        cores=cores,
        dram_rate_all=min(cores * target.dram_rate, target.dram_rate_all),
        l1_bytes=caches.get(1, target.l1_bytes),
        l2_bytes=caches.get(2, target.l2_bytes),
        llc_bytes=min(caches.get(3, target.llc_bytes), cores * LLC_SHARE),
    )


# The names of instruction sets: Linux's, in /proc/cpuinfo, and LLVM's.
_LINUX_NAMES = {
    "sse3": "pni",
    "sse4.1": "sse4_1",
    "sse4.2": "sse4_2",
    "bmi": "bmi1",
    "lzcnt": "abm",
}
_V3_EXTENSIONS = {
    "avx_vnni": "avxvnni",
    "avx_vnni_int8": "avxvnniint8",
    "gfni": "gfni",
}
_V4_EXTENSIONS = {
    "avx512_bf16": "avx512bf16",
    "avx512_bitalg": "avx512bitalg",
    "avx512_fp16": "avx512fp16",
    "avx512_vbmi2": "avx512vbmi2",
    "avx512_vnni": "avx512vnni",
    "avx512_vpopcntdq": "avx512vpopcntdq",
    "avx512ifma": "avx512ifma",
    "avx512vbmi": "avx512vbmi",
}


def from_flags(flags: Set[str]) -> Target:
    """The best level that `flags` (Linux's names) allow, with its extensions.

    {"avx2", "fma", …, "avx_vnni"}  ->  x86-64-v3 with +avxvnni
    """
    level = next(
        (t for t in (X86_64_V4, X86_64_V3) if _linux_names(t) <= flags), X86_64
    )
    known: dict[str, str] = {}
    if level.has("avx2"):
        known |= _V3_EXTENSIONS
    if level.has("avx512f"):
        known |= _V4_EXTENSIONS
    extra = tuple(llvm for linux, llvm in known.items() if linux in flags)
    library = {name: rate for flag, name, rate in _LIBRARY if flag in flags}
    features, pairs = level.features + extra, tuple(library.items())
    return replace(level, features=features, library=pairs)


_LIBRARY = (
    ("avx_vnni", "i8", 3.5),
    ("avx512_vnni", "i8", 3.5),
    ("amx_int8", "i8", 16.0),
    ("amx_bf16", "bf16", 8.0),
)
"""What torch's library does with instructions that we have no better rows for, the best
ones last: flags, dtypes and rates (see `Target.library`). VNNI's was measured on Zen 5,
those of AMX are half of what its units could do."""


def _linux_names(target: Target) -> Set[str]:
    return {_LINUX_NAMES.get(feature, feature) for feature in target.features}


def cpu_says(field: str, cpuinfo: Path = _CPUINFO) -> str:
    """What Linux says of the first processor under a name; "" where it does not."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return ""
    found = (line.partition(":") for line in lines)
    return next(
        (value.strip() for name, _, value in found if name.strip() == field), ""
    )


def _cache_sizes(folder: Path) -> dict[int, int]:
    """Bytes of the data cache at each level, as far as Linux tells."""
    sizes: dict[int, int] = {}
    for index in sorted(folder.glob("index*")):
        try:
            kind = (index / "type").read_text().strip()
            level = int((index / "level").read_text())
            size = (index / "size").read_text().strip()
        except (OSError, ValueError):
            continue
        if kind != "Instruction" and size.endswith("K"):
            sizes[level] = int(size[:-1]) << 10
    return sizes


def _usable_cores() -> int:
    """Processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
