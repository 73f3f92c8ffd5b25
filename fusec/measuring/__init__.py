"""Microbenchmarks: what a machine does in a second, figure by figure.

kernels   LLVM text of loops that do one thing
cpu       those, timed on a processor
gpu       what torch does on a GPU, timed by its clock
library   products of matrices by torch's library, on either
timing    side by side, in rounds
"""
