"""Answers that are kept for calls which are the same to the letter, where a deployment says so."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from maas.inference.domain.answer_key import AnswerKey


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAnswer:
    """An answer as it was given; `request_id` is of the call that paid for it."""

    body: bytes
    request_id: str
    made_at: datetime


class AnswerCache(Protocol):
    """Never raises, and never holds a call up for longer than a quarter of a second."""

    async def find(self, key: AnswerKey) -> KeptAnswer | None:
        """Look for an answer; there is none while nothing can tell."""
        ...

    def keep(self, key: AnswerKey, answer: KeptAnswer, *, keep_for: timedelta) -> None:
        """Keep an answer in the background, if there is room; the first one stays."""
        ...
