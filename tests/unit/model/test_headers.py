"""Ranges, digests and file names in headers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from maas.model.domain.blob import Digest, InvalidDigestError
from maas.model.domain.file import FilePath
from maas.model.interface.digests import announced_digests, format_digest
from maas.model.interface.downloads import content_disposition
from maas.model.interface.ranges import Span, UnsatisfiableRange, wanted_span

ETAG = '"e"'


class TestWantedSpan:
    @pytest.mark.parametrize(
        ("header", "expected"),
        [
            ("bytes=0-0", Span(0, 1, 10)),
            ("bytes=2-", Span(2, 10, 10)),
            ("bytes=-3", Span(7, 10, 10)),
            ("bytes=-99", Span(0, 10, 10)),
            ("bytes=9-99", Span(9, 10, 10)),
            ("bytes=3-2", None),
            ("bytes=-", None),
            ("bytes=0-1,3-4", None),
            ("items=0-1", None),
            ("bytes=a-b", None),
            (None, None),
        ],
    )
    def test_reads_one_range(self, header: str | None, expected: Span | None) -> None:
        assert wanted_span(header, if_range=None, etag=ETAG, size=10) == expected

    @pytest.mark.parametrize(
        ("header", "size"), [("bytes=10-", 10), ("bytes=-0", 10), ("bytes=0-", 0)]
    )
    def test_there_may_be_no_such_bytes(self, header: str, size: int) -> None:
        with pytest.raises(UnsatisfiableRange):
            wanted_span(header, if_range=None, etag=ETAG, size=size)

    def test_another_file_is_sent_whole(self) -> None:
        assert wanted_span("bytes=0-1", if_range='"other"', etag=ETAG, size=10) is None
        assert wanted_span("bytes=0-1", if_range=ETAG, etag=ETAG, size=10) == Span(0, 2, 10)

    @given(st.text(), st.integers(0, 100))
    def test_never_leaves_the_file(self, text: str, size: int) -> None:
        try:
            span = wanted_span(f"bytes={text}", if_range=None, etag=ETAG, size=size)
        except UnsatisfiableRange:
            return
        assert span is None or 0 <= span.start < span.stop <= size


class TestDigests:
    DIGEST = Digest(bytes(range(32)))

    @pytest.mark.parametrize("name", ["Content-Digest", "Repr-Digest"])
    def test_reads_back_what_it_writes(self, name: str) -> None:
        assert announced_digests(Headers({name: format_digest(self.DIGEST)})) == {self.DIGEST}

    def test_other_algorithms_are_passed_over(self) -> None:
        header = f"sha-512=:AAAA:, {format_digest(self.DIGEST)}"

        assert announced_digests(Headers({"Content-Digest": header})) == {self.DIGEST}
        assert announced_digests(Headers({"Content-Digest": "md5=:AAAA:"})) == frozenset()

    def test_all_that_are_sent_count(self) -> None:
        headers = Headers(
            {"X-Checksum-SHA256": "0" * 64, "Content-Digest": format_digest(self.DIGEST)}
        )

        assert announced_digests(headers) == {self.DIGEST, Digest(bytes(32))}

    @pytest.mark.parametrize(
        "headers",
        [
            {"Content-Digest": "sha-256=AAAA"},
            {"Content-Digest": "sha-256=:AAAA:"},
            {"Content-Digest": "sha-256=:A:"},
            {"Repr-Digest": "x"},
            {"X-Checksum-SHA256": "zz"},
        ],
    )
    def test_nonsense_is_refused(self, headers: dict[str, str]) -> None:
        with pytest.raises(InvalidDigestError):
            announced_digests(Headers(headers))


class TestContentDisposition:
    @pytest.mark.parametrize(
        ("path", "expected"),
        [
            ("a/b.gguf", 'attachment; filename="b.gguf"'),
            ('a";x=y', "attachment; filename=\"a__x_y\"; filename*=UTF-8''a%22%3Bx%3Dy"),
            ("一", "attachment; filename=\"_\"; filename*=UTF-8''%E4%B8%80"),
        ],
    )
    def test_is_safe(self, path: str, expected: str) -> None:
        assert content_disposition(FilePath(path)) == expected
