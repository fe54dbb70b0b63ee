import errno
import json
from datetime import timedelta

import asyncpg
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm.exc import StaleDataError
from typing_extensions import override

from maas.shared.domain.errors import (
    ConflictError,
    InvalidInputError,
    MaasError,
    TooManyRequestsError,
    UnauthenticatedError,
    UnavailableError,
)
from maas.shared.interface.handlers import MAX_ERRORS, field_errors
from maas.shared.interface.outages import problem_of_outage
from maas.shared.interface.problems import (
    REQUEST_ID_KEY,
    Faces,
    UnlistedKindError,
    problem_of,
    render_problem,
    status_of,
)

SCOPE = {"path": "/api/v1/things/1", REQUEST_ID_KEY: "req-1"}


class TestProblemOf:
    def test_the_nearest_kind_gives_the_status(self) -> None:
        class NameTakenError(ConflictError):
            code = "name-taken"
            title = "Taken"

        assert status_of(NameTakenError) == 409
        assert problem_of(NameTakenError()).code == "name-taken"

    def test_an_error_of_no_kind_is_a_bug(self) -> None:
        with pytest.raises(UnlistedKindError):
            status_of(MaasError)

    def test_unauthenticated_names_the_scheme(self) -> None:
        assert problem_of(UnauthenticatedError()).headers == {"WWW-Authenticate": "Bearer"}

    @pytest.mark.parametrize(
        ("error", "seconds"),
        [
            (UnavailableError(), "1"),
            (TooManyRequestsError(retry_after=timedelta(seconds=2.2)), "3"),
            (ConflictError(retry_after=timedelta(milliseconds=5)), "1"),
        ],
    )
    def test_tells_when_to_come_back(self, error: MaasError, seconds: str) -> None:
        assert problem_of(error).headers["Retry-After"] == seconds

    def test_where_the_input_is_wrong(self) -> None:
        problem = problem_of(InvalidInputError("Too odd.", loc=("body", "items", 3)))

        assert [(list(e.loc), e.type, e.message) for e in problem.errors] == [
            (["body", "items", 3], "invalid-input", "Too odd.")
        ]


class TestRender:
    def test_every_member_of_the_document(self) -> None:
        response = render_problem(problem_of(ConflictError("Twice.")), "/x", "req-1")

        assert response.headers["content-type"] == "application/problem+json"
        assert json.loads(bytes(response.body)) == {
            "type": "/errors/conflict",
            "title": "Conflicts with what is there",
            "status": 409,
            "detail": "Twice.",
            "instance": "/x",
            "code": "conflict",
            "request_id": "req-1",
        }

    def test_extensions_cannot_replace_what_every_problem_has(self) -> None:
        class ChattyError(ConflictError):
            code = "chatty"
            title = "Chatty"

            @property
            @override
            def extensions(self) -> dict[str, object]:
                return {"status": 200, "version": 7}

        document = json.loads(bytes(render_problem(problem_of(ChattyError()), "/x", "r").body))

        assert (document["status"], document["version"]) == (409, 7)

    def test_a_path_is_escaped_and_cut(self) -> None:
        scope = {**SCOPE, "path": "/a b/\udcff/" + "x" * 5000}

        document = json.loads(bytes(Faces().render(problem_of(ConflictError()), scope).body))

        assert document["instance"].startswith("/a%20b/%3F/x")
        assert len(document["instance"]) == 512

    def test_a_face_writes_its_own_form(self) -> None:
        faces = Faces({"/v1/": lambda problem, _path, _id: render_problem(problem, "openai", "r")})

        ours = faces.render(problem_of(ConflictError()), SCOPE)
        theirs = faces.render(problem_of(ConflictError()), {**SCOPE, "path": "/v1/models"})

        assert b"openai" not in bytes(ours.body)
        assert b"openai" in bytes(theirs.body)


class TestFieldErrors:
    def test_leave_out_the_input(self) -> None:
        errors = [
            {"loc": ("body", "age"), "type": "int_type", "msg": "Should be int", "input": "x"},
            {
                "loc": ("body", "name"),
                "type": "value_error",
                "msg": "Value error, hunter2 is no name",
                "input": "hunter2",
                "ctx": {"error": "hunter2"},
            },
            {"loc": ("body", "k" * 500), "type": "extra_forbidden", "msg": "Extra", "input": 1},
            {
                "loc": ("query", "id"),
                "type": "uuid_parsing",
                "msg": "Should be UUID, found `z`",
                "input": "z",
            },
        ]

        rendered = field_errors(errors)

        assert "hunter2" not in repr(rendered)
        assert "`z`" not in repr(rendered)
        assert rendered[0].message == "Should be int"
        assert len(str(rendered[2].loc[1])) == 64

    def test_are_bounded_in_number(self) -> None:
        one = {"loc": ("body",), "type": "t", "msg": "m", "input": None}

        assert len(field_errors([one] * 10_000)) == MAX_ERRORS


class FakeDriverError(Exception):
    def __init__(self, sqlstate: str | None) -> None:
        super().__init__("driver says so")
        self.sqlstate = sqlstate


def wrapped(cause: BaseException, *, is_broken: bool = False) -> DBAPIError:
    adapted = FakeDriverError(getattr(cause, "sqlstate", None))
    adapted.__cause__ = cause
    return DBAPIError("SELECT 1", {}, adapted, connection_invalidated=is_broken)


class TestOutages:
    @pytest.mark.parametrize(
        ("sqlstate", "status"),
        [
            ("22021", 422),
            ("22P05", 422),
            ("23505", 409),
            ("23503", 409),
            ("40001", 409),
            ("40P01", 409),
            ("55P03", 503),
            ("57014", 503),
            ("57P01", 503),
            ("57P03", 503),
            ("08006", 503),
            ("08P01", 503),
            ("53300", 503),
            ("53100", 507),
        ],
    )
    def test_sqlstates(self, sqlstate: str, status: int) -> None:
        problem = problem_of_outage(wrapped(FakeDriverError(sqlstate)))

        assert problem is not None
        assert problem.status == status
        assert ("Retry-After" in problem.headers) == (status == 503)

    @pytest.mark.parametrize(
        ("error", "status"),
        [
            (asyncpg.DataError("invalid input"), 422),
            (asyncpg.UniqueViolationError("x"), 409),
            (asyncpg.DeadlockDetectedError("x"), 409),
            (asyncpg.LockNotAvailableError("x"), 503),
            (asyncpg.AdminShutdownError("x"), 503),
            (asyncpg.InterfaceError("connection is closed"), 503),
            (asyncpg.ConnectionDoesNotExistError("x"), 503),
            (asyncpg.DiskFullError("x"), 507),
            (PoolTimeoutError("QueuePool limit"), 503),
            (StaleDataError("x"), 412),
            (RedisConnectionError("x"), 503),
            (ConnectionRefusedError(111, "x"), 503),
            (OSError("Multiple exceptions"), 503),
            (TimeoutError(), 503),
            (OSError(errno.EMFILE, "Too many open files"), 503),
            (OSError(errno.ENOSPC, "No space"), 507),
            (wrapped(asyncpg.DataError("invalid")), 422),
            (wrapped(ConnectionResetError()), 503),
            (wrapped(ValueError("?"), is_broken=True), 503),
        ],
    )
    def test_errors_of_drivers(self, error: Exception, status: int) -> None:
        problem = problem_of_outage(error)

        assert problem is not None
        assert problem.status == status

    @pytest.mark.parametrize(
        "error",
        [
            asyncpg.UndefinedTableError("x"),
            asyncpg.NotNullViolationError("x"),
            wrapped(ValueError("?")),
            InvalidRequestError("x"),
            FileNotFoundError(2, "x"),
            PermissionError(13, "x"),
        ],
    )
    def test_bugs_are_no_outages(self, error: Exception) -> None:
        assert problem_of_outage(error) is None
