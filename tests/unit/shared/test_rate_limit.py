import pytest

from maas.shared.domain.rate_limit import HOUR, MINUTE, Level, Rate, RateLimitedError, Standing
from maas.shared.infrastructure.rate_limit_settings import RateLimitSettings
from maas.shared.infrastructure.rate_limits import MAX_LOCAL, Bucket, LocalBuckets, site_of
from maas.shared.interface.rate_limits import limit_headers, route_class_of

SECOND = 1_000_000
RATE = Rate("default", 60, MINUTE)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def buckets(clock: Clock) -> LocalBuckets:
    return LocalBuckets(clock)


def left(standing: Standing) -> int:
    return standing.levels[0].left


class TestRate:
    @pytest.mark.parametrize("quota", [1, 7, 59, 100, 999_999, 1_000_000])
    def test_lets_no_more_through_than_it_says_and_all_of_it_at_once(self, quota: int) -> None:
        rate = Rate("test", quota, MINUTE)

        assert rate.interval_us * quota == rate.span_us >= MINUTE * SECOND
        assert rate.span_us - MINUTE * SECOND < quota

    def test_is_cut_into_parts_that_sum_to_it_at_least(self) -> None:
        assert Rate("test", 100, MINUTE).shared_by(1).quota == 100
        assert Rate("test", 100, MINUTE).shared_by(3).quota == 34
        assert Rate("test", 1, MINUTE).shared_by(8).quota == 1


class TestLocalBuckets:
    def test_a_full_bucket_is_a_burst_and_then_a_pace(
        self, buckets: LocalBuckets, clock: Clock
    ) -> None:
        bucket = Bucket("a", RATE)

        burst = [left(buckets.take([bucket])) for _ in range(61)]
        clock.now += 2.5
        later = [left(buckets.take([bucket])) for _ in range(3)]
        clock.now += 3600
        rested = left(buckets.take([bucket]))

        assert burst == [*range(59, -1, -1), -1]
        assert later == [1, 0, -1]
        assert rested == 59

    def test_says_how_long_to_wait(self, buckets: LocalBuckets, clock: Clock) -> None:
        bucket = Bucket("a", Rate("default", 2, MINUTE))

        waits = []
        for _ in range(3):
            waits.append(buckets.take([bucket]).levels[0].wait_us)
            clock.now += 1

        assert waits == [0, 29 * SECOND, 28 * SECOND]

    def test_looking_takes_nothing(self, buckets: LocalBuckets) -> None:
        bucket = Bucket("a", Rate("default", 2, MINUTE))

        looked = [left(buckets.take([bucket], cost=0)) for _ in range(5)]

        assert looked == [2] * 5
        assert len(buckets) == 0

    def test_what_is_given_back_is_there_again(self, buckets: LocalBuckets) -> None:
        bucket = Bucket("a", Rate("default", 1, MINUTE))

        for _ in range(3):
            taken = buckets.take([bucket])
            assert left(taken) == 0
            buckets.give_back(taken)

    def test_a_refusal_is_news_once_a_minute(self, buckets: LocalBuckets, clock: Clock) -> None:
        bucket = Bucket("a", Rate("default", 1, HOUR))
        news = []
        for _ in range(6):
            news.append(buckets.take([bucket]).is_news)
            clock.now += 25

        assert news == [False, True, False, False, True, False]

    def test_never_holds_more_than_fits(self, buckets: LocalBuckets, clock: Clock) -> None:
        held = Bucket("held", Rate("default", 1, HOUR))
        for number in range(3 * MAX_LOCAL):
            buckets.take([Bucket(f"address-{number}", RATE)])
            assert len(buckets) <= MAX_LOCAL
        buckets.take([held])
        for number in range(MAX_LOCAL // 2):
            clock.now += 0.01
            buckets.take([Bucket(f"later-{number}", RATE)])

        assert left(buckets.take([held])) == -1

    def test_lets_go_of_what_was_not_in_use_first(self, buckets: LocalBuckets) -> None:
        used = Bucket("used", Rate("default", 2 * MAX_LOCAL, HOUR))
        for number in range(MAX_LOCAL):
            buckets.take([used])
            buckets.take([Bucket(f"address-{number}", RATE)])

        assert left(buckets.take([used])) == MAX_LOCAL - 1


class TestHeaders:
    def test_say_what_applies_and_what_is_left(self) -> None:
        standing = Standing(
            [Level(RATE, 41, 0), Level(Rate("key", 5, MINUTE), -1, 2_400_000)],
            is_news=False,
            buckets=["a", "b"],
        )

        assert limit_headers(standing) == [
            (b"ratelimit-policy", b'"default";q=60;w=60, "key";q=5;w=60'),
            (b"ratelimit", b'"default";r=41;t=41, "key";r=0;t=3'),
        ]

    def test_a_client_that_keeps_to_them_is_never_refused(
        self, buckets: LocalBuckets, clock: Clock
    ) -> None:
        bucket = Bucket("a", Rate("default", 7, MINUTE))
        for _ in range(200):
            level = buckets.take([bucket]).levels[0]
            assert level.left >= 0
            clock.now += level.pace_seconds / max(level.available, 1)


class TestError:
    def test_names_the_policies_and_waits_for_all_that_are_empty(self) -> None:
        empty = Level(Rate("registration", 10, HOUR), -1, 300 * SECOND)
        spent = Level(Rate("address", 100, MINUTE), 0, 900 * SECOND)
        error = RateLimitedError(Standing([spent, empty], is_news=False, buckets=["a", "b"]))

        assert error.extensions == {"violated-policies": ["registration"]}
        assert error.retry_after is not None
        assert error.retry_after.total_seconds() == 900
        assert "10 requests an hour to register from your address" in error.detail


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/api/v1/users/profile", "default"),
        ("GET", "/api/v1/admin/users", "admin"),
        ("POST", "/api/v1/auth/logout", "auth"),
        ("PATCH", "/api/v1/uploads/1", "upload"),
        ("PUT", "/api/v1/models/1/versions/1.0/files/a/b.gguf", "upload"),
        ("GET", "/api/v1/models/1/versions/1.0/files/a/b.gguf", "default"),
        ("POST", "/v1/chat/completions", "inference"),
        ("GET", "/metrics", "default"),
    ],
)
def test_routes_have_classes(method: str, path: str, expected: str) -> None:
    assert route_class_of({"method": method, "path": path}) == expected


@pytest.mark.parametrize(
    ("address", "site"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        (None, "none"),
    ],
)
def test_a_site_is_an_ipv4_address_or_a_64(address: str | None, site: str) -> None:
    assert site_of(address) == site


def test_a_class_without_a_figure_has_the_general_one() -> None:
    settings = RateLimitSettings(requests_per_minute=50, inference_per_minute=70)

    assert settings.by_class == {
        "default": 50,
        "admin": 50,
        "auth": 50,
        "upload": 50,
        "inference": 70,
    }
