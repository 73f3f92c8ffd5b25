"""Find the files of pretrained models that come as pip packages.

The packages' own code is never imported: their dependencies are not installed.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path


def find_file(package: str, suffix: str) -> Path:
    """The first file of an installed `package` whose path ends in `suffix`.

    Raises FileNotFoundError where the package, or such a file in it, is missing.
    """
    try:
        files = distribution(package).files or []
    except PackageNotFoundError:
        raise FileNotFoundError(
            f"'{package}' is not installed: pip install --no-deps {package}"
        ) from None
    for file in files:
        if file.as_posix().endswith(suffix):
            return Path(str(file.locate()))
    raise FileNotFoundError(f"'{package}' has no file *{suffix}")
