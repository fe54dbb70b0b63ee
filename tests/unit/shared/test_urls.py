import pytest

from maas.shared.interface.urls import MAX_URL_BYTES, url_problem


def scope(path: bytes = b"/x", query: bytes = b"") -> dict[str, object]:
    return {"raw_path": path, "query_string": query, "path": "/x"}


@pytest.mark.parametrize(
    ("path", "query"),
    [
        (b"/api/v1/models", b""),
        (b"/a/%E4%BD%A0", b"q=%E4%BD%A0+x&a=%26"),
        (b"/a%2Fb", b"q=a%2Bb"),
    ],
)
def test_takes_what_decodes(path: bytes, query: bytes) -> None:
    assert url_problem(scope(path, query)) is None


@pytest.mark.parametrize(
    "part",
    [b"%00", b"a%00b", b"%ff", b"%ED%A0%80", b"%C0%AF", b"%", b"%2", b"%zz", b"\xe4", b"\x00"],
)
def test_refuses_what_does_not(part: bytes) -> None:
    in_path, in_query = url_problem(scope(b"/" + part)), url_problem(scope(query=b"q=" + part))

    assert in_path is not None
    assert in_query is not None
    assert (in_path.status, in_query.status) == (422, 422)
    assert (in_path.errors[0].loc, in_query.errors[0].loc) == (("path",), ("query",))


@pytest.mark.parametrize("path", [b"/a%0Ab", b"/a%0a"])
def test_a_path_is_one_line(path: bytes) -> None:
    problem = url_problem(scope(path))

    assert problem is not None
    assert (problem.status, problem.errors[0].loc) == (422, ("path",))
    assert url_problem(scope(query=b"q=" + path)) is None


def test_refuses_what_is_too_long() -> None:
    long = url_problem(scope(query=b"q" * MAX_URL_BYTES))

    assert long is not None
    assert long.status == 414
