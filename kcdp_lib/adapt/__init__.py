"""Adaptation (chapter 05): the model, its training, what it is compared with, and one whole run.

`model` is KCDP itself, `training` the joint loss, `baselines` what KCDP is compared with, `record`
what a run leaves behind, `run` the call that does all of it.
"""

import sys
import types

from kcdp_lib.adapt.model import KCDP, Prediction
from kcdp_lib.adapt.run import adapt, load_all

__all__ = ["KCDP", "Prediction", "adapt", "load_all"]


class _CallablePackage(types.ModuleType):
    """Python binds the name `kcdp_lib.adapt` to this package; users call it like the function."""

    def __call__(self, *args, **parameters) -> dict:
        return adapt(*args, **parameters)


sys.modules[__name__].__class__ = _CallablePackage
