"""HTTP requests, made so that no secret reaches another host, a log or an error message.

Redirects are followed here and not by requests: each hop is a request of its own, which carries the token only to
the origin that the token is meant for. Cookies and .netrc are not used. Messages show addresses without their
query, where signed links keep their keys, and never the text of a network exception, which quotes them; urllib3's
debug log loses the queries too.
"""

from __future__ import annotations

import email.utils
import logging
import random
import re
import time
from collections.abc import Callable, Collection, Iterator
from http.cookiejar import DefaultCookiePolicy
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

from tfloader import __version__
from tfloader.errors import DownloadError
from tfloader.files import parse_json

T = TypeVar("T")

ATTEMPTS = 6
LONGEST_WAIT = 120  # seconds; whoever asks for more is answered with an error
TIMEOUT = (15, 60)  # seconds to connect, and between two pieces of an answer
REDIRECTS = 10
LONGEST_LISTING = 16 * 1024 * 1024
PROGRESS = 1 << 20  # bytes after which earlier failures are forgotten
PIECE = 1 << 16  # bytes; at most so many are lost when a connection breaks

TEMPORARY = {408: "took too long", 425: "is not ready", 429: "allows no more requests for now"}
FINAL = {
    401: "wants a token. If the model is gated, accept its licence on its page, then give your token (HF_TOKEN, or "
    "--token-file); a name that does not exist is answered in the same way",
    403: "refuses access. If the model is gated, accept its licence on its page, then give your token",
    404: "has no such file or repository. Check the name and its spelling",
    410: "does not publish this any more",
    451: "may not publish this where you are",
}


class TemporaryError(Exception):
    """A request failed, and another attempt may succeed; `wait` is how many seconds the server asks for."""

    def __init__(self, reason: str, wait: float | None = None):
        super().__init__(reason)
        self.wait = wait


class Web:
    """Makes requests, and repeats those whose failure may be temporary.

    Args:
        token: sent as a bearer token to `origin` and to no other.
        origin: such as "https://huggingface.co".
        sleep: called with the seconds to wait before another attempt.
    """

    def __init__(self, token: str | None = None, origin: str = "", sleep: Callable[[float], None] = time.sleep):
        import requests
        from requests.cookies import RequestsCookieJar

        self._token, self._origin = token, None
        if token is not None:
            if not (token.isascii() and token.isprintable() and token) or " " in token:
                raise DownloadError("The token is malformed: it must be one word of ASCII characters.")
            scheme, host, _ = self._origin = _origin(origin)
            if scheme != "https" and host not in ("localhost", "127.0.0.1", "::1"):
                raise DownloadError(f"{shown(origin)}: a token is sent over https only. Use an https address.")
        self._sleep = sleep
        self._session = requests.Session()
        self._session.cookies = RequestsCookieJar(policy=DefaultCookiePolicy(allowed_domains=[]))
        logging.getLogger("urllib3.connectionpool").addFilter(_without_queries)

    def get(self, url: str, headers: dict[str, str] | None = None, also: Collection[int] = ()) -> Any:
        """The streamed answer (a context manager) with status 200, 206 or one of `also`, after all redirects.

        Raises:
            TemporaryError: another attempt may succeed.
            DownloadError: it would not.
        """
        response = self._follow(url, headers or {})
        status = response.status_code
        if status in (200, 206, *also):
            return response
        wait = _retry_after(response.headers.get("Retry-After", ""))
        response.close()
        if status in TEMPORARY or status >= 500:
            raise TemporaryError(f"the server {TEMPORARY.get(status, 'has a fault')} (HTTP {status})", wait)
        reason = FINAL.get(status, "refuses the request")
        raise DownloadError(f"{shown(url)}: the server {reason} (HTTP {status}).")

    def json(self, url: str) -> dict[str, Any]:
        """The JSON object at an address, which must be small."""

        def attempt() -> bytes:
            with self.get(url) as response:
                data = b""
                for chunk in body(response):
                    data += chunk
                    if len(data) > LONGEST_LISTING:
                        raise DownloadError(f"{shown(url)}: the answer has more than {LONGEST_LISTING} bytes.")
                return data

        return parse_json(self.retry(url, attempt), shown(url), DownloadError)

    def retry(self, url: str, attempt: Callable[[], T], progress: Callable[[], int] = lambda: 0) -> T:
        """The result of `attempt`, which is repeated with growing pauses while its failures are temporary.

        After `ATTEMPTS` failures in a row it is given up; a failure after progress starts a new row.

        Args:
            progress: how many bytes there are that another attempt can build on.
        """
        failures, reached = 0, progress()
        while True:
            try:
                return attempt()
            except TemporaryError as failure:
                now = progress()
                failures = 1 if now >= reached + PROGRESS else failures + 1
                reached = max(reached, now)
                usual = min(2.0 ** (failures - 1), 30) * random.uniform(0.5, 1)
                pause = usual if failure.wait is None else failure.wait
                if pause > LONGEST_WAIT:
                    reason = f"{failure} and asks to wait {pause:.0f} seconds. Try again after that time"
                elif failures >= ATTEMPTS:
                    reason = f"{failure}; given up after {failures} attempts. Try again later"
                else:
                    self._sleep(pause)
                    continue
            kept = " What has come so far is kept and will be built on." if now else ""
            raise DownloadError(f"{shown(url)}: {reason}.{kept}")

    def _follow(self, url: str, headers: dict[str, str]) -> Any:
        first = url
        for _ in range(REDIRECTS + 1):
            check_address(url)
            response = self._ask(url, headers)
            if response.status_code not in (301, 302, 303, 307, 308):
                return response
            target = response.headers.get("Location", "")
            response.close()
            try:
                target = urljoin(url, target)
                downgraded = urlsplit(url).scheme == "https" and urlsplit(target).scheme == "http"
            except ValueError:
                raise DownloadError(f"{shown(url)}: the server redirects to something that is no address.") from None
            if downgraded:
                raise DownloadError(f"{shown(url)}: the server redirects from https to http, which is not safe.")
            url = target
        raise DownloadError(f"{shown(first)}: more than {REDIRECTS} redirects.")

    def _ask(self, url: str, headers: dict[str, str]) -> Any:
        import requests

        own = {"User-Agent": f"tfloader/{__version__}", "Accept-Encoding": "identity"}
        if self._token and _origin(url) == self._origin:
            own["Authorization"] = f"Bearer {self._token}"
        options: dict[str, Any] = {"stream": True, "allow_redirects": False, "timeout": TIMEOUT}
        try:
            return self._session.get(url, headers=own | headers, auth=lambda request: request, **options)  # no .netrc
        except requests.exceptions.SSLError:
            reason = "no secure connection: the certificate of the server or proxy cannot be verified"
        except requests.exceptions.ProxyError:
            raise TemporaryError("the proxy cannot be reached or refuses") from None
        except (requests.exceptions.ConnectionError, requests.exceptions.Timeout):
            raise TemporaryError("the server cannot be reached") from None
        except (OSError, ValueError) as error:  # what requests raises is an OSError
            reason = f"the request cannot be made ({type(error).__name__}). Check the address and the proxy settings"
        raise DownloadError(f"{shown(url)}: {reason}.")


def body(response: Any) -> Iterator[bytes]:
    """The pieces of an answer; a connection that breaks is a `TemporaryError`."""
    pieces = response.iter_content(PIECE)
    length, come = "" if is_compressed(response) else response.headers.get("Content-Length", ""), 0
    while True:
        try:
            piece = next(pieces, None)
        except (OSError, ValueError):  # what requests raises is an OSError
            raise TemporaryError("the connection broke") from None
        if piece is None:
            if length.isdecimal() and come < int(length[:18]):  # urllib3 1 does not mind
                raise TemporaryError("the connection broke")
            return
        come += len(piece)
        yield piece


def is_compressed(response: Any) -> bool:
    """Whether the pieces are not the bytes that were sent."""
    return response.headers.get("Content-Encoding", "").lower() not in ("identity", "")


def check_address(url: str) -> None:
    """Refuses what is no http(s) address of a host, and user names and passwords in it."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 (raises if it is none)
    except ValueError:
        raise DownloadError("The address is malformed: expected https://host/path.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise DownloadError(f"{shown(url)}: expected an address that begins with https:// or http://.")
    if "@" in parts.netloc:
        raise DownloadError(
            f"{shown(url)}: a user name or password in an address ends up in logs. Leave it out; a token can be given."
        )


def shown(url: str) -> str:
    """An address as messages show it: without user, password, query and fragment."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "(a malformed address)"
    return f"{parts.scheme}://{host}{parts.path}"[:300] if parts.scheme else parts.path[:300]


def _origin(url: str) -> tuple[str, str | None, int | None]:
    check_address(url)
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}[parts.scheme]


def _retry_after(value: str) -> float | None:
    """Seconds, from a number of them or from a date."""
    if value.strip().isascii() and value.strip().isdigit():
        return float(value[:20])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None


def _without_queries(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(re.sub(r"\?.*", "?...", item) if isinstance(item, str) else item for item in record.args)
    return True
