"""Requests: no secret goes astray, failures that may pass are repeated within bounds, the others say what to do."""

from __future__ import annotations

import email.utils
import gzip
import logging
import time
import traceback

import pytest

from tests.downloads.conftest import answer, file, redirect
from tfloader.downloads import web
from tfloader.downloads.web import ATTEMPTS, LONGEST_WAIT, REDIRECTS, TemporaryError, Web, shown
from tfloader.errors import DownloadError

SECRETS = ("hf_topsecret", "proxypassword", "signedkey", "userpassword")


def refused(function, *arguments, **options) -> str:
    """The message of the DownloadError; neither it nor its traceback gives a secret away."""
    with pytest.raises(DownloadError) as caught:
        function(*arguments, **options)
    everything = "".join(traceback.format_exception(caught.value))
    assert not [secret for secret in SECRETS if secret in everything], everything
    return str(caught.value)


def test_the_log_of_requests_is_on_in_these_tests(site, log):
    site.pages["/a"] = answer(200, b"{}")
    Web().json(f"{site.address}/a?key=signedkey")
    assert '"GET /a?... HTTP/1.1" 200' in log.text


@pytest.fixture(autouse=True)
def log(caplog):
    """Nobody logs a secret, not even when told to log everything."""
    caplog.set_level(logging.DEBUG)
    yield caplog
    assert not [secret for secret in SECRETS if secret in caplog.text]


def content(client: Web, url: str) -> bytes:
    with client.get(url) as response:
        return b"".join(web.body(response))


# ---- secrets


def test_the_token_goes_to_its_origin_and_to_no_other(site, other_site):
    site.pages["/a"] = redirect("/b")
    site.pages["/b"] = redirect(f"{other_site.address}/c")
    other_site.pages["/c"] = redirect(f"{site.address}/d")
    site.pages["/d"] = answer(200, b"there")
    assert content(Web("hf_topsecret", site.address), f"{site.address}/a") == b"there"
    assert site.asked("Authorization") == ["Bearer hf_topsecret"] * 3
    assert other_site.asked("Authorization") == [None]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1.nip.io"])
def test_another_name_of_the_host_is_another_host(host, site, monkeypatch):
    import socket

    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda name, *rest, **more: real("127.0.0.1", *rest, **more))
    site.pages["/a"] = redirect(site.address.replace("127.0.0.1", host) + "/b")
    site.pages["/b"] = answer(200)
    content(Web("hf_topsecret", site.address), f"{site.address}/a")
    assert site.asked("Authorization") == ["Bearer hf_topsecret", None]


def test_cookies_are_not_kept(site, other_site):
    site.pages["/a"] = answer(302, Location="/b", Set_Cookie="session=userpassword; Path=/")
    site.pages["/b"] = redirect(f"{other_site.address}/c")
    other_site.pages["/c"] = answer(200)
    client = Web()
    content(client, f"{site.address}/a")
    content(client, f"{site.address}/a")
    assert site.asked("Cookie") == [None] * 4
    assert other_site.asked("Cookie") == [None] * 2


def test_a_netrc_file_is_not_used(site, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password userpassword\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    site.pages["/a"] = redirect("/b")
    site.pages["/b"] = answer(200)
    content(Web(), f"{site.address}/a")
    assert site.asked("Authorization") == [None, None]


def test_proxies_of_the_environment_are_used_and_get_no_more_than_their_own_password(site, other_site, monkeypatch):
    proxy = site
    monkeypatch.setenv("http_proxy", proxy.address.replace("//", "//me:proxypassword@"))
    proxy.pages["/a"] = answer(200, b"through the proxy")
    assert content(Web(), f"{other_site.address}/a?key=signedkey") == b"through the proxy"
    assert proxy.requests[0][0].startswith(f"{other_site.address}/a")
    assert proxy.asked("Proxy-Authorization")[0].startswith("Basic ")
    assert other_site.requests == []
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    other_site.pages["/a"] = answer(200, b"direct")
    assert content(Web(), f"{other_site.address}/a") == b"direct"
    assert other_site.asked("Proxy-Authorization") == [None]


def test_a_proxy_that_does_not_answer_is_named_without_its_password(monkeypatch, pauses):
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://me:proxypassword@127.0.0.1:1")
    for scheme in ("http", "https"):
        message = refused(Web(sleep=pauses.append).json, f"{scheme}://example.org/a?key=signedkey")
        assert f"{scheme}://example.org/a: the proxy cannot be reached or refuses" in message


def test_a_proxy_address_that_is_none_is_named_without_its_password(monkeypatch, pauses):
    monkeypatch.setenv("http_proxy", "nonsense://me:proxypassword@127.0.0.1:1:2")
    assert "proxy settings" in refused(Web(sleep=pauses.append).json, "http://example.org/a")


def test_messages_show_no_query(site, pauses):
    site.pages["/a"] = redirect("/b?key=signedkey")
    for status in (403, 404, 500):
        site.pages["/b"] = answer(status, b"signedkey")
        assert "/a: the server" in refused(Web(sleep=pauses.append).json, f"{site.address}/a?key=signedkey")


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("https://me:userpassword@host/a?b#c", "https://host/a"),
        ("https://host:80/a;p", "https://host:80/a;p"),
        ("https://[::1/a", "(a malformed address)"),
        ("nonsense", "nonsense"),
    ],
)
def test_what_is_shown_of_an_address(url, seen):
    assert shown(url) == seen


@pytest.mark.parametrize("token", ["hf_topsecret\nX: y", "hf_topsecret 2", "hf_topsecret\N{SNOWMAN}", ""])
def test_a_malformed_token_is_refused_and_not_shown(token):
    assert "malformed" in refused(Web, token, "https://example.org")


def test_a_token_is_not_sent_in_the_clear():
    assert "https only" in refused(Web, "hf_topsecret", "http://mirror.example.org")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://me:userpassword@127.0.0.1/a", "user name or password"),
        ("ftp://127.0.0.1/a", "https://"),
        ("file:///etc/passwd", "https://"),
        ("https:///a", "https://"),
        ("http://[::1/a", "malformed"),
        ("http://127.0.0.1:99999/a", "malformed"),
        ("nonsense", "https://"),
    ],
)
def test_what_is_no_address_is_refused(url, words, site):
    assert words in refused(Web().json, url)
    site.pages["/a"] = redirect(url)
    if "://" in url:
        refused(Web().json, f"{site.address}/a")
    assert len(site.requests) == ("://" in url)


# ---- redirects


class Answers:
    """Stands in for the network where a certificate would be needed."""

    def __init__(self, **locations):
        self.locations, self.asked = locations, []

    def __call__(self, url, headers):
        self.asked.append(url)
        response = type("Response", (), {"status_code": 302, "close": lambda self: None})()
        response.headers = {"Location": self.locations[url.rpartition("/")[2]]}
        return response


def test_a_redirect_from_https_to_http_is_refused(monkeypatch):
    client, answers = Web(), Answers(a="https://elsewhere.example/b", b="http://elsewhere.example/c")
    monkeypatch.setattr(client, "_ask", answers)
    assert "from https to http" in refused(client.json, "https://example.org/a")
    assert answers.asked == ["https://example.org/a", "https://elsewhere.example/b"]


def test_redirects_end(site):
    site.pages["/a"] = redirect("/a")
    assert f"more than {REDIRECTS} redirects" in refused(Web().json, f"{site.address}/a")
    assert len(site.requests) == REDIRECTS + 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_every_kind_of_redirect_is_followed(status, site):
    site.pages["/a"] = redirect("b?c", status)
    site.pages["/b"] = answer(200, b"there")
    assert content(Web(), f"{site.address}/a") == b"there"


# ---- failures

STATUSES = {
    # status: (requests made, words of the message)
    400: (1, "refuses the request (HTTP 400)"),
    401: (1, "wants a token"),
    403: (1, "accept its licence"),
    404: (1, "no such file"),
    410: (1, "any more"),
    418: (1, "refuses the request"),
    451: (1, "where you are"),
    408: (ATTEMPTS, "took too long"),
    429: (ATTEMPTS, "no more requests"),
    500: (ATTEMPTS, "has a fault (HTTP 500)"),
    502: (ATTEMPTS, "given up after"),
    503: (ATTEMPTS, "Try again later"),
    504: (ATTEMPTS, "HTTP 504"),
}


@pytest.mark.parametrize(("status", "outcome"), STATUSES.items())
def test_what_may_pass_is_repeated_and_what_will_not_is_not(status, outcome, site, pauses):
    requests, words = outcome
    site.pages["/a"] = answer(status)
    assert words in refused(Web(sleep=pauses.append).json, f"{site.address}/a")
    assert len(site.requests) == requests
    assert len(pauses) == requests - 1


def test_pauses_grow_and_are_bounded(site, pauses):
    site.pages["/a"] = answer(500)
    refused(Web(sleep=pauses.append).json, f"{site.address}/a")
    assert all(2**i / 2 <= pause <= 2**i for i, pause in enumerate(pauses))


def test_a_failure_that_passes_is_not_noticed(site, pauses):
    site.pages["/a"] = [answer(503), answer(429, Retry_After="3"), answer(200, b'{"a": 1}')]
    assert Web(sleep=pauses.append).json(f"{site.address}/a") == {"a": 1}
    assert pauses[1] == 3


def test_retry_after_is_honoured_as_a_date(site, pauses):
    date = email.utils.formatdate(time.time() + 100, usegmt=True)
    site.pages["/a"] = [answer(503, Retry_After=date), answer(200, b"{}")]
    Web(sleep=pauses.append).json(f"{site.address}/a")
    assert 0 <= pauses[0] <= 100


@pytest.mark.parametrize("value", ["Fri, 31 Dec 1999 23:59:59 GMT", "0"])
def test_retry_after_that_is_over_means_at_once(value, site, pauses):
    site.pages["/a"] = [answer(503, Retry_After=value), answer(200, b"{}")]
    Web(sleep=pauses.append).json(f"{site.address}/a")
    assert pauses == [0]


@pytest.mark.parametrize("value", ["", "soon", "-5", "1e9", "\xb2"])
def test_retry_after_that_says_nothing_is_as_none(value, site, pauses):
    site.pages["/a"] = [answer(503, Retry_After=value), answer(200, b"{}")]
    Web(sleep=pauses.append).json(f"{site.address}/a")
    assert 0.5 <= pauses[0] <= 1


def test_whoever_asks_to_wait_too_long_is_not_waited_for(site, pauses):
    site.pages["/a"] = answer(429, Retry_After=str(LONGEST_WAIT + 1))
    assert f"asks to wait {LONGEST_WAIT + 1} seconds" in refused(Web(sleep=pauses.append).json, f"{site.address}/a")
    assert pauses == []


def test_a_server_that_is_not_there_is_named(pauses):
    assert "cannot be reached" in refused(Web(sleep=pauses.append).json, "http://127.0.0.1:1/a")
    assert len(pauses) == ATTEMPTS - 1


def test_a_server_that_says_nothing_is_not_waited_for_forever(site, pauses, monkeypatch):
    import threading

    monkeypatch.setattr(web, "TIMEOUT", (5, 0.05))
    over = threading.Event()
    site.pages["/a"] = [lambda request: over.wait(60), answer(200, b"{}")]
    assert Web(sleep=pauses.append).json(f"{site.address}/a") == {}
    over.set()
    assert len(pauses) == 1


def test_a_body_that_breaks_is_a_failure_that_may_pass(site):
    site.pages["/a"] = file(bytes(1000), cut=500)
    with pytest.raises(TemporaryError):
        content(Web(), f"{site.address}/a")


@pytest.mark.parametrize(
    ("data", "words"), [(b"[]", "JSON list"), (b"<html>", "not valid JSON"), (b'{"a": 1, "a": 2}', "more than once")]
)
def test_a_listing_that_is_no_json_object_is_refused(data, words, site):
    site.pages["/a"] = answer(200, data)
    assert words in refused(Web().json, f"{site.address}/a")


def test_a_listing_may_be_compressed(site):
    site.pages["/a"] = answer(200, gzip.compress(b'{"a": 1}'), Content_Encoding="gzip")
    assert Web().json(f"{site.address}/a") == {"a": 1}


def test_a_listing_without_end_is_refused(site, monkeypatch):
    monkeypatch.setattr(web, "LONGEST_LISTING", 1000)
    site.pages["/a"] = answer(200, b'{"a": "' + bytes(2000))
    assert "more than 1000 bytes" in refused(Web().json, f"{site.address}/a")
