"""Why a server over HTTP has not answered, in words for people."""

from __future__ import annotations

import os
import socket
import ssl

import aiohttp


def in_words(error: BaseException) -> str:
    """Short, and the same for the same trouble: only what is new goes to the log."""
    if isinstance(error, aiohttp.ClientConnectorDNSError | socket.gaierror):
        return "its name can't be resolved"
    cause = getattr(error, "certificate_error", error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {cause.verify_message}"
    number = getattr(error, "errno", None)
    if (
        isinstance(number, int)
        and number > 0
        and not isinstance(error, ssl.SSLError | aiohttp.ClientSSLError)
    ):
        return os.strerror(number).lower()
    return str(error) or type(error).__name__
