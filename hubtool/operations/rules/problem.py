"""What a rule says, and the table of everything rules can say; the docs list it from here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from hubtool.adapters.adapter import Adapter
    from hubtool.adapters.grouping import Grouped
    from hubtool.adapters.layer import Layer
    from hubtool.formats.safetensors import SafetensorsFile


class Meaning(NamedTuple):
    """What a code means for the file and for its owner."""

    severity: str  # "refused", "error", "warning" or "note" (harmless)
    sentence: str
    fix: str


_AGAIN = "Download the file again, or ask its author for another."
_NORMALIZE = "The tensors win; `hubtool normalize` sets it right."
_EXPORT = "Export it again with the tool that trained it."

CODES: Mapping[str, Meaning] = {
    # files that are something else
    "E_NOT_FOUND": Meaning("refused", "A link that leads nowhere.", "Remove the link."),
    "E_NOT_REGULAR": Meaning("refused", "A folder, pipe or device.", "Name a regular file."),
    "E_PERMISSION": Meaning("refused", "The file cannot be opened.", "Check its permissions."),
    "E_PICKLE": Meaning("refused", "A pickle, which can run code when loaded.", "Ask for a .safetensors file."),
    "E_NOT_SAFETENSORS": Meaning("refused", "Another kind of file: the code's ending says which.", _AGAIN),
    "E_NOT_A_LORA": Meaning("refused", "A checkpoint, VAE, embedding or ControlNet.", "Put it in its own folder."),
    # the container
    "E_EMPTY": Meaning("error", "No bytes at all.", _AGAIN),
    "E_TRUNCATED_HEADER": Meaning("error", "The file ends inside its header.", _AGAIN),
    "E_TRUNCATED_DATA": Meaning("error", "The file ends before its tensors do.", _AGAIN),
    "E_TRAILING_DATA": Meaning("error", "Bytes after the last tensor.", _AGAIN),
    "E_HEADER_TOO_LARGE": Meaning("error", "A header above the format's limit of 100 MB.", _AGAIN),
    "E_HEADER_JSON": Meaning("error", "The header is not the JSON object the format asks for.", _AGAIN),
    "E_HEADER_ENCODING": Meaning("error", "The header is not UTF-8.", _AGAIN),
    "E_HEADER_DEPTH": Meaning("error", "The header is nested absurdly deep.", _AGAIN),
    "E_DUPLICATE_KEY": Meaning("error", "One name twice in the header.", _EXPORT),
    "E_ENTRY": Meaning("error", "A tensor is not described as the format asks.", _EXPORT),
    "E_DTYPE": Meaning("error", "A dtype that the format does not know.", _EXPORT),
    "E_SHAPE": Meaning("error", "A shape that no tensor can have.", _EXPORT),
    "E_SHAPE_BYTES": Meaning("error", "Shape and dtype need another number of bytes.", _EXPORT),
    "E_OFFSETS": Meaning("error", "Tensors overlap, leave holes or lie outside the file.", _AGAIN),
    "E_METADATA_TYPE": Meaning("error", "Metadata that is not text.", _EXPORT),
    "E_TOO_MANY_TENSORS": Meaning("error", "More tensors than any model has.", _AGAIN),
    "E_NO_TENSORS": Meaning("error", "No tensors.", _AGAIN),
    # modules
    "E_PAIR_MISSING": Meaning("error", "A module lacks a factor.", _EXPORT),
    "E_RANK_MISMATCH": Meaning("error", "A module's factors disagree about the rank.", _EXPORT),
    "E_TRANSPOSED": Meaning("error", "Factors are transposed or exchanged.", _EXPORT),
    "E_SHAPE_RANK": Meaning("error", "A factor has too few dimensions.", _EXPORT),
    "E_RANK_ZERO": Meaning("error", "Rank 0.", _EXPORT),
    "E_BASE_SHAPE": Meaning("error", "A module does not fit the layer it is named for.", "Use the base model it was made for."),
    "E_MIXED_ARCH": Meaning("error", "Modules of different base models in one file.", _EXPORT),
    "E_DUPLICATE_MODULE": Meaning("error", "One module twice.", "Ask its author which one is meant."),
    "E_DTYPE_WEIGHT": Meaning("error", "Weights of a dtype that holds no numbers.", _EXPORT),
    "E_ALPHA": Meaning("error", "An alpha that is not one number.", _EXPORT),
    "E_FACTOR_SHAPE": Meaning("error", "A core, magnitude or bias does not fit its module.", _EXPORT),
    "W_EQUAL_COPIES": Meaning("warning", "Modules twice, with equal values.", "`hubtool normalize` keeps one."),
    "W_PARTIAL_FUSED": Meaning("note", "Some of q, k and v, which others keep together.", "`hubtool convert` pads with zeros."),
    "W_DUPLICATE_MODULE": Meaning("warning", "Keys that differ only in case or Unicode form.", _EXPORT),
    "W_MIXED_DIALECT": Meaning("warning", "Modules spelt in different dialects.", "`hubtool normalize` respells them in one."),
    "W_MALFORMED": Meaning("warning", "Keys that no tool writes on purpose.", "`hubtool normalize` spells them correctly."),
    "W_UNKNOWN_ARCHITECTURE": Meaning("warning", "No known base model has these modules.", "Load it with the tool that made it."),
    "W_AMBIGUOUS": Meaning("note", "The keys fit several base models.", "`hubtool normalize --architecture A` notes which."),
    "W_ORPHAN_KEY": Meaning("warning", "An alpha or scale for a module that has no weights.", "`hubtool normalize` removes it."),
    "W_UNKNOWN_KEYS": Meaning("warning", "Tensors that mean nothing to any known tool.", "Harmless, but they are ignored."),
    "W_UNKNOWN_BLOCKS": Meaning("note", "Modules of a deeper or wider relative of the base model.", "They are ignored."),
    "W_UNSAFE_NAME": Meaning("warning", "A name that could harm a careless program.", "Do not use the file."),
    "W_RANK_TOO_LARGE": Meaning("warning", "A rank above the layer's own.", "Harmless, but larger than it needs to be."),
    "W_DTYPE": Meaning("warning", "Integer weights without scales.", _EXPORT),
    # alphas
    "W_ALPHA_ZERO": Meaning("warning", "Alpha 0: the module has no effect.", _EXPORT),
    "W_ALPHA_NEGATIVE": Meaning("warning", "A negative alpha inverts the effect.", _EXPORT),
    "W_ALPHA_HUGE": Meaning("warning", "An alpha far above the rank.", _EXPORT),
    "W_ALPHA_INTEGER": Meaning("note", "Alphas stored as integers, which diffusers refuses.", _NORMALIZE),
    "W_ALPHA_SHAPE": Meaning("note", "Alphas with a dimension instead of plain numbers.", _NORMALIZE),
    "W_ALPHA_MISSING": Meaning("note", "Modules without alpha where they have it as a rule; their scale is 1.", _NORMALIZE),
    "W_ALPHA_METADATA": Meaning("note", "The metadata states another alpha than the tensors.", _NORMALIZE),
    "W_DIM_METADATA": Meaning("note", "The metadata states another rank than the tensors.", _NORMALIZE),
    "W_RECORDED_SCALE": Meaning("note", "A scale that only metadata know.", "`hubtool convert --to kohya` puts it into tensors."),
    "W_NO_CONFIG": Meaning("note", "PEFT without its adapter_config.json, where alpha is.", "Get the whole folder."),
    # metadata
    "W_BASE_MISMATCH": Meaning("warning", "The metadata names another base model.", "`hubtool normalize` corrects modelspec's."),
    "W_HASH_METADATA": Meaning("note", "A hash in the metadata is not that of the tensors.", _NORMALIZE),
    "W_METADATA_FIELD": Meaning("note", "A metadata entry that is not what programs expect there.", "It is ignored."),
    "W_METADATA_TEXT": Meaning("note", "Control characters in the metadata.", "Harmless here, not in other programs."),
    "W_MODELSPEC": Meaning("note", "A modelspec block that lacks fields the specification demands.", _NORMALIZE),
    "W_METADATA_SIZE": Meaning("warning", "More metadata than tools expect.", "Harmless, but slow."),
    # values
    "E_NONFINITE": Meaning("error", "NaN or infinity among the weights.", "Use an earlier epoch."),
    "W_ALL_ZERO": Meaning("warning", "All zeros: no effect.", "The file was saved before training."),
    "W_ZERO_TAIL": Meaning("warning", "The end of the file is all zeros.", _AGAIN),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding: the contract's fields."""

    code: str
    severity: str
    key: str
    message: str
    fix: str  # what to do about it


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """What rules look at."""

    file: SafetensorsFile
    grouped: Grouped
    adapter: Adapter | None  # None where no architecture explains the keys
    layers: tuple[Layer, ...]  # by the architecture's names or, where none fits, by the keys alone
    values_too: bool = False  # whether tensors may be read


Rule = Callable[[Subject], Iterator[Problem]]


def problem(code: str, message: str, key: str = "") -> Problem:
    """A finding with the severity that its code has."""
    row = CODES.get(code) or CODES["E_NOT_A_LORA" if code.startswith("E_NOT_A_LORA") else "E_NOT_SAFETENSORS"]
    return Problem(code, row.severity, key, message, row.fix)
