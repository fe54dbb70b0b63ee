import io
import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from maas.shared.domain.call import serving
from maas.shared.infrastructure.logging import (
    REDACTED,
    configure_logging,
    is_secret_name,
    redact_fields,
    redact_tokens,
)
from tests.fakes.recorder import make_call

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"
API_KEY = "maas_prod_a1b2c3d4_" + "x" * 40 + "_abc123"

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


class TestSecretNames:
    @pytest.mark.parametrize(
        "name",
        [
            "password",
            "new_password",
            "currentPassword",
            "PASSWORD",
            "refresh_token",
            "accessToken",
            "Authorization",
            "x-api-key",
            "api_key",
            "apiKey",
            "client_secret",
            "set-cookie",
            "credential",
            "secret_key",
            "private_key",
            "idempotency-key",
            "session_key",
            "dsn",
            "sentryDsn",
        ],
    )
    def test_hide(self, name: str) -> None:
        assert is_secret_name(name)

    @pytest.mark.parametrize(
        "name", ["tokens", "prompt_tokens", "max_tokens", "key", "key_id", "username", "author"]
    )
    def test_leave_counts_and_names(self, name: str) -> None:
        assert not is_secret_name(name)


class TestRedactFields:
    def test_reaches_inside(self) -> None:
        fields = {"body": {"user": "ada", "items": [{"token": "t"}]}, "token": {"a": 1}, "n": 1}

        assert redact_fields(fields) == {
            "body": {"user": "ada", "items": [{"token": REDACTED}]},
            "token": REDACTED,
            "n": 1,
        }

    def test_numbers_are_no_secrets(self) -> None:
        assert redact_fields({"token": 5, "password": None}) == {"token": 5, "password": None}

    @pytest.mark.parametrize("name", ["url", "database_url", "URI"])
    def test_leaves_urls_without_who_may_use_them(self, name: str) -> None:
        fields = {name: "https://abc@example.com/a@b", "x": [{name: {"a": 1}}]}

        assert redact_fields(fields) == {
            name: "https://[redacted]@example.com/a@b",
            "x": [{name: {"a": 1}}],
        }

    def test_ends_on_what_holds_itself(self) -> None:
        loop: dict[str, Any] = {}
        loop["self"] = loop

        redact_fields(loop)


class TestRedactTokens:
    @pytest.mark.parametrize(
        "part",
        [
            *(b"password", b"'password':'", rb"\"token\":\"", b"a-", b"://", b"://a:", b"token: "),
            *(b"password='", b"input_value=", b"cookie: ", b"authorization:", b"secret="),
        ],
    )
    def test_takes_linear_time(self, part: bytes) -> None:
        # The thread's own time, for a busy machine is nobody's fault; in the square it is minutes.
        started = time.thread_time()

        redact_tokens(part * 20_000)

        assert time.thread_time() - started < 5

    @pytest.mark.parametrize(
        "secret",
        [
            JWT,
            API_KEY,
            "sk-" + "a" * 30,
            "hf_" + "a" * 30,
            "ghp_" + "a" * 36,
            "AKIAABCDEFGHIJKLMNOP",
            "mrt_" + "aB3-_" * 10,
            "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$RdescudvJCsgt3ub+b9dWRJJTmaaJObG",
        ],
    )
    def test_finds_them_anywhere(self, secret: str) -> None:
        line = redact_tokens(f'{{"event":"x {secret}, y"}}'.encode()).decode()

        assert secret not in line
        assert json.loads(line)["event"].startswith("x [redacted]")

    @pytest.mark.parametrize(
        ("line", "left"),
        [
            (b"Authorization: Bearer abc.def-ghi", b"Authorization: Bearer [redacted]"),
            (b"Basic dXNlcjpwYXNz", b"Basic [redacted]"),
            (b"Authorization: abc def", b"Authorization: [redacted]"),
            (b"proxy-authorization: Digest a=b, c=d", b"proxy-authorization: Digest [redacted]"),
            (b"Cookie: session=abc; b=c", b"Cookie: [redacted]"),
            (rb'"Cookie: session=abc; b=c\r\nHost: x"', rb'"Cookie: [redacted]\r\nHost: x"'),
            (b"{'cookie': 'a=b; c=d', 'e': 1}", b"{'cookie': '[redacted]', 'e': 1}"),
            (b"[(b'authorization', b'abc')]", b"[(b'authorization', b'[redacted]')]"),
            (b"a=1&new_password=b&client_secret=c", b"a=1&[redacted]&[redacted]"),
            (b"connect(password='two words', x=1)", b"connect([redacted], x=1)"),
            (
                b"[type=int_parsing, input_value='a b', input_type=str]",
                b"[type=int_parsing, input_value=[redacted], input_type=str]",
            ),
            (b"redis://:hunter2@cache:6379/0", b"redis://[redacted]@cache:6379/0"),
            (b"postgresql://u:p@db/x", b"postgresql://[redacted]@db/x"),
            (b"redis://:p@ss:w@cache:6379/0", b"redis://[redacted]@cache:6379/0"),
            (b"mongodb://ada@x.org:p@s@db", b"mongodb://[redacted]@db"),
            (b"X-API-Key: abcdef, y", b"X-API-Key: [redacted], y"),
            (b"x-api-key:abcdef", b"x-api-key:[redacted]"),
            (b"token: Bearer a.b", b"token: [redacted]"),
            (rb'"{\"password\":\"hun\\\"ter2\",1}"', rb'"{\"password\":\"[redacted]\",1}"'),
            (rb'"{\"new_password\": \"hunter2"', rb'"{\"new_password\": \"[redacted]"'),
            (b"{'password': 'hunter 2', 'a': 1}", b"{'password': '[redacted]', 'a': 1}"),
            (b"[(b'X-Api-Key', b'abc')]", b"[(b'X-Api-Key', b'[redacted]')]"),
            (b'{"password":null,"token":5}', b'{"password":null,"token":5}'),
            (b"GET /x?token=abc&a=1", b"GET /x?[redacted]&a=1"),
            (b"https://example.com/a:b@c", b"https://example.com/a:b@c"),
            (b"max_tokens=5", b"max_tokens=5"),
            (b"nothing here", b"nothing here"),
        ],
    )
    def test_leaves_the_rest(self, line: bytes, left: bytes) -> None:
        assert redact_tokens(line) == left


@pytest.fixture
def lines() -> Iterator[io.BytesIO]:
    stream = io.BytesIO()
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    configure_logging(level="INFO", format="json", stream=stream)
    yield stream
    structlog.reset_defaults()
    logging.basicConfig(handlers=handlers, level=level, force=True)


def last(stream: io.BytesIO) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(stream.getvalue().splitlines()[-1])
    return line


class TestLines:
    def test_carry_the_call(self, lines: io.BytesIO) -> None:
        with serving(make_call()):
            structlog.get_logger().info("thing_done", thing_id="1")

        line = last(lines)
        assert (line["event"], line["request_id"], line["thing_id"]) == ("thing_done", "test", "1")
        assert line["level"] == "info"
        assert line["at"].endswith("Z")

    def test_of_the_standard_library_look_the_same(self, lines: io.BytesIO) -> None:
        with serving(make_call()):
            logging.getLogger("some.library").warning("failed with %s", API_KEY)

        line = last(lines)
        assert line["logger"] == "some.library"
        assert line["event"] == "failed with [redacted]"
        assert line["request_id"] == "test"

    def test_hold_tracebacks_without_secrets(self, lines: io.BytesIO) -> None:
        try:
            int(JWT)
        except ValueError:
            structlog.get_logger().exception("thing_failed")

        assert "with base 10: '[redacted]'" in last(lines)["exception"]

    def test_below_the_level_are_not_written(self, lines: io.BytesIO) -> None:
        structlog.get_logger().debug("noise")
        logging.getLogger("x").debug("noise")

        assert lines.getvalue() == b""

    def test_survive_a_broken_argument(self, lines: io.BytesIO) -> None:
        class Broken:
            @override
            def __str__(self) -> str:
                raise RuntimeError

            __repr__ = __str__

        structlog.get_logger().info("odd", what=Broken(), surrogate="\udc80", number=float("nan"))

        assert len(lines.getvalue().splitlines()) == 1

    def test_survive_a_broken_format_string_of_a_library(self, lines: io.BytesIO) -> None:
        ours = next(
            h for h in logging.getLogger().handlers if type(h).__module__.startswith("maas")
        )

        ours.emit(logging.makeLogRecord({"msg": "%d items", "args": ("three",)}))

        assert last(lines) == {"event": "log_line_unreadable"}

    @given(st.dictionaries(st.text(min_size=1).filter(str.isidentifier), values, max_size=4))
    def test_never_raise(self, fields: dict[str, Any]) -> None:
        stream = io.BytesIO()
        configure_logging(level="INFO", format="json", stream=stream)

        structlog.get_logger().info("event", **{f"x_{name}": v for name, v in fields.items()})

        json.loads(stream.getvalue())
        structlog.reset_defaults()

    def test_a_closed_stream_loses_the_line_only(self) -> None:
        stream = io.BytesIO()
        configure_logging(level="INFO", format="json", stream=stream)
        stream.close()

        structlog.get_logger().info("lost")

        structlog.reset_defaults()

    def test_are_for_people_on_a_console(self) -> None:
        stream = io.BytesIO()
        configure_logging(level="INFO", format="console", stream=stream)

        structlog.get_logger().info("thing_done", token="abc", url="redis://:pw@x")

        assert b"thing_done" in stream.getvalue()
        assert b"abc" not in stream.getvalue()
        assert b":pw@" not in stream.getvalue()
        structlog.reset_defaults()
