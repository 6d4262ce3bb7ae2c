"""The miniature stack with random weights, written once a session: the tests of the parts need its layouts, not its wisdom."""
import atexit
import shutil
import tempfile
from dataclasses import replace
from functools import lru_cache

from kcdp_lib.config import PRESETS, Preset
from kcdp_lib.pretrain.blank import write_blank


@lru_cache
def blank_preset() -> Preset:
    """`tiny` with its folders exchanged for blank ones."""
    folder = tempfile.mkdtemp(prefix="kcdp-blank-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_blank(folder)
    return replace(PRESETS["tiny"], diffusion=f"{folder}/diffusion", vlm=f"local-dir:{folder}/vlm")
