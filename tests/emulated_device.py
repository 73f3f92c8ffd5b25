"""A device of torch's whose memory is the CPU's, for programs on several devices.

    registered()
    x = torch.randn(3, device="emulated:1")

It is made of what torch keeps for devices of others (`emulated_device.cpp`), which
takes a C++ compiler. What runs on it runs on the CPU.
"""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch.utils.cpp_extension import load

NAME = "emulated"
COUNT = 2


def is_possible() -> bool:
    """Whether this machine can compile it."""
    return all(map(shutil.which, ("g++", "ninja")))


def is_wanted() -> bool:
    """Whether tests take it in place of a GPU, and can."""
    return is_possible() and not torch.cuda.is_available()


@cache
def registered() -> None:
    """Make the device known to torch, for the rest of the process."""
    source = Path(__file__).with_suffix(".cpp")
    load("fusec_emulated_device", [str(source)], is_python_module=False)
    torch.utils.rename_privateuse1_backend(NAME)
    torch._register_device_module(NAME, _module())
    torch.utils.generate_methods_for_privateuse1_backend()


def _module() -> ModuleType:
    """What torch asks of `torch.emulated`."""
    module: Any = ModuleType(f"torch.{NAME}")
    module.is_available = lambda: True
    module.is_initialized = lambda: True
    module.is_current_stream_capturing = lambda: False
    module._is_in_bad_fork = lambda: False
    module.device_count = lambda: COUNT
    module.current_device = lambda: torch._C._accelerator_getDeviceIndex()
    module.manual_seed_all = lambda seed: None
    module.get_rng_state = lambda device: torch.get_rng_state()
    module.set_rng_state = lambda state, device: torch.set_rng_state(state)
    module.get_amp_supported_dtype = lambda: [torch.bfloat16, torch.float16]
    module.synchronize = lambda device=None: None
    return module
