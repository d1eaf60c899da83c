"""petlbench: which parameter-efficient transfer learning method to use on vision transformers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# In a source checkout the methods lie beside the package (they ship inside it as
# `petlbench.methods`); appending the repository's root makes the same import work there.
_here = os.path.dirname(os.path.abspath(__file__))
if not os.path.isdir(os.path.join(_here, "methods")) and os.path.isfile(
    os.path.join(_here, os.pardir, "methods", "__init__.py")
):
    __path__.append(os.path.dirname(_here))

if TYPE_CHECKING:
    from petlbench.adapted import load_adapted as load_adapted
    from petlbench.api import load_results as load_results
    from petlbench.api import run as run
    from petlbench.errors import RunError as RunError
    from petlbench.errors import UsageError as UsageError
    from petlbench.method import Method as Method
    from petlbench.settings import setting as setting

_PUBLIC = {
    "run": "petlbench.api",
    "load_adapted": "petlbench.adapted",
    "load_results": "petlbench.api",
    "Method": "petlbench.method",
    "setting": "petlbench.settings",
    "UsageError": "petlbench.errors",
    "RunError": "petlbench.errors",
}
__all__ = [
    "Method",
    "RunError",
    "UsageError",
    "__version__",
    "load_adapted",
    "load_results",
    "run",
    "setting",
]


def __getattr__(name: str) -> Any:
    """Public names are imported on first use, so that `import petlbench` does not load torch."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'petlbench' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_PUBLIC[name]), name)
