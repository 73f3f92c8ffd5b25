"""Named targets are fixed; the host is derived from what Linux says."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from fusec import target as module
from fusec.errors import OptionError, UserError
from fusec.target import (
    GPUS,
    TARGETS,
    X86_64,
    X86_64_V3,
    X86_64_V4,
    Target,
    check_runs_here,
    from_flags,
    host,
)

V1_FLAGS = frozenset("fpu sse sse2 ht".split())
V3_FLAGS = V1_FLAGS | set(
    "pni ssse3 sse4_1 sse4_2 cx16 popcnt avx avx2 bmi1 bmi2 f16c fma abm movbe".split()
)
V4_FLAGS = V3_FLAGS | set("avx512f avx512bw avx512cd avx512dq avx512vl".split())


def features(target: Target, level: Target) -> set[str]:
    """What `target` has beyond a level."""
    return set(target.features) - set(level.features)


@pytest.mark.parametrize(
    ("flags", "level"),
    [
        (frozenset[str](), X86_64),
        (V1_FLAGS, X86_64),
        (V3_FLAGS, X86_64_V3),
        (V4_FLAGS, X86_64_V4),
        (V3_FLAGS - {"fma"}, X86_64),
        (V4_FLAGS - {"avx512vl"}, X86_64_V3),
    ],
)
def test_flags_choose_the_best_level(flags: frozenset[str], level: Target) -> None:
    assert from_flags(flags) == level


def test_extensions_come_under_llvm_s_names() -> None:
    bf16 = from_flags(V4_FLAGS | {"avx512_bf16", "avx_vnni", "made_up"})
    assert features(bf16, X86_64_V4) == {"avx512bf16", "avxvnni"}
    assert bf16.feature_string.endswith("+avxvnni,+avx512bf16")


def test_extensions_of_a_higher_level_are_left_out() -> None:
    # Naming avx512bf16 would enable all of AVX-512F, which these flags lack in part.
    assert from_flags(V3_FLAGS | {"avx512f", "avx512_bf16"}) == X86_64_V3


def test_vectors() -> None:
    assert [t.lanes(32) for t in TARGETS.values()] == [4, 8, 16]


def test_a_program_may_have_less_shared_memory_than_a_core_of_a_gpu() -> None:
    kib = {
        n: (t.gpu.shared >> 10, t.gpu.shared_of_program >> 10)
        for n, t in GPUS.items()
        if t.gpu
    }
    assert kib == {
        "sm_80": (164, 163),
        "sm_89": (100, 99),
        "sm_90": (228, 227),
        "sm_100": (228, 227),
        "gfx942": (64, 64),
    }


def test_resolve() -> None:
    assert module.resolve("x86-64-v3") is X86_64_V3
    with pytest.raises(OptionError, match=r"no target 'avx2'\n.*x86-64, x86-64-v3, "):
        module.resolve("avx2")


def test_another_architecture_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(UserError, match="no target for this machine's processor, aarc"):
        module.host.__wrapped__()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="no target for this CPU")
def test_the_host() -> None:
    host = module.resolve(None)
    assert host.cpu in TARGETS
    assert set(TARGETS[host.cpu].features) <= set(host.features)
    assert host.cores == len(os.sched_getaffinity(0))
    assert 8 << 10 <= host.l1_bytes <= host.l2_bytes <= host.llc_bytes


def test_cache_sizes_are_read_by_level(tmp_path: Path) -> None:
    entries = [("Data", 1, "48K"), ("Instruction", 1, "64K"), ("Unified", 2, "2048K")]
    for number, (kind, level, size) in enumerate(entries):
        folder = tmp_path / f"index{number}"
        folder.mkdir()
        (folder / "type").write_text(f"{kind}\n")
        (folder / "level").write_text(f"{level}\n")
        (folder / "size").write_text(f"{size}\n")
    (tmp_path / "index9").mkdir()  # says nothing
    assert module._cache_sizes(tmp_path) == {1: 48 << 10, 2: 2 << 20}


def test_linux_says_what_the_first_processor_is(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("flags\t\t: fpu sse2\nflagship\t: x\n\nflags\t\t: none\n")
    assert module.cpu_says("flags", path) == "fpu sse2"
    assert module.cpu_says("model name", path) == ""


def test_a_system_that_says_nothing(tmp_path: Path) -> None:
    assert module.cpu_says("flags", tmp_path / "cpuinfo") == ""
    assert module._cache_sizes(tmp_path / "cache") == {}


def test_llvm_knows_every_cpu_and_feature() -> None:
    pytest.importorskip("llvmlite")
    extensions = module._V3_EXTENSIONS.keys() | module._V4_EXTENSIONS.keys()
    rich = from_flags(V4_FLAGS | extensions)
    machines = [(t.cpu, t.feature_string) for t in (*TARGETS.values(), rich)]
    # LLVM complains of an unknown name on the C library's stderr.
    program = f"""
import llvmlite.binding as llvm
llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()
target = llvm.Target.from_triple({X86_64.triple!r})
for cpu, features in {machines!r}:
    machine = target.create_target_machine(cpu=cpu, features=features)
    machine.emit_assembly(llvm.parse_assembly("define void @f() {{ ret void }}"))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_target_that_the_machine_is_not_cannot_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_runs_here(X86_64)
    check_runs_here(host())
    monkeypatch.setattr("fusec.target.host", lambda: X86_64_V3)
    check_runs_here(X86_64_V3)
    with pytest.raises(OptionError, match="lacks avx512bw, avx512cd") as caught:
        check_runs_here(X86_64_V4)
    assert "leave the target out" in str(caught.value)
