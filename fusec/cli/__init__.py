"""The command line: `fusec dump model.py:mlp --stage fused`.

`arguments` is the whole of it on one page. Each command is a module with a function
`run(arguments) -> Output`, which `loading` finds.

Exit status: 0; 2 for a mistake of the user's, told in one message; 1 for a bug.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from argparse import Namespace
from collections.abc import Sequence

from fusec.cli.arguments import parser
from fusec.cli.loading import load
from fusec.cli.output import Output
from fusec.errors import FusecError, InternalError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = parser().parse_args(argv)
    try:
        output: Output = load(arguments.command).run(arguments)
        _print(output, arguments)
        return output.status
    except InternalError as error:
        return _fail(error, str(error), arguments, 1)
    except FusecError as error:
        return _fail(error, str(error), arguments, 2)
    except BrokenPipeError:
        # The reader has left, as `head` does. Flushing at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        bug = InternalError(f"{type(error).__name__}: {error}")
        return _fail(error, str(bug), arguments, 1)


def _print(output: Output, arguments: Namespace) -> None:
    text = output.text
    if arguments.json:
        text = json.dumps(output.data, indent=2, ensure_ascii=False)
    if text:
        print(text.removesuffix("\n"), flush=True)


def _fail(error: Exception, message: str, arguments: Namespace, status: int) -> int:
    if arguments.traceback:
        traceback.print_exception(error)
    print(f"fusec {arguments.command}: {message}", file=sys.stderr)
    return status
