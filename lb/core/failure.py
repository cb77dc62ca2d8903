"""What can go wrong with an exchange: one table of values, not a tree of exceptions.

A failure's name is what the access log, the metric label and the error body say. Whose fault it is
decides whether a backend's health suffers; `retry` says when another attempt may hide it:

* `NEVER`: the client would see a second effect, or the fault is the client's own;
* `IDEMPOTENT`: only where doing it twice is the same as doing it once (RFC 9110, section 9.2.2);
* `UNSENT`: nothing of the request has reached the backend, so any method may go elsewhere.
"""

from dataclasses import dataclass

CLIENT, BACKEND, BALANCER = "client", "backend", "balancer"
NEVER, IDEMPOTENT, UNSENT = "never", "if idempotent", "if nothing was sent"

FAILURES: dict[str, "Failure"] = {}


@dataclass(frozen=True, slots=True, eq=False)
class Failure:
    """What went wrong, whose fault it is, the status that the client gets, and may it be retried."""

    name: str
    fault: str
    status: int
    retry: str
    message: str

    def __post_init__(self) -> None:
        FAILURES[self.name] = self

    def __repr__(self) -> str:
        return f"<Failure {self.name}>"


# The client's. Statuses from RFC 9110, section 15.5, and RFC 6585.
BAD_REQUEST = Failure("bad_request", CLIENT, 400, NEVER, "The request is not well-formed HTTP.")
BAD_HOST = Failure("bad_host", CLIENT, 400, NEVER, "The request needs exactly one valid Host.")
BAD_FRAMING = Failure("bad_framing", CLIENT, 400, NEVER, "The length of the request body is not clear.")
UNAUTHORIZED = Failure("unauthorized", CLIENT, 401, NEVER, "This needs a user name and its password.")
FORBIDDEN = Failure("forbidden", CLIENT, 403, NEVER, "This client may not come in here.")
AMBIGUOUS_PATH = Failure(
    "ambiguous_path", CLIENT, 400, NEVER, "The path can be read as another one, which other rules are for."
)
NO_ROUTE = Failure("no_route", CLIENT, 404, NEVER, "No route matches this request.")
METHOD_NOT_ALLOWED = Failure("method_not_allowed", CLIENT, 405, NEVER, "This method is not served here.")
REQUEST_TIMEOUT = Failure("request_timeout", CLIENT, 408, NEVER, "The request took too long to arrive.")
BODY_TOO_LARGE = Failure("body_too_large", CLIENT, 413, NEVER, "The request body is larger than allowed.")
URI_TOO_LONG = Failure("uri_too_long", CLIENT, 414, NEVER, "The request target is longer than allowed.")
EXPECTATION_FAILED = Failure(
    "expectation_failed", CLIENT, 417, NEVER, "Only Expect: 100-continue is understood."
)
RATE_LIMITED = Failure("rate_limited", CLIENT, 429, NEVER, "This client asks more often than it may.")
LOGIN_LIMITED = Failure(
    "login_limited", CLIENT, 429, NEVER, "This client has given too many wrong passwords."
)
HEAD_TOO_LARGE = Failure(
    "head_too_large", CLIENT, 431, NEVER, "The header fields are larger, or more, than allowed."
)
CLIENT_GONE = Failure("client_gone", CLIENT, 499, NEVER, "The client went away.")
UNKNOWN_METHOD = Failure("unknown_method", CLIENT, 501, NEVER, "This method is not known here.")
UNKNOWN_CODING = Failure(
    "unknown_coding", CLIENT, 501, NEVER, "Only the transfer coding chunked is known here."
)
BAD_VERSION = Failure("bad_version", CLIENT, 505, NEVER, "Only HTTP/1.1 and HTTP/1.0 are spoken here.")

# The backend's.
CONNECT_FAILED = Failure("connect_failed", BACKEND, 502, UNSENT, "The backend could not be reached.")
CONNECT_TIMEOUT = Failure(
    "connect_timeout", BACKEND, 504, UNSENT, "The backend could not be reached in time."
)
TLS_FAILED = Failure(
    "tls_failed", BACKEND, 502, UNSENT, "There was no secure connection to be had with the backend."
)
RESET = Failure("reset", BACKEND, 502, IDEMPOTENT, "The backend closed the connection without an answer.")
BAD_RESPONSE = Failure(
    "bad_response", BACKEND, 502, IDEMPOTENT, "The backend's answer is not well-formed HTTP."
)
RESPONSE_CUT = Failure("response_cut", BACKEND, 502, NEVER, "The backend's answer broke off.")
RESPONSE_TIMEOUT = Failure(
    "response_timeout", BACKEND, 504, IDEMPOTENT, "The backend did not answer in time."
)
STALLED = Failure("stalled", BACKEND, 504, NEVER, "The backend's answer stopped in its midst for too long.")

# Our own. A timeout over the whole exchange is nobody's in particular: it may have gone by in the queue, at
# several backends, or while the client was still sending.
NO_BACKENDS = Failure("no_backends", BALANCER, 503, NEVER, "The pool has no backends.")
NO_ELIGIBLE = Failure("no_eligible_backend", BALANCER, 503, NEVER, "No backend of the pool may be used now.")
AT_LIMIT = Failure("overloaded", BALANCER, 503, NEVER, "As many requests as may be are under way already.")
QUEUE_TIMEOUT = Failure("queue_timeout", BALANCER, 503, NEVER, "No backend became free in time.")
EXCHANGE_TIMEOUT = Failure("timeout", BALANCER, 504, NEVER, "The request as a whole took too long.")
LOGINS_BUSY = Failure("logins_busy", BALANCER, 503, NEVER, "Too many passwords are being checked already.")
TUNNEL_IDLE = Failure("tunnel_idle", BALANCER, 504, NEVER, "Nothing passed the tunnel for too long.")
LOOP = Failure("loop", BALANCER, 508, NEVER, "The request comes around again and again.")
SHUTTING_DOWN = Failure("shutting_down", BALANCER, 503, NEVER, "The balancer is shutting down.")
INTERNAL = Failure("internal", BALANCER, 500, NEVER, "The balancer failed; its log says more.")
