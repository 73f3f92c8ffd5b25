"""A process that compiles LLVM assembly: modules as lines of JSON in, objects out.

{"text": …, "cpu": "x86-64-v3", "features": "+avx2,…", "opt": 1}
    →   {"object": base64}   or   {"error": …}

llvmlite lets one thread of a process at a time into LLVM; processes are not in each
other's way, and LLVM may abort one of them.
"""

from __future__ import annotations

import base64
import json
import sys

from fusec.codegen.llvm_object import compile_object
from fusec.errors import InternalError


def main() -> None:
    """Answer each line before the next one is read."""
    for line in sys.stdin:
        try:
            code = compile_object(**json.loads(line))
            answer = {"object": base64.b64encode(code).decode()}
        except InternalError as error:
            answer = {"error": error.what}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
