"""`make fuzz`: broken texts and random programs, until the count or the time is up.

    make fuzz ARGS="--count 20000 --seed 1000000 --minutes 60 --folder findings"

Each finding is made small and written to the folder: `SEED.py` shows it by itself,
`SEED.fir` with `SEED.npz` is the graph that went wrong, for `fusec run`.
"""

from __future__ import annotations

import argparse
import base64
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz.generate import program
from fuzz.mutants import corpus, mutant
from fuzz.pool import Worker
from fuzz.programs import Program, snippet
from fuzz.shrink import shrink

HARMLESS = {"ok", "skip", "refused", "slow"}
"""Answers that are no findings."""
EVERY = 1000
"""Cases between two lines that tell how far the fuzzer is."""
ALIKE = 3
"""Findings of one sort that are made small: causes that differ may look alike."""
ATTEMPTS = 150
"""Runs that making one finding small may take."""


@dataclass
class Session:
    """A run of a fuzzer: how far it came and what it found."""

    folder: Path
    until: float
    tally: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    """What was found before, by its sort: only the first few are made small."""
    began: float = field(default_factory=time.monotonic)

    def over(self) -> bool:
        return time.monotonic() > self.until

    def count(self, kind: str) -> None:
        """Another case; now and then, how far this is."""
        self.tally[kind] += 1
        if sum(self.tally.values()) % EVERY == 0:
            print(f"  {self.report()}", flush=True)

    def sort(self, answer: dict[str, Any]) -> str:
        """What findings of one cause have in common, as far as one can tell."""
        last = answer["message"].strip().splitlines()[-1:] or [""]
        return f"{answer['kind']}: {re.sub(r'-?[0-9][0-9a-fx.e-]*', '…', last[0])[:90]}"

    def is_new(self, sort: str) -> bool:
        """Whether few of a sort were found before this one."""
        self.seen[sort] += 1
        return self.seen[sort] <= ALIKE

    def report(self) -> str:
        seconds = time.monotonic() - self.began
        count = sum(self.tally.values())
        rate = count / seconds if seconds else 0.0
        kinds = ", ".join(f"{n} {kind}" for kind, n in self.tally.most_common())
        return f"{count} cases in {seconds:.0f} s ({rate:.1f} a second): {kinds}"

    def write(self, name: str, parts: dict[str, str | bytes]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for suffix, content in parts.items():
            data = content if isinstance(content, bytes) else content.encode()
            (self.folder / f"{name}{suffix}").write_bytes(data)
        print(f"  see {self.folder / name}.*", flush=True)


def fuzz_programs(session: Session, seeds: range) -> None:
    """Judge the programs of these seeds."""
    with Worker() as worker:
        for seed in seeds:
            if session.over():
                return
            answer = worker.ask({"seed": seed})
            if answer["kind"] == "crash" and _crashes_torch(worker, seed):
                answer = {"kind": "skip"}
            session.count(answer["kind"])
            if answer["kind"] not in HARMLESS:
                sort = session.sort(answer)
                print(f"seed {seed}: {sort}", flush=True)
                if session.is_new(sort):
                    session.write(str(seed), finding(worker, program(seed), answer))


def _crashes_torch(worker: Worker, seed: int) -> bool:
    """Whether the process dies of torch's own run of a program's graphs."""
    told = worker.ask({"seed": seed, "torch_alone": True})
    return told["kind"] != "ok"


def finding(worker: Worker, case: Program, answer: dict[str, Any]) -> dict[str, Any]:
    """The files that show a failure, made small."""
    last = answer

    def fails(candidate: Program) -> bool:
        nonlocal last
        told = worker.ask({"program": candidate.to_json()})
        if told["kind"] != answer["kind"]:
            return False
        last = told
        return True

    small = shrink(case, fails, attempts=ATTEMPTS)
    files: dict[str, Any] = {
        ".py": snippet(small, f"{last['kind']}\n{last['message']}")
    }
    if last.get("graph"):
        files[".fir"] = last["graph"]
    if last.get("arguments"):
        files[".npz"] = base64.b64decode(last["arguments"])
    return files


def main(argv: list[str] | None = None) -> int:
    """Run the fuzzers; 1 if they found anything."""
    given = _arguments(argv)
    until = time.monotonic() + 60 * given.minutes
    status = 0
    for name, run, times in FUZZERS:
        if given.names and name not in given.names:
            continue
        session = Session(Path(given.folder) / name, until)
        run(session, range(given.seed, given.seed + given.count * times))
        print(f"{name}: {session.report()}")
        status |= bool(set(session.tally) - HARMLESS)
    return status


def fuzz_texts(session: Session, seeds: range) -> None:
    """Read the mutants of these seeds."""
    with Worker("fuzz.reading") as worker:
        for seed in seeds:
            if session.over():
                return
            answer = worker.ask({"seed": seed})
            session.count(answer["kind"])
            sort = session.sort(answer)
            if answer["kind"] in HARMLESS or not session.is_new(sort):
                continue
            print(f"text {seed}: {sort}", flush=True)
            text = mutant(seed, corpus())
            if answer["kind"] != "hang":  # each try would take as long
                text = smaller_text(worker, text, answer["kind"])
            session.write(str(seed), {".fir": text, ".txt": answer["message"]})


def smaller_text(worker: Worker, text: str, kind: str) -> str:
    """The text without the spans that its failure does not need."""
    size = len(text) // 2
    while size:
        for start in range(0, len(text), size):
            shorter = text[:start] + text[start + size :]
            if worker.ask({"text": shorter})["kind"] == kind:
                text = shorter
        size //= 2
    return text


FUZZERS: list[tuple[str, Callable[[Session, range], None], int]] = [
    ("texts", fuzz_texts, 5),
    ("programs", fuzz_programs, 1),
]
"""What is fuzzed, and how many cases for each of `--count`."""


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    names = [name for name, *_ in FUZZERS]
    parser.add_argument("names", nargs="*", help=f"of {', '.join(names)}")
    parser.add_argument("--count", type=int, default=20_000, help="how many programs")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--minutes", type=float, default=120, help="how long at most")
    parser.add_argument("--folder", default="findings", help="where findings go")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
