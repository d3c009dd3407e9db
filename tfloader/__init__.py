"""tfloader: public pretrained Transformers as live Keras 3 models on TensorFlow, exactly or not at all.

Importing this package imports neither TensorFlow nor Keras; the first name that needs them does. The public names stand
in `__init__.pyi`, one line each, where editors and type checkers look for them too.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import sys
from typing import Any

__version__ = "0.1.0"


def _exports() -> dict[str, str]:
    """Public name -> the module that defines it, by the import statements of the stub."""
    stub = ast.parse(pkgutil.get_data(__name__, "__init__.pyi") or b"")
    imports = (statement for statement in stub.body if isinstance(statement, ast.ImportFrom))
    return {name.name: str(statement.module) for statement in imports for name in statement.names}


_EXPORTS = _exports()
__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    # With these two, Python's own message asks "Did you mean: 'load_config'?".
    raise AttributeError(f"module 'tfloader' has no attribute {name!r}", name=name, obj=sys.modules[__name__])


def __dir__() -> list[str]:
    return sorted(__all__)
