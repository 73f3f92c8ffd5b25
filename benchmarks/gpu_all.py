"""All that a GPU which is here for minutes can tell: its tests, then the benchmarks.

    python benchmarks/gpu_all.py --out $OUT        # within nine minutes

Each part has a share of the time and keeps what it has whenever that is over.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gpu_descriptors
import gpu_fused
import gpu_gemm
import gpu_harness
import gpu_models
from gpu_harness import Deadline

ROOT = Path(__file__).parents[1]
TESTS = [f"tests/end_to_end/test_{name}.py" for name in ("cuda", "devices")]
PARTS: dict[str, tuple[Callable[..., Any], float]] = {
    "fused": (gpu_fused.run, 0.28),
    "gemm": (gpu_gemm.run, 0.18),
    "descriptors": (gpu_descriptors.run, 0.1),
    "models": (gpu_models.run, 0.22),
}
"""What runs each part, and its share of the time; tests have the rest."""


def tested(seconds: float, out: Path) -> None:
    """Run the tests of GPUs; what they say is kept and printed."""
    command = [sys.executable, "-m", "pytest", "-v", "--tb=short", *TESTS]
    command.append("--show-capture=no")
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=seconds
        )
        text = done.stdout + done.stderr
    except subprocess.TimeoutExpired as late:
        text = f"{(late.stdout or b'').decode()}\nthe tests took more than {seconds} s"
    (out / "gpu_tests.txt").write_text(text)
    print(text[-3000:], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=520)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(gpu_harness.harness.RESULTS))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    print(gpu_harness.environment(given.device), flush=True)
    if given.device != "cpu":
        tested(given.seconds * 0.2, given.out)
    for name, (run, share) in PARTS.items():
        print(f"\n{name}", flush=True)
        run(
            given.device,
            given.rounds,
            given.out,
            quick=given.quick,
            deadline=Deadline(given.seconds * share),
        )


if __name__ == "__main__":
    main()
