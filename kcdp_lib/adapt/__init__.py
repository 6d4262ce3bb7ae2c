"""Adaptation (chapter 05): the model, its training, what it is compared with, and one whole run.

`model` is KCDP itself, `training` the joint loss, `baselines` what KCDP is compared with, `record`
what a run leaves behind, `folder` where, `run` the call that does all of it.
"""

import importlib
import sys
import types

_HOMES = {"KCDP": "model", "Prediction": "model", "adapt": "run", "load_all": "run"}
__all__ = ["KCDP", "Prediction", "adapt", "load_all"]


class _CallablePackage(types.ModuleType):
    """Python binds the name `kcdp_lib.adapt` to this package; users call it like the function."""

    def __call__(self, *args, **parameters) -> dict:
        return self.adapt(*args, **parameters)

    def __getattr__(self, name: str):
        """Import on first use: printing a finished run should not wait for torch."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


sys.modules[__name__].__class__ = _CallablePackage
