"""Tile IR and host IR → code for a target.

A backend is one file that turns lowered IR into text (LLVM assembly, Triton or CUDA
C++ source) and, where the project owns the next step, one that turns text into object
code. Nothing here runs a kernel: object code goes to a launcher in `fusec.runtime`.
"""
