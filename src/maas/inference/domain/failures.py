"""Why a call came to no answer, in the words the caller is told: never a supplier's own."""

from maas.shared.domain.errors import (
    BadGatewayError,
    GatewayTimeoutError,
    NotFoundError,
    TooManyRequestsError,
    UnavailableError,
)


class UnknownModelError(NotFoundError):
    code = "unknown-model"
    title = "There is no such model to call"

    def __init__(self) -> None:
        super().__init__(
            "You can call no deployment of this name: `GET /v1/models` lists those that you can."
        )


class NoTargetError(UnavailableError):
    code = "no-target"
    title = "The deployment has nothing that could answer now"

    def __init__(self) -> None:
        super().__init__(
            "None of the deployment's targets can be called at the moment, or takes this kind of "
            "call; whoever runs the deployment sees why."
        )


class QueueFullError(TooManyRequestsError):
    code = "queue-full"
    title = "Too many calls wait for this model"


class QueueDeadlineError(UnavailableError):
    code = "queue-deadline"
    title = "The call waited too long for its turn"


class UpstreamRateLimitedError(TooManyRequestsError):
    code = "upstream-rate-limited"
    title = "What answers for this model takes no more calls now"


class UpstreamUnreachableError(UnavailableError):
    code = "upstream-unreachable"
    title = "What answers for this model cannot be reached"


class UpstreamTimeoutError(GatewayTimeoutError):
    code = "upstream-timeout"
    title = "What answers for this model did not answer in time"


class UpstreamRefusedError(BadGatewayError):
    code = "upstream-refused"
    title = "What answers for this model refuses to be called by us"


class UpstreamFailedError(BadGatewayError):
    code = "upstream-failed"
    title = "What answers for this model failed"


class ServerStoppedError(UnavailableError):
    code = "server-stopped"
    title = "The server was stopped before the answer was whole"


class BrokenAnswerError(BadGatewayError):
    code = "upstream-broke-off"
    title = "The answer broke off, or cannot be read"
