"""Models as the command line's JSON has them (docs/hubs.md); the hub's own answer is left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hubtool.hubs.hub import Found, Model, RemoteFile, Version

Row = dict[str, object]


def summary(model: Model) -> Row:
    """One result of a search."""
    return {
        "id": model.id or None,
        "name": model.name,
        "type": model.type,
        "creator": model.creator,
        "base_models": model.base_models,
        "downloads": model.downloads,
        "nsfw_level": model.nsfw_level,
        "tags": model.tags,
        "url": model.url,
        "versions": [_version(version) for version in model.versions],
    }


def details(found: Found) -> Row:
    """Everything about one model, and which version and files the SPEC names (default: the newest)."""
    model = found.model
    version = found.version or next(iter(model.versions), None)
    files = [found.file] if found.file else list(version.files) if version else []
    return {
        **summary(model),
        "mode": model.mode or None,
        "nsfw": model.nsfw,
        "description": model.description,
        "license": model.license,
        "version_id": (version.id or None) if version else None,
        "trigger_words": version.trigger_words if version else [],
        "files": _files(files),
        "images": version.images if version else [],
    }


def _version(version: Version) -> Row:
    return {
        "id": version.id or None,
        "name": version.name,
        "base_model": version.base_model,
        "published_at": version.published_at,
        "trigger_words": version.trigger_words,
        "description": version.description,
        "downloadable": version.downloadable,
        "files": _files(version.files),
    }


def _files(files: Iterable[RemoteFile]) -> list[Row]:
    return [
        {
            "id": file.id or None,
            "name": file.name,
            "type": file.type,
            "size_bytes": file.size_bytes,
            "format": file.format,
            "primary": file.primary,
            "sha256": file.sha256,
            "hashes": file.hashes,
            "scan": file.scan,
        }
        for file in files
    ]
