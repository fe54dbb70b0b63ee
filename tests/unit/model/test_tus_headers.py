"""What the headers of the tus protocol may say, and what is made of it."""

import base64

import pytest
from starlette.datastructures import Headers

from maas.model.domain.blob import Digest, InvalidDigestError
from maas.model.domain.file import InvalidFilePathError
from maas.model.domain.resumable import InvalidUploadError
from maas.model.interface.tus import (
    MAX_METADATA_CHARS,
    checksum_in,
    metadata_in,
    number_in,
    partials_in,
    wanted_file,
)
from maas.shared.domain.ids import new_id

MODEL = "01935d2e-0000-7000-8000-000000000007"


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class TestNumber:
    @pytest.mark.parametrize("text", ["", "-1", "+1", " 1", "1.0", "0x1", "²", "9" * 19])
    def test_what_is_no_number_of_bytes_is_refused(self, text: str) -> None:
        with pytest.raises(InvalidUploadError):
            number_in(Headers({"Upload-Length": text}), "Upload-Length")

    def test_a_number_is_read(self) -> None:
        assert number_in(Headers({"upload-length": "0012"}), "Upload-Length") == 12


class TestMetadata:
    def test_pairs_are_read_and_kept_as_sent(self) -> None:
        sent = f"path {encoded('a/é')},empty,also ,version {encoded('1')}"

        text, said = metadata_in(Headers({"Upload-Metadata": sent}))

        assert text == sent
        assert said == {"path": "a/é", "empty": "", "also": "", "version": "1"}

    @pytest.mark.parametrize(
        "sent",
        [
            "path !",
            f"path {encoded('a')} {encoded('b')}",
            f"path {encoded('a')},path {encoded('b')}",
            f",{encoded('a')}",
            "path " + base64.b64encode(b"\xff\xfe").decode(),
            "a " + "A" * MAX_METADATA_CHARS,
            "é YQ==",
        ],
    )
    def test_what_is_no_list_of_pairs_is_refused(self, sent: str) -> None:
        with pytest.raises(InvalidUploadError):
            metadata_in(Headers(raw=[(b"upload-metadata", sent.encode("latin-1"))]))


class TestWantedFile:
    def test_it_is_told_by_model_version_and_path(self) -> None:
        said = {"model_id": MODEL, "version": "1.0", "path": "a/b", "sha256": "AB" * 32}

        wanted = wanted_file({**said, "media_type": "text/Plain"})

        assert str(wanted.model_id) == MODEL
        assert (str(wanted.version), str(wanted.path)) == ("1.0", "a/b")
        assert (wanted.media_type, wanted.sha256) == ("text/plain", Digest(b"\xab" * 32))

    @pytest.mark.parametrize("missing", ["model_id", "version", "path"])
    def test_each_of_them_is_needed(self, missing: str) -> None:
        said = {"model_id": MODEL, "version": "1.0", "path": "a"}
        del said[missing]

        with pytest.raises(InvalidUploadError):
            wanted_file(said)

    @pytest.mark.parametrize(
        ("wrong", "error"),
        [
            ({"path": "../../etc/passwd"}, InvalidFilePathError),
            ({"path": "/etc/passwd"}, InvalidFilePathError),
            ({"sha256": "no"}, InvalidDigestError),
            ({"model_id": "7"}, InvalidUploadError),
        ],
    )
    def test_what_is_wrong_in_itself_is_refused(
        self, wrong: dict[str, str], error: type[Exception]
    ) -> None:
        with pytest.raises(error):
            wanted_file({"model_id": MODEL, "version": "1.0", "path": "a", **wrong})


class TestChecksum:
    def test_it_is_an_algorithm_and_a_digest(self) -> None:
        headers = Headers({"Upload-Checksum": "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0="})

        found = checksum_in(headers)

        assert found is not None
        assert (found[0], len(found[1])) == ("sha1", 20)

    def test_there_need_not_be_one(self) -> None:
        assert checksum_in(Headers()) is None

    @pytest.mark.parametrize("text", ["md5 YQ==", "sha1", "SHA1 YQ==", "sha1 ~", ""])
    def test_what_cannot_be_compared_is_refused(self, text: str) -> None:
        with pytest.raises(InvalidUploadError):
            assert not checksum_in(Headers({"Upload-Checksum": text}))


class TestConcatenation:
    def test_partial_uploads_are_told_by_urls_of_any_kind(self) -> None:
        first, second = new_id(), new_id()

        found = partials_in(f"final;/api/v1/uploads/{first} https://host/x/{second}")

        assert found == [first, second]

    def test_a_partial_upload_names_none(self) -> None:
        assert partials_in("partial") is None

    def test_what_names_no_uploads_is_refused(self) -> None:
        one = new_id()
        for text in ("", "final", "final;", "final;/x", f"final;/{one} /{one}", f"other;/{one}"):
            with pytest.raises(InvalidUploadError):
                partials_in(text)
