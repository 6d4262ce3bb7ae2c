"""Pre-training of the miniature foundation models (chapter "The miniature models").

`python -m kcdp_lib.pretrain`.
"""

IMAGE_SIZE = 128  # pixels a side, of all that the miniatures are trained on and see
