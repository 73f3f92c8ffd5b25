"""Compiles a kernel, runs it, compares the results: `python -m fusec.cli.check`.

Prints one line of JSON: the number of threads, and the problem, which is "" for none.
Arguments are options, NAME=VALUE.
"""

from __future__ import annotations

import json
import sys

from fusec.compiler import compile_function
from fusec.ir.arguments import random_arguments
from fusec.ir.builder import Builder
from fusec.ir.core import Function, Level
from fusec.ir.dtypes import f32
from fusec.ir.interpreter import interpret
from fusec.ir.monoids import monoid
from fusec.ir.ops.elementwise import Div, Exp
from fusec.ir.ops.reduction import ReduceDims
from fusec.ir.ops.view import Broadcast, Reshape
from fusec.ir.types import Tensor
from fusec.options import Options
from fusec.runtime.arrays import call, threads

_SHAPE = (64, 1000)
_CLOSE = 1e-5
"""How far a result may be from the interpreter's: they lie between 0 and 1."""


def check(options: Options) -> str:
    """What is wrong with a kernel that was compiled and run; "" if nothing is."""
    function = _softmax()
    arguments = random_arguments(function)
    (wanted,) = interpret(function, arguments)
    program = compile_function(function, options).program
    (given,) = call(program, function, arguments)
    error = float(abs(given - wanted).max())
    return "" if error <= _CLOSE else f"results are off by {error:.2g}"


def _softmax() -> Function:
    b = Builder(Level.GRAPH)
    x = b.param(Tensor(f32, _SHAPE), "x")
    e = b(Exp, x)
    total = b(ReduceDims, e, dims=(1,), monoid=monoid("sum", f32))
    column = b(Reshape, total, shape=(_SHAPE[0], 1))
    return b.function("check", (b(Div, e, b(Broadcast, column, shape=_SHAPE)),))


def main() -> None:
    """Check with the options that the command line gives."""
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    problem = check(Options.from_mapping(given))
    print(json.dumps({"threads": threads(), "problem": problem}))


if __name__ == "__main__":
    main()
