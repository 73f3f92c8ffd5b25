"""From torch graphs to the graph level of the IR.

decompositions   which ATen ops AOTAutograd takes apart before we see them
shapes           torch's symbolic sizes as dims, with what is known about them
intake           an FX graph of ATen ops → a graph-level function
aten             what each ATen op means, one file per family
externs          the rest: calls to ATen inside the same function
capture          AOTAutograd around all of it, for `torch.compile`
"""
