"""A process that compiles Triton kernels: jobs as lines of JSON in, outcomes out.

{"source": …, "types": ["*fp32", "i64"], "constants": [["BLOCK_I", 128]], …}
    →   {"code": base64, "resources": {"registers": 32, …}}   or   {"error": …}
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory
from typing import Any

import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fusec.runtime.triton_source import loaded

ALIGNED = [["tt.divisibility", 16]]
"""What is known of a buffer that begins at a multiple of 16 bytes."""


def main() -> None:
    """Answer each line before the next one is read."""
    for number, line in enumerate(sys.stdin):
        job: dict[str, Any] = json.loads(line)
        try:
            with TemporaryDirectory(prefix="fusec-") as folder:
                outcome = compiled(job, Path(folder, f"kernel_{number}.py"))
        except Exception as error:
            outcome = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(outcome), flush=True)


def compiled(job: dict[str, Any], path: Path) -> dict[str, Any]:
    """The binary of a kernel, and what it takes. Raises what Triton raises."""
    function = loaded(job["source"], job["name"], path)
    constants = dict(job["constants"])
    kinds = [*job["types"], *("constexpr" for _ in constants)]
    types = dict(zip(function.arg_names, kinds, strict=True))
    known = {(k,): ALIGNED for k, whole in enumerate(job["aligned"]) if whole}
    source = ASTSource(function, types, constants, known)
    arch = job["arch"].removeprefix("sm_")
    arch = int(arch) if arch.isdecimal() else arch
    target = GPUTarget(job["backend"], arch, job["warp"])
    options = {
        "num_warps": job["warps"],
        "num_stages": job["stages"],
        "enable_fp_fusion": False,
    }
    binary = triton.compile(source, target=target, options=options)
    kind = "cubin" if job["backend"] == "cuda" else "hsaco"
    launch = binary.metadata
    # AMD's are not told by every version.
    needed, given = getattr(launch, "global_scratch_size", 0), job["scratch"]
    if needed > given:
        raise ValueError(f"it needs {needed} bytes of scratch memory, not {given}")
    if getattr(launch, "profile_scratch_size", 0) or getattr(launch, "num_ctas", 1) > 1:
        raise ValueError("it needs memory of a profiler, or clusters: nobody has any")
    registers, spilled = _used(binary.asm)
    resources = {
        "registers": registers,
        "spilled": spilled,
        "shared": binary.metadata.shared,
        "threads": job["warp"] * launch.num_warps,
    }
    code = base64.b64encode(binary.asm[kind]).decode()
    return {"code": code, "resources": resources}


def _used(asm: Any) -> tuple[int, int]:
    """Registers of a thread, and the bytes of it that were spilled."""
    if "cubin" not in asm:
        text = asm["amdgcn"]
        counts = [
            _number(rf"\.{n}:\s*(\d+)", text)
            for n in ("vgpr_count", "vgpr_spill_count")
        ]
        return counts[0], 4 * counts[1]
    with NamedTemporaryFile(suffix=".cubin") as file:
        file.write(asm["cubin"])
        file.flush()
        tool = [knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        done = subprocess.run(tool, capture_output=True, text=True, check=True)
    found = [
        _number(rf"{name}:(\d+)", done.stdout) for name in ("REG", "STACK", "LOCAL")
    ]
    return found[0], found[1] + found[2]


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"no {pattern} in what the tools tell")
    return int(found[1])


if __name__ == "__main__":
    main()
