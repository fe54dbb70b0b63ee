"""Versions on the wire: `ETag` on reads, `If-Match` on writes."""

import re
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header

from maas.shared.domain.errors import (
    InvalidInputError,
    PreconditionFailedError,
    PreconditionRequiredError,
    may_refuse,
)

MAX_TAGS = 32

_ANY = "*"
_CHANGED = "It changed since you read it: read it again, then retry."
_TAG = re.compile(r'\s*(?P<weak>W/)?"(?P<opaque>[\x21\x23-\x7e]*)"\s*(?:,|$)')


class InvalidETagError(InvalidInputError):
    code = "invalid-etag"
    title = "The entity tags cannot be read"


def etag_of(version: int) -> str:
    return f'"{version}"'


@dataclass(frozen=True, slots=True)
class Match:
    """What a request expects of the version it is about to change; `None` expects nothing."""

    tags: frozenset[str] | None
    is_any: bool = False

    def check(self, version: int) -> None:
        """Compare with the version at hand, inside the transaction that changes it.

        Pass this method to the use case as a `Callable[[int], None]`.

        Raises:
            PreconditionFailedError: it is not one the caller has seen.
        """
        if self.tags is None or self.is_any or etag_of(version) in self.tags:
            return
        raise PreconditionFailedError(_CHANGED)


@dataclass(frozen=True, slots=True)
class Preconditions:
    """What a request expects of a thing that may not be there: `If-Match` and `If-None-Match`."""

    if_match: frozenset[str] | None
    if_none_match: frozenset[str] | None

    def check(self, opaque: object | None) -> None:
        """Compare with the tag at hand, without its quotes; `None` if nothing is there.

        Pass this method to the use case, which calls it inside the transaction.

        Raises:
            PreconditionFailedError: it is not there, not the one the caller has seen, or there
                although it must not be.
        """
        etag = None if opaque is None else f'"{opaque}"'
        if self.if_match is not None and not _matches(self.if_match, etag):
            raise PreconditionFailedError(_CHANGED)
        if self.if_none_match is not None and _matches(self.if_none_match, etag):
            raise PreconditionFailedError("`If-None-Match` rules out what is there already.")


def _matches(tags: frozenset[str], etag: str | None) -> bool:
    return etag is not None and (_ANY in tags or etag in tags)


def parse_preconditions(
    if_match: list[str] | None, if_none_match: list[str] | None
) -> Preconditions:
    """Read both headers; weak tags are compared in `If-None-Match` alone (RFC 9110, 13.1).

    Raises:
        InvalidETagError: one of them is not `*` or a list of quoted tags.
    """
    match = parse_if_match(if_match)
    wanted = frozenset({_ANY}) if match.is_any else match.tags
    unwanted = None
    if if_none_match:
        header = ", ".join(if_none_match).strip()
        unwanted = frozenset({_ANY} if header == _ANY else {tag for tag, _ in _tags(header)})
    return Preconditions(wanted, unwanted)


def parse_if_match(values: list[str] | None) -> Match:
    """Read `If-Match` headers: `*`, or a list of tags; weak ones are read and never match.

    Raises:
        InvalidETagError: it is not a list of quoted tags.
    """
    if not values:
        return Match(None)
    header = ", ".join(values).strip()
    if header == _ANY:
        return Match(frozenset(), is_any=True)
    return Match(frozenset(tag for tag, is_weak in _tags(header) if not is_weak))


def is_none_match(header: str, etag: str) -> bool:
    """Tell whether `If-None-Match` holds: the caller's copy is not this one."""
    if header.strip() == _ANY:
        return False
    try:
        return all(tag != etag.removeprefix("W/") for tag, _ in _tags(header))
    except InvalidETagError:
        # A reader with a broken tag simply gets the whole answer.
        return True


def _tags(header: str) -> list[tuple[str, bool]]:
    tags: list[tuple[str, bool]] = []
    position = 0
    # An empty header is no list either, so the first look is taken whatever the length.
    while position < len(header) or not tags:
        found = _TAG.match(header, position)
        if found is None or len(tags) == MAX_TAGS:
            raise InvalidETagError('Send tags as they came, quotes included: If-Match: "7"')
        tags.append((f'"{found["opaque"]}"', found["weak"] is not None))
        position = found.end()
    return tags


@may_refuse(InvalidETagError, PreconditionFailedError)
async def _if_match(
    if_match: Annotated[list[str] | None, Header(description="The ETag last read.")] = None,
) -> Match:
    return parse_if_match(if_match)


@may_refuse(InvalidETagError, PreconditionFailedError, PreconditionRequiredError)
async def _required_if_match(
    if_match: Annotated[
        list[str] | None, Header(description="The ETag last read; required here.")
    ] = None,
) -> Match:
    match = parse_if_match(if_match)
    if match.tags is None:
        raise PreconditionRequiredError('Send the ETag you last read as `If-Match: "<version>"`.')
    return match


@may_refuse(InvalidETagError, PreconditionFailedError)
async def _preconditions(
    if_match: Annotated[
        list[str] | None, Header(description="The ETag last read; `*`: it must be there.")
    ] = None,
    if_none_match: Annotated[
        list[str] | None, Header(description="`*`: nothing may be there.")
    ] = None,
) -> Preconditions:
    return parse_preconditions(if_match, if_none_match)


IfMatch = Annotated[Match, Depends(_if_match)]
"""`If-Match`, honoured when it is sent."""

RequiredIfMatch = Annotated[Match, Depends(_required_if_match)]
"""`If-Match`, 428 without it: on roles, quotas, providers and deployments."""

WritePreconditions = Annotated[Preconditions, Depends(_preconditions)]
"""`If-Match` and `If-None-Match` of a write to a path, where there may be nothing yet."""
