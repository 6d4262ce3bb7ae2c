"""Record the hash of the reference pictures as the world's key: `python -m kcdp_lib.world`.

Run it after a change that is meant to change pictures, and first raise `VERSION` in `store`.
"""

from kcdp_lib.command import command
from kcdp_lib.world.store import record_reference, world_key

if __name__ == "__main__":
    with command():
        record_reference()
        print(world_key())
