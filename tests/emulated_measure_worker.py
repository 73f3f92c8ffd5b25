"""The process that takes the time of kernels (`fusec.runtime.measure_worker`), where
the GPU is emulated: its driver is that of `emulated`.
"""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"  # Triton asks when it is imported

from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import emulated_device
from emulated import EmulatedDriver, kinds

from fusec.runtime import gpus, measure_worker


def main() -> None:
    if emulated_device.is_wanted():
        emulated_device.registered()
    with TemporaryDirectory() as folder:
        driver = EmulatedDriver(Path(folder))
        with patch.dict(gpus.KINDS, kinds(driver)):
            measure_worker.main()


if __name__ == "__main__":
    main()
