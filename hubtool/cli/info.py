"""`hubtool info`: everything a hub says about one model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hubtool.cli._context import HubtoolCommand, current_run
from hubtool.cli._output import answer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hubtool.hubs.hub import Found, License, Nsfw, PreviewImage, Version


@click.command(cls=HubtoolCommand)
@click.argument("spec")
@click.option(
    "--images", "count", type=click.IntRange(0, 1000), default=0, metavar="N", help="Also N pictures made with it."
)
@click.option(
    "--nsfw",
    type=click.Choice(["none", "soft", "mature", "all"]),
    default="none",
    help="The most explicit picture to list.",
)
def command(spec: str, *, count: int, nsfw: Nsfw) -> None:
    """Show what a hub says about a model, a version or a file. With --offline, what it said last.

    \b
    hubtool info 120096
    hubtool info https://civitai.com/models/120096?modelVersionId=135931
    hubtool info sha256:3F1A… --json
    hubtool info hf:owner/repo
    hubtool info ./style.safetensors --images 10
    """
    from hubtool.hubs.opening import open_hub
    from hubtool.hubs.rows import details

    hub = open_hub(current_run().settings())
    found = hub.find(spec)
    gallery = hub.pictures(found, nsfw, count) if count else []
    answer(details(found) | {"gallery": gallery}, lambda: "\n".join([*_lines(found), *map(_picture, gallery)]))


def _picture(image: PreviewImage) -> str:
    return f"  {image.type} {image.width or '?'}×{image.height or '?'}  {image.url}"


def _lines(found: Found) -> Iterator[str]:
    model = found.model
    yield f"{model.name}  ({model.type} {model.id}{f', {model.mode}' if model.mode else ''})"
    yield model.url
    creator = f"by {model.creator}, " if model.creator else ""
    yield f"{creator}{'unknown' if model.downloads is None else model.downloads} downloads, tags: {', '.join(model.tags)}"
    yield from _license_lines(model.license)
    for version in [found.version] if found.version else model.versions:
        yield from _version_lines(version)
    if model.description:
        yield ""
        yield model.description


def _license_lines(license: License) -> Iterator[str]:
    if license.name:
        yield f"license: {license.name}"
    if license.allow_commercial_use or license.allow_derivatives is not None:
        uses = ", ".join(license.allow_commercial_use) or "none"
        yield f"commercial use: {uses}; derivatives: {_allowed(license.allow_derivatives)}"


def _version_lines(version: Version) -> Iterator[str]:
    yield ""
    yield f"{version.name}  ({_id_of(version)}, {version.base_model}, {(version.published_at or '')[:10]})"
    if version.trigger_words:
        yield f"  trigger words: {' | '.join(version.trigger_words)}"
    for file in version.files:
        size = "unknown size" if file.size_bytes is None else f"{file.size_bytes / 1e6:.1f} MB"
        mark = "*" if file.primary else " "
        yield f"  {mark} {file.name}  ({file.id}, {file.format or file.type}, {size}, sha256 {file.sha256 or 'not published'})"


def _id_of(version: Version) -> str:
    """As a SPEC where it is a number; of a commit, its beginning."""
    return f"v:{version.id}" if str(version.id).isdigit() else str(version.id)[:10]


def _allowed(value: bool | None) -> str:  # noqa: FBT001  # the value that is shown
    return "unknown" if value is None else "yes" if value else "no"
