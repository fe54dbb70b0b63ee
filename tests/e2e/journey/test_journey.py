"""From a first password to a verified answer, against real processes and real weights.

The same on servers given by URL, with two API processes and two workers:
`make acceptance ARGS="--only journey"`.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.e2e.journey.places import embedded
from tests.e2e.journey.story import Journey

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def test_a_stranger_gets_from_the_first_password_to_a_verified_answer() -> None:
    with TemporaryDirectory(prefix="maas-journey-") as name:
        folder = Path(name)
        # The private servers run as another user where the tests run as root.
        folder.chmod(0o711)
        with embedded(folder) as place:
            journey = Journey(place)
            journey.walk()

    assert len(journey.seconds) == 13
