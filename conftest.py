"""What pytest sets for notebooks and tests alike, before anything imports torch."""

import os

os.environ.setdefault("KCDP_QUIET", "1")  # no progress bars in outputs that are compared
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Two processes with one thread each are faster than one process with two.
os.environ.setdefault("OMP_NUM_THREADS", "1")
