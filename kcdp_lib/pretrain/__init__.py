"""Pre-training of the miniature foundation models (chapter "The miniature models").

`python -m kcdp_lib.pretrain`.
"""
