"""Where a version comes from: uploaded as it is, made from another version, or taken from a URL."""

from dataclasses import dataclass

from maas.model.domain.text import SourceUrl, VersionName
from maas.model.public import ModelId, SourceKind
from maas.shared.domain.errors import InvalidInputError


class InvalidSourceError(InvalidInputError):
    code = "invalid-source"
    title = "Not a source a version can have"

    def __init__(self) -> None:
        super().__init__(
            "A source is `uploaded` and nothing else, `fine-tuned-from` with `model_id` and "
            "`version`, or `imported-from` with `url`."
        )


class SourceNotFoundError(InvalidInputError):
    code = "source-not-found"
    title = "The version it is fine-tuned from is not there"

    def __init__(self) -> None:
        super().__init__(
            "No version of this name of this model is there for you to read.",
            loc=("body", "source"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A version's origin; what it names is a record, and may be deleted later.

    Raises:
        InvalidSourceError: fields are missing, or not of this kind.
    """

    kind: SourceKind
    model_id: ModelId | None = None
    version: VersionName | None = None
    url: SourceUrl | None = None

    def __post_init__(self) -> None:
        given = (self.model_id is not None, self.version is not None, self.url is not None)
        wanted = {
            "uploaded": (False, False, False),
            "fine-tuned-from": (True, True, False),
            "imported-from": (False, False, True),
        }
        if given != wanted[self.kind]:
            raise InvalidSourceError

    @property
    def text(self) -> str:
        """The whole of it on one line."""
        match self.kind:
            case "uploaded":
                return self.kind
            case "fine-tuned-from":
                return f"{self.kind} {self.model_id} {self.version}"
            case "imported-from":
                return f"{self.kind} {self.url}"


UPLOADED = Source(kind="uploaded")
