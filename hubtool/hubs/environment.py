"""The HTTP library set up with what the environment says: proxies and trusted certificates. `netrc` is not read.

httpx has its own reading of HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE and SSL_CERT_DIR, and that counts;
here its complaints about them become sentences.
"""

from __future__ import annotations

import os
import ssl
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

from hubtool.errors import MissingExtra, UsageProblem

CONNECT_S = 10.0


def open_http(timeout_s: float, *, proxies: bool) -> httpx.Client:
    """A client that follows no redirect, keeps no connection and no cookie; `proxies` says whether to use the environment's.

    Raises:
        UsageProblem: a variable names no proxy, or no certificates.
        MissingExtra: a SOCKS proxy, and the package for it is not installed.
    """
    try:
        return httpx.Client(
            timeout=httpx.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s)),
            # a fresh connection each time: its socket is known, and none that the server closed meanwhile is reused
            limits=httpx.Limits(max_keepalive_connections=0),
            trust_env=proxies,
            follow_redirects=False,
            verify=_trusted(os.environ.get("SSL_CERT_FILE", ""), os.environ.get("SSL_CERT_DIR", "")),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )
    except ImportError as error:
        raise MissingExtra("socksio", "socks", "A SOCKS proxy") from error
    except (ValueError, httpx.InvalidURL):
        # neither the value nor what httpx says of it is quoted: they may hold a password
        names = ", ".join(name for name in sorted(os.environ) if name.lower().endswith("_proxy") and os.environ[name])
        hint = "Write http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT."
        raise UsageProblem(f"One of these variables names no proxy: {names}.", hint=hint) from None


@cache
def _trusted(file: str, folder: str) -> ssl.SSLContext:
    """The certificates to trust, read once: 70 ms. The arguments are what httpx reads from the environment.

    Raises:
        UsageProblem: SSL_CERT_FILE or SSL_CERT_DIR names none.
    """
    try:
        return httpx.create_ssl_context()
    except (OSError, ssl.SSLError) as error:
        name = "SSL_CERT_FILE" if file else "SSL_CERT_DIR"
        message = f"{name} names no certificates that can be read: {file or folder}"
        raise UsageProblem(message, hint=f"Correct or unset {name}.") from error
