"""A worker that answers, dies or hangs, as it is told: for tests of `pool`."""

from __future__ import annotations

import json
import os
import sys
import time

from fuzz.pool import READY


def main() -> None:
    print(READY, flush=True)
    for line in sys.stdin:
        seed = json.loads(line)["seed"]
        if seed == 1:
            os.abort()
        if seed == 2:
            time.sleep(60)
        print(json.dumps({"kind": "ok", "message": ""}), flush=True)


if __name__ == "__main__":
    main()
