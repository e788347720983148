"""Hugging Face: repositories of files, of which some are LoRAs.

- A repository is pinned to the commit that its branch points to now; the same commit always holds the same bytes.
- Large files carry their SHA-256 (the id of the LFS object); the file's address redirects to a content network.
- What a file is, only its safetensors header says: it is read by a range request, so that a checkpoint of gigabytes is never
  fetched in the belief that it is a LoRA. A file that the user named is fetched whatever it is.
- The catalogue is plain JSON and the transfer ours; why not `huggingface_hub`'s and Xet's, docs/hubs.md says. Files that are
  stored in chunks (Xet) come through the bridge that answers ordinary requests.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, urlsplit

from hubtool.errors import AmbiguousSpec, BadSpec, UsageProblem, WrongFile
from hubtool.hubs import huggingface_models as wire
from hubtool.hubs.filters import ordered, suits
from hubtool.hubs.hub import LORA_TYPES, Found, License, Model, RemoteFile, SearchPage, Version, choose_file
from hubtool.hubs.remote import Remote
from hubtool.hubs.remote_header import is_adapter
from hubtool.hubs.spec import ByRepository
from hubtool.hubs.tolerant import read, record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hubtool.hubs.hub import Query
    from hubtool.hubs.spec import Spec

MAX_PAGES = 10  # of one search
_START, _END = "0", "-"  # a search that has not begun, or is at its end, among the cursors of several
MAX_PROBED = 8  # files whose headers are read to find the LoRA among them
_SORTS = {"downloads": "downloads", "newest": "createdAt", "rating": "likes", "relevance": "downloads"}
_WEIGHTS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".zip", ".gguf")
#: Parts of whole pipelines, and shards.
_NOT_LORA = re.compile(
    r"(^|/)(unet|text_encoder(_\d)?|vae|transformer|tokenizer|scheduler)/|-\d{5}-of-\d{5}\.", re.IGNORECASE
)
#: What tools call every file; the repository's name says more.
_GENERIC = re.compile(r"(pytorch_lora_weights|adapter_model|diffusion_pytorch_model|model|lora|weights)\.safetensors")
#: Civitai's names of base models → what adapters on Hugging Face declare.
_BASES = {
    "sd 1.5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "sd 2.1": "stabilityai/stable-diffusion-2-1",
    "sdxl 1.0": "stabilityai/stable-diffusion-xl-base-1.0",
    "sd 3.5 large": "stabilityai/stable-diffusion-3.5-large",
    "sd 3.5 medium": "stabilityai/stable-diffusion-3.5-medium",
    "flux.1 d": "black-forest-labs/FLUX.1-dev",
    "flux.1 s": "black-forest-labs/FLUX.1-schnell",
    "flux.1 kontext": "black-forest-labs/FLUX.1-Kontext-dev",
    "flux.2 d": "black-forest-labs/FLUX.2-dev",
    "qwen": "Qwen/Qwen-Image",
    "zimageturbo": "Tongyi-MAI/Z-Image-Turbo",
    "wan video 2.2 t2v-a14b": "Wan-AI/Wan2.2-T2V-A14B",
    "wan video 2.2 i2v-a14b": "Wan-AI/Wan2.2-I2V-A14B",
    "illustrious": "OnomaAIResearch/Illustrious-xl-early-release-v0",
}


class HuggingFace(Remote):
    """`Catalogue` over the API of huggingface.co, or of a mirror that HF_ENDPOINT names."""

    def search(self, query: Query) -> SearchPage:
        """LoRAs for image and video models, by text and base model; of several base models, some of each.

        Raises:
            UsageProblem: another type of model is asked for, or the cursor is another search's.
        """
        others = [kind for kind in query.types if kind not in LORA_TYPES]
        if others:
            raise UsageProblem(f"{self._name} is searched for LoRAs only, not for {', '.join(others)}.", hint="")
        # its filters must all hold, so that each base model is a search of its own
        bases: list[tuple[str, ...]] = [(base,) for base in query.base_models] or [()]
        cursors = _cursors(query.cursor, len(bases))
        found: dict[str, Model] = {}
        for number, base in enumerate(bases):
            room = min(max(1, query.limit // len(bases)), query.limit - len(found))
            if cursors[number] != _END and room > 0:
                more, cursors[number] = self._filled(replace(query, base_models=base, limit=room), cursors[number])
                found |= {key: model for key, model in more.items() if key not in found}
        models = ordered(found.values(), query.sort if len(bases) > 1 else "relevance")
        return SearchPage(tuple(models), ",".join(cursors) if set(cursors) != {_END} else None)

    def _filled(self, query: Query, cursor: str) -> tuple[dict[str, Model], str]:
        """At most `query.limit` models from a cursor on, and the next cursor: what is left out leaves room for others."""
        found: dict[str, Model] = {}
        cursor = "" if cursor == _START else cursor
        for _ in range(MAX_PAGES):
            models, cursor = self._page(replace(query, limit=query.limit - len(found)), cursor)
            found |= {str(model.id): model for model in models if suits(model, query)}
            if not cursor or len(found) >= query.limit:
                break
        return dict(islice(found.items(), query.limit)), cursor or _END

    def look_up(self, wanted: Spec) -> Found:
        """A repository at a revision, pinned to its commit; with the file if the SPEC names one."""
        if not isinstance(wanted, ByRepository):
            raise BadSpec("Hugging Face knows repositories only.", hint="Write hf:OWNER/REPO[@REVISION][/FILE].")
        at = f"/revision/{quote(wanted.revision, safe='')}" if wanted.revision else ""
        raw = record(self._client.get_json(f"/api/models/{wanted.name}{at}", [("blobs", "true")]), self._name)
        model = self._model(read(wire.Repository, raw, self._name), raw, wanted.revision)
        version = model.versions[0]
        return Found(model, version, choose_file(version, wanted.path) if wanted.path else None)

    def offer(self, version: Version, wanted: str) -> RemoteFile:
        """The file called so, else the one LoRA of the repository, by what the headers say.

        Raises:
            AmbiguousSpec: there are several.
            WrongFile: there is none.
        """
        if wanted:
            return choose_file(version, wanted)
        candidates = [file for file in version.files if file.name.endswith(".safetensors")]
        likely = [file for file in candidates if not _NOT_LORA.search(str(file.id))]
        if not likely:
            return choose_file(version)  # says why not
        loras = [file for file in likely if is_adapter(self._client, file)] if len(likely) <= MAX_PROBED else likely
        if len(loras) == 1:
            return loras[0]
        names = ", ".join(str(file.id) for file in (loras or likely)[:MAX_PROBED])
        if not loras:
            hint = f"To fetch a file all the same, name it with `--file`: {names}."
            raise WrongFile(f"Nothing in {version.model_id} is a LoRA, by its files' headers.", hint=hint)
        hint = f"Choose one with `--file`: {names}{' …' if len(loras) > MAX_PROBED else '.'}"
        raise AmbiguousSpec(f"{version.model_id} holds {len(loras)} files that could be meant.", hint=hint)

    # ------------------------------------------------------------ reading

    def _page(self, query: Query, cursor: str) -> tuple[list[Model], str]:
        parameters = list(_parameters(query, cursor))
        reply = self._client.get_reply("/api/models", parameters)
        value = reply.value(self._client.site.base)
        rows = [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
        named = [entry for entry in rows if isinstance(entry.get("id"), str)]
        models = [self._model(read(wire.Repository, entry, self._name), entry, "") for entry in named]
        return models, _next_cursor(reply.headers.get("link", ""))

    def _model(self, item: wire.Repository, raw: Mapping[str, object], revision: str) -> Model:
        version = Version(
            id=item.sha or revision or "main",
            model_id=item.id,
            name=revision or "main",
            base_model=", ".join(item.base_models),
            published_at=item.modified or None,
            trigger_words=item.trigger_words,
            files=tuple(self._file(item, entry) for entry in item.files if entry.path.lower().endswith(_WEIGHTS)),
            downloads=item.downloads,
        )
        return Model(
            id=item.id,
            name=item.id.rpartition("/")[2],
            type="LORA" if "lora" in item.tags else "Other",
            creator=item.author or item.id.partition("/")[0],
            base_models=item.base_models,
            downloads=item.downloads,
            nsfw="not-for-all-audiences" in item.tags,
            tags=item.tags,
            url=f"{self._client.site.base}/{item.id}",
            versions=(version,),
            mode="Gated" if item.is_gated else "",
            license=License(item.license_name or item.license),
            raw=raw,
        )

    def _file(self, item: wire.Repository, entry: wire.Sibling) -> RemoteFile:
        name = entry.path.rpartition("/")[2]
        if _GENERIC.fullmatch(name):
            name = f"{item.id.rpartition('/')[2]}.safetensors"
        pinned = quote(item.sha or "main", safe="")
        return RemoteFile(
            id=entry.path,
            name=name,
            url=f"{self._client.site.base}/{item.id}/resolve/{pinned}/{quote(entry.path)}",
            format="SafeTensor" if entry.path.endswith(".safetensors") else "",
            size_bytes=entry.size_bytes,
            hashes={"sha256": entry.sha256} if entry.sha256 else {},
        )


def _parameters(query: Query, cursor: str) -> Iterator[tuple[str, str]]:
    """The parameters of GET /api/models; several filters must all hold."""
    yield "filter", "lora"
    yield "filter", "diffusers"  # language models' adapters have the tag lora too, but not this one
    yield from (("filter", f"base_model:adapter:{_BASES.get(base.lower(), base)}") for base in query.base_models)
    optional = {"search": query.text, "author": query.creator, "filter": query.tag, "cursor": cursor}
    yield from ((key, value) for key, value in optional.items() if value)
    yield "sort", _SORTS[query.sort]
    yield "limit", str(min(100, query.limit))
    yield "full", "true"
    yield "cardData", "true"


def _cursors(text: str, count: int) -> list[str]:
    """Where to go on in each of the searches that one is made of.

    Raises:
        UsageProblem: the cursor belongs to a search of another make.
    """
    cursors = text.split(",") if text else [_START] * count
    if len(cursors) != count:
        raise UsageProblem(
            "This cursor belongs to another search.", hint="Repeat the search with the same base models."
        )
    return cursors


def _next_cursor(link: str) -> str:
    """The cursor in `Link: <…cursor=C>; rel="next"` (RFC 8288); the address itself is never followed."""
    match = re.search(r'<([^<>]{1,2000})>\s*;\s*rel="next"', link)
    try:
        return parse_qs(urlsplit(match[1]).query).get("cursor", [""])[0] if match else ""
    except ValueError:
        return ""
