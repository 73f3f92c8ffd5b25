"""The reference interpreter: what a function of any level means, in numpy.

It is the oracle that compiled code and every pass are compared with, so it is plain
where it could be clever, and it checks what hardware would not:

    >>> import numpy as np
    >>> from fusec.ir.builder import Builder
    >>> from fusec.ir.core import Level
    >>> from fusec.ir.dtypes import f32
    >>> from fusec.ir.interpreter import interpret
    >>> from fusec.ir.ops.elementwise import Mul
    >>> from fusec.ir.types import Tensor
    >>> b = Builder(Level.GRAPH)
    >>> x = b.param(Tensor(f32, (3,)), "x")
    >>> f = b.function("square", (b(Mul, x, x),))
    >>> interpret(f, [np.array([1, 2, 3], np.float32)])
    (array([1., 4., 9.], dtype=float32),)

Arrays hold elements in the *carrier* of their dtype (bf16 in float32) and are
quantized after each op. What a value is depends on the level:

    graph   an array of the tensor's shape
    loop    points: an array with a dimension per axis, in the order of the type
    tile    an array of the tile's shape; a buffer is flat memory, one item an element
    host    a tensor in memory, which may be freed
    all     a scalar is an array without dimensions, a token is None

Memory that nobody wrote, and elements of a tile beyond its limits, hold *poison*: NaN,
or a number as odd. Every access is checked against its bounds.

    frame      one function in execution: its values and sizes; errors
    elements   arithmetic on arrays; monoids
    memory     addresses and bounds
    graph, loop, tile, host    a table of rules for each level, from op to meaning
    run        the way in
    reach      whether launches keep within their memory, without computing
"""

from fusec.ir.interpreter.frame import InterpretError, bind_symbols
from fusec.ir.interpreter.reach import check_reach
from fusec.ir.interpreter.run import interpret, run_kernel

__all__ = [
    "InterpretError",
    "bind_symbols",
    "check_reach",
    "interpret",
    "run_kernel",
]
