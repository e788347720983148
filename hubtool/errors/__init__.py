"""Every way hubtool fails.

```
HubtoolError                  str(error) is one sentence; .hint is the next thing to try; .code is stable
├─ UsageProblem               arguments that cannot be meant
├─ OutputExists       (path)  refused to overwrite
├─ MissingExtra               an optional package is needed
├─ StorageProblem     (path)  the disk said no: full, read-only, gone
├─ FileProblem        (path)  FileMissing · FolderMissing · NotRegularFile · BadHeader · TruncatedFile · UnsafePickle ·
│                             UnknownFormat
├─ NamingProblem      (key)   UnknownDialect · UnknownArchitecture · AmbiguousArchitecture · KeyClash
├─ AdapterProblem     (module) NotRepresentable · BrokenAdapter · NotAnAdapter · NonFinite · IncompatibleAdapters
├─ CheckpointProblem  (path)  IncompatibleCheckpoints
├─ HubProblem         (url)   NotFound · NeedsToken · Forbidden · EarlyAccess · RateLimited · NetworkFailure · BadAnswer ·
│                             HashMismatch · WrongFile · Offline · BrowserNeeded · AmbiguousSpec · BadSpec ·
│                             UnsafeAddress
└─ LibraryProblem     (name)  NameTaken · NotInstalled · NotWanted · AmbiguousName · LockProblem · ContentChanged
```

`code` is what JSON carries; `hubtool.cli._errors` maps it to an exit code and the docs list both.
"""

from __future__ import annotations

from hubtool.errors.adapters import (
    AdapterProblem,
    BrokenAdapter,
    CheckpointProblem,
    IncompatibleAdapters,
    IncompatibleCheckpoints,
    NonFinite,
    NotAnAdapter,
    NotRepresentable,
)
from hubtool.errors.base import DiskFull, HubtoolError, MissingExtra, OutputExists, StorageProblem, UsageProblem
from hubtool.errors.files import (
    BadHeader,
    FileMissing,
    FileProblem,
    FolderMissing,
    NotRegularFile,
    TruncatedFile,
    UnknownFormat,
    UnsafePickle,
)
from hubtool.errors.hubs import (
    AmbiguousSpec,
    BadAnswer,
    BadSpec,
    BrowserNeeded,
    EarlyAccess,
    Forbidden,
    HashMismatch,
    HubProblem,
    NeedsToken,
    NetworkFailure,
    NotFound,
    Offline,
    RateLimited,
    UnsafeAddress,
    UnsafeFile,
    WrongFile,
)
from hubtool.errors.library import (
    AmbiguousName,
    ContentChanged,
    LibraryProblem,
    LockProblem,
    NameTaken,
    NotInstalled,
    NotWanted,
)
from hubtool.errors.naming import AmbiguousArchitecture, KeyClash, NamingProblem, UnknownArchitecture, UnknownDialect

__all__ = [
    "AdapterProblem",
    "AmbiguousArchitecture",
    "AmbiguousName",
    "AmbiguousSpec",
    "BadAnswer",
    "BadHeader",
    "BadSpec",
    "BrokenAdapter",
    "BrowserNeeded",
    "CheckpointProblem",
    "ContentChanged",
    "DiskFull",
    "EarlyAccess",
    "FileMissing",
    "FileProblem",
    "FolderMissing",
    "Forbidden",
    "HashMismatch",
    "HubProblem",
    "HubtoolError",
    "IncompatibleAdapters",
    "IncompatibleCheckpoints",
    "KeyClash",
    "LibraryProblem",
    "LockProblem",
    "MissingExtra",
    "NameTaken",
    "NamingProblem",
    "NeedsToken",
    "NetworkFailure",
    "NonFinite",
    "NotAnAdapter",
    "NotFound",
    "NotInstalled",
    "NotRegularFile",
    "NotRepresentable",
    "NotWanted",
    "Offline",
    "OutputExists",
    "RateLimited",
    "StorageProblem",
    "TruncatedFile",
    "UnknownArchitecture",
    "UnknownDialect",
    "UnknownFormat",
    "UnsafeAddress",
    "UnsafeFile",
    "UnsafePickle",
    "UsageProblem",
    "WrongFile",
]
