"""What people call a version: `acme/bot:7b`, `acme/bot:7b:1.0.0` or `acme/bot:7b@production`."""

from dataclasses import dataclass

from maas.client.errors import ClientError


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One way to read a reference; without version and alias, the newest that is ready."""

    model: str
    version: str | None = None
    alias: str | None = None


def read_reference(text: str) -> list[Reading]:
    """List the ways to read a reference, as a model's name may end in a tag: `acme/bot:7b`.

    Raises:
        ClientError: there is none.
    """
    name, at, alias = text.partition("@")
    if at:
        if not name or not alias:
            message = f"{text} names no version: write NAME@ALIAS, as in acme/bot:7b@production."
            raise ClientError(message)
        return [Reading(model=name, alias=alias)]
    head, colon, tail = text.rpartition(":")
    readings = []
    # A name has one colon at most.
    if text and text.count(":") <= 1 and text.strip(":") == text:
        readings.append(Reading(model=text))
    if colon and head and tail:
        readings.append(Reading(model=head, version=tail))
    if not readings:
        message = f"{text or 'Nothing'} names no model: write NAME, NAME:VERSION or NAME@ALIAS."
        raise ClientError(message)
    return readings
