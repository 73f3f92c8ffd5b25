"""The door to LLVM, for whoever compiles or links with it.

llvmlite lets one thread at a time into LLVM. Holding its lock over a fork keeps the
child from inheriting one that nobody releases.

The first import of llvmlite costs over 100 ms: import this file lazily.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import llvmlite  # pyright: ignore[reportMissingTypeStubs]
import llvmlite.binding as _binding  # pyright: ignore[reportMissingTypeStubs]

llvm: Any = _binding
"""llvmlite's binding, which carries no annotations."""

VERSION = f"llvmlite {llvmlite.__version__}, LLVM {llvm.llvm_version_info}"
"""What makes object code."""

_lock: Any = llvm.ffi.lib._lock
os.register_at_fork(
    before=lambda: _lock.__enter__(),
    after_in_parent=lambda: _lock.__exit__(None, None, None),
    after_in_child=lambda: _lock.__exit__(None, None, None),
)


@lru_cache(maxsize=16)
def machine(cpu: str = "", features: str = "", opt: int = 1) -> Any:
    """What generates code for a CPU of this machine's family, as LLVM names it.

    The code is position-independent, of the small model; `opt` is the code generation
    level, 0 to 3.
    """
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=cpu, features=features, opt=opt, reloc="pic", codemodel="small"
    )
