"""What a person calls a loop or run: its name, which is also that of a folder that is removed in the end; its seed."""

import re

from env_sim.rollout_plans import derive_seed
from train.errors import TrainingFailed

MOST_SEED = 2**32 - 1
"""NumPy takes no greater one, and none below 0."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,47}")


def check_name(what: str, name: str) -> str:
    """The name itself. Raises TrainingFailed for one that could lead out of the folder that it is given."""
    if not _NAME.fullmatch(name):
        raise TrainingFailed(
            f"{name!r} is no name for {what}: it names a folder, so it has 1 to 48 letters (A to Z), digits, - and _, "
            "and begins with a letter or a digit"
        )
    return name


def training_seed(seed: int, name: str) -> int:
    """The seed of the run `name`: follows from `seed`, and is none that `MOST_SEED` forbids."""
    return derive_seed(seed, name) % (MOST_SEED + 1)
