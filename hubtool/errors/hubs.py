"""Hubs and transfers."""

from __future__ import annotations

from hubtool.errors.base import HubtoolError


class HubProblem(HubtoolError):
    """A hub said no, or nothing sensible; `url` never carries a secret."""

    code = "hub"

    def __init__(self, message: str, *, url: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.url = url


class NotFound(HubProblem):
    """The hub has no such model, version or file (or it was archived or taken down)."""

    code = "not_found"
    hint = "Check the id; `hubtool search` finds models by name."


class NeedsToken(HubProblem):
    """The hub wants a login."""

    code = "needs_token"
    hint = "Create an API key on the hub's account page, then run `hubtool login`, or set HUBTOOL_TOKEN to it."


class Forbidden(HubProblem):
    """The hub knows who asks and still refuses (downloads disabled, no permission, region)."""

    code = "forbidden"
    hint = "The file cannot be downloaded with this account."


class EarlyAccess(HubProblem):
    """The version is still paid; `deadline` is ISO 8601 or empty."""

    code = "early_access"

    def __init__(self, message: str, *, url: str = "", deadline: str = "") -> None:
        hint = (
            f"It becomes free at {deadline}."
            if deadline
            else "Buy access on the model's page, or take another version."
        )
        super().__init__(message, url=url, hint=hint)
        self.deadline = deadline


class RateLimited(HubProblem):
    """Too many requests; `retry_after_s` as the hub stated it, or None."""

    code = "rate_limited"

    def __init__(self, message: str, *, url: str = "", retry_after_s: float | None = None) -> None:
        hint = "Wait a while before trying again."
        if retry_after_s is not None:
            hint = f"Try again in {retry_after_s:.0f} s."
        super().__init__(message, url=url, hint=hint)
        self.retry_after_s = retry_after_s


class NetworkFailure(HubProblem):
    """No connection, a stall, or a server error that outlasted the retries."""

    code = "network"
    hint = "Check the connection and run the command again; what was fetched is kept."


class BadAnswer(HubProblem):
    """The hub answered with something that is not its API."""

    code = "bad_answer"
    hint = "The hub may be overloaded or the address wrong; try again later."


class HashMismatch(HubProblem):
    """A download does not have the checksum or the size the hub promised."""

    code = "hash_mismatch"
    hint = "The partial file was removed; run the command again, and report the file to the hub if it persists."


class WrongFile(HubProblem):
    """The bytes are a web page, an archive, a pickle: not the file that was asked for."""

    code = "wrong_file"
    hint = "Open the model's page in a browser to see what it offers."


class UnsafeFile(HubProblem):
    """The file offered is of a kind that is never fetched (a pickle)."""

    code = "unsafe_file"
    hint = "Choose a .safetensors file of this version with `--file`."


class Offline(HubProblem):
    """`--offline` was given and the answer is not at hand."""

    code = "offline"
    hint = "Run without `--offline`."


class BrowserNeeded(HubProblem):
    """The host hands its files to people in front of a browser only, or has deleted them."""

    code = "browser_needed"
    hint = "Fetch it by hand, then install the file from your disk."


class AmbiguousSpec(HubProblem):
    """The SPEC can mean several things."""

    code = "ambiguous"


class BadSpec(HubProblem):
    """The SPEC follows no known form."""

    code = "usage"
    hint = "A SPEC is a model page URL, ID, ID@VERSION, v:VERSION, urn:air:…, or sha256:HEX."


class UnsafeAddress(HubProblem):
    """An answer points where it must not: loopback, private network, another scheme."""

    code = "unsafe_address"
    hint = "The hub's answer was refused for your safety."
