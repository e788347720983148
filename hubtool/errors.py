"""Every way hubtool fails.

```
HubtoolError                  str(error) is one sentence; .hint is the next thing to try; .code is stable
├─ UsageProblem               arguments that cannot be meant
├─ OutputExists       (path)  refused to overwrite
├─ MissingExtra               an optional package is needed
├─ StorageProblem     (path)  the disk said no: full, read-only, gone
├─ FileProblem        (path)  FileMissing · NotRegularFile · BadHeader · TruncatedFile · UnsafePickle · UnknownFormat
├─ NamingProblem      (key)   UnknownDialect · UnknownArchitecture · AmbiguousArchitecture · KeyClash
├─ AdapterProblem     (module) NotRepresentable · BrokenAdapter · NotAnAdapter · NonFinite
├─ CheckpointProblem  (path)  IncompatibleCheckpoints
├─ HubProblem         (url)   NotFound · NeedsToken · Forbidden · EarlyAccess · RateLimited · NetworkFailure · BadAnswer ·
│                             HashMismatch · WrongFile · Offline · AmbiguousSpec · BadSpec · UnsafeAddress
└─ LibraryProblem     (name)  NameTaken
```

`code` is what JSON carries; `hubtool.cli._errors` maps it to an exit code and the docs list both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class HubtoolError(Exception):
    """Anything hubtool refuses or fails to do, as one sentence."""

    code: ClassVar[str] = "error"
    hint: str = ""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        if hint is not None:
            self.hint = hint


class UsageProblem(HubtoolError):
    """The arguments contradict each other or cannot be meant."""

    code = "usage"
    hint = "See `hubtool COMMAND --help`."


class OutputExists(HubtoolError):
    """The output is already there and `--force` was not given."""

    code = "exists"
    hint = "Use `--force` to replace it, or choose another name with `-o`."

    def __init__(self, path: Path) -> None:
        super().__init__(f"The output exists: {path}")
        self.path = path


class MissingExtra(HubtoolError):
    """An optional package is not installed."""

    code = "missing_extra"

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package}, which is not installed.",
            hint=f"Install it with `pip install 'hubtool[{extra}]'`.",
        )
        self.package = package


class StorageProblem(HubtoolError):
    """The disk refused: full, read-only, vanished."""

    code = "storage"
    hint = "Check free space and permissions, then run the command again."

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: {reason}.")
        self.path = path


class DiskFull(StorageProblem):
    """No space left for the output."""

    code = "disk_full"
    hint = "Free some space or choose another folder, then run the command again."


# ---------------------------------------------------------------- files


class FileProblem(HubtoolError):
    """A file on disk is not usable; `path` says which."""

    code = "file"

    def __init__(self, path: Path | str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.path = path


class FileMissing(FileProblem):
    """There is nothing at this path (a dangling link counts as nothing)."""

    code = "file_not_found"
    hint = "Check the path; `hubtool list` shows what is installed."


class NotRegularFile(FileProblem):
    """A folder, pipe, device or socket where a file was expected."""

    code = "not_a_file"
    hint = "Name a regular file."


class BadHeader(FileProblem):
    """The safetensors header breaks a rule of the specification; `rule` names it."""

    code = "broken_file"
    hint = "The file is damaged or was not written by a correct tool: download or export it again."

    def __init__(self, path: Path | str, message: str, *, rule: str = "E_HEADER_JSON", key: str = "") -> None:
        super().__init__(path, message)
        self.rule, self.key = rule, key


class TruncatedFile(BadHeader):
    """The file ends before its header says it should."""

    code = "truncated_file"
    hint = "The download was interrupted: fetch the file again."


class UnsafePickle(FileProblem):
    """A pickle, which can run code when loaded."""

    code = "unsafe_file"
    hint = "Ask the author for a .safetensors file."


class UnknownFormat(FileProblem):
    """The bytes are something else than the name says; `rule` names what."""

    code = "unsafe_file"
    hint = "Download it again from its page."

    def __init__(self, path: Path | str, message: str, *, rule: str = "E_NOT_SAFETENSORS") -> None:
        super().__init__(path, message)
        self.rule = rule


# ---------------------------------------------------------------- naming


class NamingProblem(HubtoolError):
    """A name (dialect, architecture, key) cannot be understood or spelt."""

    code = "naming"


class UnknownDialect(NamingProblem):
    """No dialect has this id, or none explains the file."""

    code = "unknown_dialect"


class UnknownArchitecture(NamingProblem):
    """No architecture has this id, or none explains the file."""

    code = "unknown_architecture"


class AmbiguousArchitecture(NamingProblem):
    """Several architectures explain the file and the answer would differ."""

    code = "ambiguous"

    def __init__(self, candidates: Sequence[str]) -> None:
        super().__init__(
            f"The keys fit several architectures: {', '.join(candidates)}.",
            hint="Choose one with `--architecture`.",
        )
        self.candidates = tuple(candidates)


class KeyClash(NamingProblem):
    """Two tensors would get the same key."""

    code = "key_clash"


# ---------------------------------------------------------------- adapters and checkpoints


class AdapterProblem(HubtoolError):
    """An adapter's tensors do not make sense; `module` says where."""

    code = "adapter"

    def __init__(self, module: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.module = module


class BrokenAdapter(AdapterProblem):
    """Tensors of a module are missing, or do not go together."""

    code = "broken_adapter"
    hint = "Run `hubtool validate` on the file for every problem at once."


class NotRepresentable(AdapterProblem):
    """The target dialect has no spelling for this."""

    code = "not_convertible"


class NotAnAdapter(AdapterProblem):
    """The file is no LoRA-family file."""

    code = "not_an_adapter"


class NonFinite(AdapterProblem):
    """NaN or infinity among the values."""

    code = "non_finite"
    hint = "The file was saved from a training or merge that diverged; use an earlier epoch or another file."


class CheckpointProblem(HubtoolError):
    """A checkpoint cannot be used; `path` says which."""

    code = "checkpoint"

    def __init__(self, path: Path | str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.path = path


class IncompatibleCheckpoints(CheckpointProblem):
    """The two checkpoints are not of the same architecture, or share no changed module."""

    code = "incompatible_checkpoints"
    hint = "Give the base model that the tuned one was trained from."


# ---------------------------------------------------------------- hubs


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
    hint = "Create an API key on the hub's account page and set HUBTOOL_TOKEN to it."


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


# ---------------------------------------------------------------- library


class LibraryProblem(HubtoolError):
    """Something about the user's own collection; `name` says what."""

    code = "library"

    def __init__(self, name: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.name = name


class NameTaken(LibraryProblem):
    """Another file already has this name in the target folder."""

    code = "exists"
    hint = "Install it under another name with `--name`."
