"""Pre-training of the miniature foundation models (chapter "The miniature models").

`python -m kcdp_lib.pretrain`.
"""

IMAGE_SIZE = 128  # pixels per side of every picture that the miniatures see
