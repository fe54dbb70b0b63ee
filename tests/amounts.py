"""How much of a long proof a run takes: CI a part of it, `make acceptance` all of it."""

import os
from typing import Final

VARIABLE: Final = "FULL_AMOUNTS"
IS_FULL: Final = VARIABLE in os.environ
