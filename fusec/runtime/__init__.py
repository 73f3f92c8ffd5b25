"""What exists while a compiled program runs: launchers, memory, the cache.

plan       the order in which a host function runs, and where its tensors lie
write      a plan as data: a recipe
recipe     what a process does to run a host function, without the IR
elf        object code of kernels → an image; jitlink where LLVM has to do it
image      machine code as data, and how it is loaded
artifact   a recipe and an image: all of a program, for whoever keeps it
launcher_  what runs one: on arrays, on tensors, beside its oracle; the steps, the grids
extern     calls to torch; shims, those that native code makes
memory     the arena
cache      files that survive
"""
