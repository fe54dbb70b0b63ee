"""Keys that are the same in each run."""

import random

from maas.user.domain.key_text import NewKey, make_key


def seeded_key(seed: int = 1, *, mark: str = "test", public_id: str | None = None) -> NewKey:
    chance = random.Random(seed)  # noqa: S311  a test's key keeps nobody out
    return make_key(mark, chance.choice, public_id=public_id)
