"""Write the miniature stack with random weights: `python -m kcdp_lib.pretrain.blank DIR`.

It has the layouts of the real stack, for tests and development.
"""

import sys
from pathlib import Path

import torch

from kcdp_lib.pretrain import stack


def write_blank(folder: str | Path, seed: int = 0) -> Path:
    """Write DIR/diffusion and DIR/vlm with random weights (a few seconds); return the folder."""
    folder = Path(folder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        stack.lay_out(folder)
        coca = stack.new_coca(folder)
        stack.save_coca(coca, folder)
        stack.save_diffusion(stack.new_vae(), "vae", folder)
        text_encoder = stack.new_text_encoder(coca.text.vocab_size)
        stack.save_diffusion(text_encoder, "text_encoder", folder)
        stack.save_diffusion(stack.new_unet(), "unet", folder)
    return folder


if __name__ == "__main__":
    print(write_blank(sys.argv[1]))
