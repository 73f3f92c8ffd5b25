"""Factors of products by tensor descriptors: which can be, and that they are the same.

No GPU ran these kernels: Triton's interpreter does, and its compiler tells what they
take of a GPU.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from codegen.test_triton import journey_of, same, sized
from end_to_end.test_gpu import compiled, shifted
from gpu_descriptors import ours
from gpu_static import taken_in
from texts import ops, read

from fusec import build
from fusec.analysis import block_products, blocks
from fusec.analysis.accesses import accesses
from fusec.analysis.candidates import Choice, candidates, described
from fusec.analysis.choices import choose
from fusec.analysis.descriptors import descriptor_bytes, may_describe, scratch_at
from fusec.build import Binaries, gpu_jobs
from fusec.codegen import llvm_gpu_host
from fusec.compiler import setting_of
from fusec.errors import InternalError
from fusec.fitting import fitted
from fusec.ir.core import Module, walk
from fusec.ir.dims import Facts
from fusec.ir.ops.extern import Extern
from fusec.ir.ops.host import Alloc, Launch
from fusec.ir.ops.loop import Region
from fusec.ir.ops.tile import DESCRIPTOR, FetchTile
from fusec.ir.parser import parse_module
from fusec.ir.printer import format_module
from fusec.options import Options
from fusec.passes.journey import Journey, lower, scheduled_anew
from fusec.passes.lower_to_host import lower_to_host
from fusec.passes.pipeline import stripmined
from fusec.passes.tile import tile
from fusec.runtime.ahead import Binary, Failure, Job, Resources, compile_all
from fusec.runtime.arrays import to_array
from fusec.target import GPUS, SM_80, SM_90, Target

pytest.importorskip("triton")
from emulated import EmulatedDriver, Emulator, emulated
from triton import knobs

F = Callable[..., Any]


@contextmanager
def having(descriptors: bool) -> Iterator[None]:
    """Every product is to have descriptors, where it can, or none."""
    plain = block_products.product_blocks

    def made(*given: Any) -> Any:
        return replace(plain(*given), descriptors=descriptors)

    with patch.object(blocks, "product_blocks", made):
        yield


@pytest.fixture
def always() -> Iterator[None]:
    with having(descriptors=True):
        yield


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Emulator:
    return Emulator(tmp_path_factory.mktemp("descriptors"))


def half(*shape: int) -> torch.Tensor:
    """Small integers: their products add up to the same in any order."""
    return torch.randint(-4, 5, shape).bfloat16()


def byte(*shape: int) -> torch.Tensor:
    return torch.randint(-100, 100, shape, dtype=torch.int8)


def product(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return (x @ w) * 0.5


def fetched(journey: Journey) -> list[FetchTile]:
    kernels = journey.kernels.values()
    return [op for k in kernels for op in walk(k.body) if isinstance(op, FetchTile)]


def lowered(f: F, *args: torch.Tensor, target: Target = SM_90) -> Journey:
    """Products are ours here: the library is of no account."""
    (recorded,) = taken_in(f, *args)
    setting = setting_of(Options(target=target.name), recorded.imported.hints)
    alone = replace(setting, target=replace(target, library=()))
    return lower(recorded.imported.function, alone)


# Which factors can be.

WIDE = half(200, 72)
COLUMNS = half(64, 128)
CASES: dict[str, tuple[int, F, tuple[torch.Tensor, ...]]] = {
    "both": (2, product, (half(200, 64), COLUMNS)),
    "transposed": (
        2,
        lambda x, w: product(x.t(), w.t()),
        (half(64, 200), half(128, 64)),
    ),
    "batches": (2, product, (half(3, 200, 64), half(3, 64, 128))),
    "bytes": (
        2,
        lambda x, y: torch.ops.aten._int_mm(x, y).float() * 0.5,
        (byte(200, 64), byte(64, 128)),
    ),
    "part of each row": (2, lambda x, w: product(x[:, 8:], w), (WIDE, COLUMNS)),
    "rows of 134 bytes": (
        1,
        lambda x, w: product(x, w[:67]),
        (half(200, 67), half(67, 128)),
    ),
    "from byte 2 on": (1, lambda x, w: product(x[:, 1:65], w), (WIDE, COLUMNS)),
    "every other element": (
        1,
        lambda x, w: product(x[:, ::2], w),
        (half(200, 128), COLUMNS),
    ),
    "backwards": (1, lambda x, w: product(x.flip(0), w), (half(200, 64), COLUMNS)),
    "masked": (
        1,
        lambda x, w: product(torch.nn.functional.pad(x, (8, 0)), w),
        (half(200, 56), COLUMNS),
    ),
    "indexed": (
        1,
        lambda x, i, w: product(x[i], w),
        (half(99, 64), torch.randint(0, 99, (200,)), COLUMNS),
    ),
    "of 32 bits": (0, product, (torch.randn(200, 64), torch.randn(64, 128))),
}


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("name", CASES)
def test_what_descriptors_can_tell_of(name: str) -> None:
    count, f, args = CASES[name]
    journey = lowered(f, *args)
    assert len(fetched(journey)) == count


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(("dims", "count"), [("m", 2), ("k", 0), ("n", 1)])
def test_sizes_that_are_not_known(dims: str, count: int) -> None:
    """Rows may be as many as they like, not as long."""
    x, w = half(200, 64), half(64, 128)
    for name, tensor, dim in (("m", x, 0), ("k", x, 1), ("k", w, 0), ("n", w, 1)):
        if name == dims:
            torch._dynamo.mark_dynamic(tensor, dim)
    assert len(fetched(lowered(product, x, w))) == count


PRODUCT = """
loop @inference(%x: bf16[8200], %w: bf16[64, 128]) -> (bf16[128, 128])
    returns_into [none] {
  %v = view %x {offset=OFFSET} : bf16[128, 64] strides [64, 1]
  %0 = region %v, %w over i:128, k:64, j:128 : bf16[128, 128] {
    ^(%x_1: bf16[128, 64] strides [64, 1], %w_1: bf16[64, 128], %1: bf16[128, 128]):
    %2 = load %x_1 [i, k] : bf16{i, k}
    %3 = cast %2 : f32{i, k}
    %4 = load %w_1 [k, j] : bf16{k, j}
    %5 = cast %4 : f32{k, j}
    %6 = mul %3, %5 : f32{i, k, j}
    %7 = reduce %6 {axes=(k,), monoid=sum<f32>} : f32{i, j}
    %8 = cast %7 : bf16{i, j}
    store %8, %1 [i, j]
  }
  yield %0
}
"""


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(("offset", "count"), [(8, 2), (4, 0), (1, 0)])
def test_views_that_begin_anywhere(offset: int, count: int) -> None:
    function = read(PRODUCT.replace("OFFSET", str(offset)))
    found = lower_to_host(function, SM_90, {})
    (kernel,) = found.kernels.values()
    tiles = [op for op in walk(kernel.function.body) if isinstance(op, FetchTile)]
    assert len(tiles) == count
    assert kernel.schedule.descriptors is bool(count)
    assert (scratch_at(kernel.function) is not None) is bool(count)
    (launch,) = ops(found.host, Launch)
    assert len(launch.arguments) == len(kernel.function.params)


def test_small_blocks_are_not_worth_it() -> None:
    """Their descriptors would take as much memory as what they write."""
    few, many = (
        accesses(ops(lowered(product, half(m, 64), half(64, m)).loops, Region)[0])
        for m in (16, 8192)
    )
    for found, worth in ((few, False), (many, True)):
        schedule = choose(found, SM_90, {})
        assert may_describe(schedule, found, SM_90) is worth
        assert not may_describe(schedule, found, SM_80)


def test_whether_to_is_one_of_the_choices() -> None:
    journey = lowered(product, half(4096, 2000), half(2000, 4096))
    kernel, *_ = journey.lowered.kernels.values()
    found = accesses(kernel.region)
    assert not kernel.schedule.descriptors  # until a GPU has shown what it is worth
    tried = [c.schedule for c in candidates(found, journey.target, {})]
    best = next(schedule for schedule in tried if schedule.descriptors)
    assert "by descriptors" in str(best)
    text = described(best, found)
    choices = {kernel.fingerprint.text: Choice(text, 1.5)}
    anew = scheduled_anew(journey, replace(journey.setting, choices=choices.get))
    assert len(fetched(anew)) == 2
    for target in (SM_80, GPUS["gfx942"]):
        others = candidates(found, target, {})
        assert not any(c.schedule.descriptors for c in others)


def test_facts_tell_what_sizes_are_multiples_of() -> None:
    x, w = half(200, 64), half(64, 128)
    for tensor, dim in ((x, 1), (w, 0)):
        torch._dynamo.mark_dynamic(tensor, dim)
    journey = lowered(product, x, w)
    kernel, *_ = journey.lowered.kernels.values()
    found = accesses(kernel.region)
    (name,) = kernel.function.symbols
    few = Facts(ranges=((name, 2, 1 << 20),), divisors=((name, 8),))
    schedule = replace(kernel.schedule, descriptors=True)
    odd = replace(few, divisors=((name, 4),))
    endless = replace(few, ranges=())
    for facts, count in ((few, 2), (odd, 1), (endless, 0)):
        made = tile(found, schedule, "f", facts)
        assert len([op for op in walk(made.body) if isinstance(op, FetchTile)]) == count


# That they give the same.

SIZES = [(128, 64, 128), (70, 40, 88), (200, 104, 72), (33, 8, 264), (64, 200, 96)]


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_edges(size: tuple[int, int, int], emulator: Emulator) -> None:
    """Whatever of a block lies beyond the matrices is zero."""
    torch.manual_seed(0)
    m, k, n = size

    def f(x: Any, w: Any, v: Any, b: Any) -> Any:
        return (x @ w + b).relu(), (v.t() @ w) * 0.5

    journey, arrays = journey_of(
        f, half(m, k), half(k, n), half(k, m + 8 - m % 8), half(n)
    )
    assert len(fetched(journey)) >= 3
    same(journey, arrays, emulator, ulps=0)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(
    "name", ["transposed", "batches", "bytes", "part of each row", "masked", "indexed"]
)
def test_kinds(name: str, emulator: Emulator) -> None:
    torch.manual_seed(0)
    _, f, args = CASES[name]
    journey, arrays = journey_of(f, *args)
    assert fetched(journey)
    same(journey, arrays, emulator, ulps=0)


@pytest.mark.usefixtures("always")
def test_what_is_not_a_number_beyond_a_matrix_stays_there(emulator: Emulator) -> None:
    """The rows of one matrix of a batch are followed by those of the next."""
    x, w = half(2, 40, 24), half(2, 24, 72)
    x[1], w[1] = float("nan"), float("inf")
    journey, arrays = journey_of(product, x, w)
    assert len(fetched(journey)) == 2
    first, _ = emulator.run(journey, arrays)[0]
    assert abs(first).max() < 1e3
    same(journey, arrays, emulator, ulps=0)


@pytest.mark.usefixtures("always")
def test_open_sizes(emulator: Emulator) -> None:
    torch.manual_seed(0)
    x, w = half(17, 48), half(48, 72)
    torch._dynamo.mark_dynamic(x, 0)
    journey, arrays = journey_of(lambda x, w: (x @ w).relu(), x, w)
    assert len(fetched(journey)) == 2
    same(journey, arrays, emulator, ulps=0)
    for m in (3, 130, 300):
        arrays = [*map(to_array, (half(m, 48), w))]
        same(journey, sized(journey, arrays), emulator, ulps=0)


@pytest.mark.usefixtures("always")
def test_the_text_form_reads_back() -> None:
    journey = lowered(product, half(100, 40), half(40, 128))
    kernels = [stripmined(k, journey.target) for k in journey.kernels.values()]
    text = format_module(Module((journey.joined.host, *kernels)))
    assert text.count("fetch_tile") == 2
    assert "walked=(1,)" in text
    assert format_module(parse_module(text)) == text


# Memory that they are made in.


@pytest.mark.usefixtures("always")
def test_every_program_has_its_own_scratch_memory() -> None:
    journey = lowered(product, half(3, 1000, 64), half(3, 64, 512))
    (launch,) = ops(journey.lowered.host, Launch)
    allocs = ops(journey.lowered.host, Alloc)
    scratch = next(op for op in allocs if op.result is launch.arguments[-1])
    kernel = journey.kernels[launch.kernel]
    assert scratch_at(kernel) == len(kernel.params) - 1
    assert scratch.type.shape == (2 * DESCRIPTOR * launch.grid,)
    assert descriptor_bytes(kernel) == 2 * DESCRIPTOR
    (job,) = gpu_jobs(journey.joined, journey.target).values()
    assert job.scratch == 2 * DESCRIPTOR


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[EmulatedDriver]:
    torch._dynamo.reset()
    with emulated(tmp_path) as driver:
        yield driver
    torch._dynamo.reset()


def agreeing(got: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(got, wanted, rtol=2e-2, atol=1e-1)


@pytest.mark.usefixtures("always")
def test_calls(driver: EmulatedDriver) -> None:
    """With arguments that begin anywhere, too: those are copied."""
    torch.manual_seed(0)
    x, w = half(100, 64), half(64, 136)
    f = compiled(lambda x, w: (x @ w).relu())
    for args in ((x, w), (x, w), (shifted(x), w), (x, shifted(w))):
        agreeing(f(*args), (x @ w).relu())
    scratch = {job.scratch for _, job in driver.kernels if "tl.dot" in job.source}
    assert scratch == {2 * DESCRIPTOR}


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("watched", [False, True])
def test_sizes_of_scratch_memory_that_calls_tell(
    driver: EmulatedDriver, watched: bool
) -> None:
    torch.manual_seed(0)
    w = half(64, 136)
    f = compiled(lambda x, w: (x @ w).relu(), dynamic=False)
    for m in (100, 257, 3, 70):
        x = half(m, 64)
        torch._dynamo.mark_dynamic(x, 0)
        with torch.profiler.profile() if watched else nullcontext():
            agreeing(f(x, w), (x @ w).relu())
    assert any(job.scratch for _, job in driver.kernels)


@pytest.mark.usefixtures("always")
def test_without_scratch_memory_a_launch_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llvm_gpu_host, "scratch_at", lambda kernel: None)
    torch._dynamo.reset()
    x, w = half(100, 64), half(64, 136)
    f = compiled(lambda x, w: (x @ w).relu())
    missing = pytest.raises(AssertionError, match="scratch at 0")
    with missing, emulated(tmp_path), suppress(InternalError):
        for _ in range(2):  # the first call is Python's, not native
            f(x, w)


# Code for GPUs that are not here.


def compiled_for(target: str, descriptors: bool) -> dict[str, Resources]:
    """What the kernel of each case takes."""
    jobs: dict[str, Job] = {}
    for name in COMPILED:
        _, f, args = CASES[name]
        with having(descriptors):
            journey = lowered(f, *args, target=GPUS[target])
        assert bool(fetched(journey)) is descriptors
        for job in gpu_jobs(journey.joined, journey.target).values():
            if "tl.dot" in job.source:
                jobs[name] = job
    assert jobs.keys() == {*COMPILED}
    outcomes = Binaries().of(jobs)
    failed = [each for each in outcomes.values() if isinstance(each, Failure)]
    assert not failed
    return {name: each.resources for name, each in outcomes.items()}


COMPILED = ("both", "transposed", "batches", "bytes", "part of each row", "masked")


@pytest.mark.parametrize("target", ["sm_90", "sm_100"])
def test_compiled_code(target: str) -> None:
    """It spills nothing, and takes no more shared memory than there is and scratch
    memory than it is given; on Hopper no more registers than with pointers."""
    core = GPUS[target].gpu
    assert core is not None
    pointers, fetching = (compiled_for(target, chosen) for chosen in (False, True))
    for taken in (*pointers.values(), *fetching.values()):
        assert not taken.spilled
        assert taken.shared <= core.shared_of_program
    if target == "sm_90":
        for name in COMPILED:
            assert fetching[name].registers <= pointers[name].registers + FEW


FEW = 8
"""Registers of a thread that are granted at a time."""


@pytest.mark.usefixtures("always")
def test_memory_that_is_not_given_fails_the_job() -> None:
    journey = lowered(product, half(200, 64), COLUMNS)
    (job,) = gpu_jobs(journey.joined, journey.target).values()
    (outcome,) = compile_all([replace(job, scratch=DESCRIPTOR)], 1)
    assert isinstance(outcome, Failure)
    assert "it needs 256 bytes of scratch memory, not 128" in outcome.what


@pytest.mark.usefixtures("always")
def test_blocks_are_copied_ahead_by_hardware(tmp_path: Path) -> None:
    """Both factors, while tensor cores multiply what came before."""
    journey = lowered(product, half(1024, 2000), half(2000, 1024))
    (job,) = gpu_jobs(journey.joined, journey.target).values()
    (binary,) = compile_all([job], 1)
    assert isinstance(binary, Binary), binary
    text = instructions(binary, tmp_path / "f.cubin")
    assert text.count("UTMALDG") >= 2
    assert "LDGSTS" not in text
    assert "HGMMA" in text
    assert re.search(r"WARPGROUP\.DEPBAR\.LE gsb0, 0x1\b", text)


def instructions(binary: Binary, path: Path) -> str:
    path.write_bytes(binary.code)
    tool = [knobs.nvidia.nvdisasm.path, "-c", str(path)]
    return subprocess.run(tool, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("chosen", [False, True])
def test_what_the_benchmark_compares(chosen: bool) -> None:
    """Kernels of our own, with descriptors or without."""
    with ours(chosen):
        journey, _ = journey_of(torch.matmul, half(512, 520), half(520, 4096))
    assert len(fetched(journey)) == 2 * chosen
    assert not ops(journey.joined.host, Extern)


@pytest.mark.usefixtures("always")
def test_candidates_in_its_place_are_told_what_is_aligned() -> None:
    """Memory for descriptors is one more buffer, and not of all of them."""
    seen: list[Job] = []

    def spilling(jobs: Sequence[Job], workers: int) -> list[Binary]:
        seen.extend(jobs)
        return [Binary(b"", Resources(8, 96, 0, 128)) for _ in jobs]

    with patch.object(build, "compile_all", spilling):
        fitted(lowered(product, half(1024, 512), half(512, 1024)), Binaries())
    assert {bool(job.scratch) for job in seen} == {False, True}
    for job in seen:
        pointers = [kind for kind in job.types if kind.startswith("*")]
        assert job.aligned == (True,) * len(pointers)
        assert len(pointers) == 3 + bool(job.scratch)
