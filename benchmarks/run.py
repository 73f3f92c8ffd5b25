"""Run the benchmarks: `make bench`.

The machine should have nothing else to do, although the timings are made side by side.
"""

from __future__ import annotations

import argparse

import compile_time
import cpu_fused
import fused_linear
import gemm
import harness
import models
import overhead
import torch
import tuning

BENCHMARKS = {
    "cpu_fused": cpu_fused.run,
    "gemm": gemm.run,
    "fused_linear": fused_linear.run,
    "models": models.run,
    "compile_time": compile_time.run,
    "tuning": tuning.run,
    "overhead": overhead.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the benchmarks.")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--rounds", type=int, default=30, help="samples of each timing")
    parser.add_argument("--threads", type=int, help="as torch.set_num_threads")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    for key, value in harness.environment().items():
        print(f"{key}: {value}")
    for name in options.names or BENCHMARKS:
        print(f"\n{name}: {BENCHMARKS[name].__doc__}")
        BENCHMARKS[name](options.rounds)


if __name__ == "__main__":
    main()
