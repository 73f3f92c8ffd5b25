"""Judges programs in a process of its own, which may crash or hang: a line each.

{"seed": 7} or {"program": …}   →   {"kind": "ok", "message": "", …}
{"seed": 7, "torch_alone": true}   →   {"kind": "skip", …} where torch itself fails
"""

from __future__ import annotations

import base64
import faulthandler
import io
import json
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from fuzz.generate import program
from fuzz.judge import Verdict, judge, torch_fails
from fuzz.pool import READY
from fuzz.programs import Program


def main() -> None:
    faulthandler.enable()
    warnings.simplefilter("ignore")
    answers = sys.stdout
    sys.stdout = sys.stderr
    torch.set_num_threads(2)
    print(READY, file=answers, flush=True)
    for line in sys.stdin:
        verdict = answer(json.loads(line))
        print(json.dumps(_told(verdict)), file=answers, flush=True)


def _told(verdict: Verdict) -> dict[str, str]:
    told = {"kind": verdict.kind, "message": verdict.message, "graph": verdict.graph}
    if verdict.arguments:
        told["arguments"] = base64.b64encode(packed(verdict.arguments)).decode()
    return told


def packed(arguments: Sequence[Any]) -> bytes:
    """Arguments of a graph as a file that `fusec run --inputs` takes."""
    file = io.BytesIO()
    np.savez(file, *arguments, allow_pickle=False)
    return file.getvalue()


def answer(question: dict[str, Any]) -> Verdict:
    if "seed" in question:
        asked = program(question["seed"])
    else:
        asked = Program.from_json(question["program"])
    if question.get("torch_alone"):
        return Verdict("skip" if torch_fails(asked) else "ok")
    return judge(asked)


if __name__ == "__main__":
    main()
