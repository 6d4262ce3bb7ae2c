"""Unsupervised cross-domain visual emotion recognition by KCDP.

KCDP is knowledge-aligned counterfactual-enhancement diffusion perception, chapter by chapter.
"""

import importlib
import warnings

from kcdp_lib.machine import share

__version__ = "0.2.0"

share()  # before torch is imported, where possible

# tqdm's warning about ipywidgets would be saved in every notebook.
warnings.filterwarnings("ignore", message="IProgress not found")

_HOMES = {
    "adapt": "kcdp_lib.adapt",
    "KCDP": "kcdp_lib.adapt",
    "Config": "kcdp_lib.config",
    "EMOTIONS": "kcdp_lib.datasets",
    "KCDPError": "kcdp_lib.errors",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str):
    """Import a name on first use (PEP 562).

    Drawing pictures should not wait for torch, diffusers and open_clip.
    """
    if name not in _HOMES:
        raise AttributeError(f"module 'kcdp_lib' has no attribute {name!r}")
    home = importlib.import_module(_HOMES[name])
    return (
        home if name == "adapt" else getattr(home, name)
    )  # the package kcdp_lib.adapt is callable
