"""The settings of sealing: which cipher, and where its keys come from."""

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator

from maas.shared.infrastructure.sealing_ciphers import Algorithm
from maas.shared.infrastructure.setting_sections import PREFIX, Section


class SealingSettings(Section):
    algorithm: Algorithm = "aes-256-gcm"
    keys_file: Path | None = None
    keys: SecretStr | None = None
    kms: str | None = Field(None, pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")

    @model_validator(mode="after")
    def _have_one_place(self) -> Self:
        if self.keys is not None and self.keys_file is not None:
            variable = f"{PREFIX}SEALING__KEYS"
            message = f"set {variable} or {variable}_FILE, not both"
            raise ValueError(message)
        return self
