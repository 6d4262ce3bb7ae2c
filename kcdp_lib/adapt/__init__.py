"""Adaptation (chapter 05): the model, its training, the baselines and one whole run.

`model` is KCDP itself, `training` the joint loss, `baselines` and `peers` what KCDP is compared
with, `record` what a run writes, `folder` its folder, `run` the function that does all of it.
"""

import importlib
import sys
import types

_HOMES = {"KCDP": "model", "Prediction": "model", "adapt": "run", "load_all": "run"}
__all__ = ["KCDP", "Prediction", "adapt", "load_all"]


class _CallablePackage(types.ModuleType):
    """Package that is called like a function, because Python binds `kcdp_lib.adapt` to it."""

    def __call__(self, *args, **parameters) -> dict:
        return self.adapt(*args, **parameters)

    def __getattr__(self, name: str):
        """Import a name on first use, so that printing a finished run does not wait for torch."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


sys.modules[__name__].__class__ = _CallablePackage
