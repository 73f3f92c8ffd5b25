"""A worker that does what it is asked, its own end included."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time


def main() -> None:
    for line in sys.stdin:
        question = json.loads(line)
        match question["do"]:
            case "answer":
                print(json.dumps({"answer": question["value"]}), flush=True)
            case "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "exit":
                print("out of luck", file=sys.stderr, flush=True)
                os._exit(3)
            case "process":
                print(json.dumps({"answer": os.getpid()}), flush=True)
            case "twice":
                print(json.dumps({"answer": 1}), flush=True)
                print(json.dumps({"answer": 2}), flush=True)
            case "sleep":
                time.sleep(1000)
            case "deaf":
                print(json.dumps({}), flush=True)
                time.sleep(1000)
            case "hang":
                child = subprocess.Popen(["sleep", "1000"])
                with open(question["pid"], "w") as file:
                    file.write(str(child.pid))
                time.sleep(1000)


if __name__ == "__main__":
    main()
