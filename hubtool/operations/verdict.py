"""The judgement of one program's table on one adapter: modules counted, losses grouped into sentences."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from hubtool.naming.address import Role
from hubtool.naming.suffixes import ROLE_OF
from hubtool.operations.conditions import CONDITIONS, Case
from hubtool.operations.loader import fits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hubtool.adapters.adapter import Adapter
    from hubtool.adapters.grouping import Grouped
    from hubtool.formats.safetensors import SafetensorsFile
    from hubtool.operations.loader import Loader, Rule

#: What a module is without a tensor that the program leaves unread.
_WITHOUT = {
    Role.MAGNITUDE: "its DoRA magnitude, so it looks otherwise",
    Role.UP_BIAS: "its bias",
    Role.DIFF_BIAS: "its bias",
    Role.ALPHA: "its alpha, so at another strength",
    Role.RESCALE: "its rescaling",
}
_NAMES = {"lora": "LoRA", "loha": "LoHa", "lokr": "LoKr", "glora": "GLoRA", "oft": "OFT", "boft": "BOFT", "ia3": "(IA)³",
          "dylora": "DyLoRA", "full": "plain differences", "norm": "norm differences"}  # fmt: skip


class Subject(NamedTuple):
    """A file to be judged."""

    file: SafetensorsFile
    grouped: Grouped
    adapter: Adapter
    architecture: str | None  # if it was asked for


@dataclass(frozen=True, slots=True)
class Finding:
    """One reason: what happens to some modules, and where that was read."""

    effect: str  # "refuses" (the whole file), "loses" or "alters"
    says: str  # a full sentence
    modules: tuple[str, ...]  # what stands before the suffix in their keys
    source: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """How much of a file a program loads; the fields are the contract's."""

    loads: str  # "all", "some" or "none"
    modules_loaded: int
    modules: int
    reasons: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    convert: str | None = None  # the command whose output it loads better
    then: Verdict | None = None  # the verdict on that output

    @property
    def perfect(self) -> bool:
        """Whether everything loads as it is meant."""
        return self.loads == "all" and not self.findings


@dataclass(slots=True)
class _Tally:
    """What was found so far, by effect, sentence and source."""

    known: frozenset[str]
    keys: dict[tuple[str, str, str], list[str]] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    unknown: list[str] = field(default_factory=list)  # full keys that the program does not know

    def add(self, effect: str, says: str, source: str, key: str) -> None:
        """Note a module; `{key}` in a sentence will be the first of those that share it."""
        self.keys.setdefault((effect, says, source), []).append(key)
        if effect == "loses":
            self.lost.add(key)


def judge(table: Loader, subject: Subject) -> Verdict:
    """What one program makes of a file."""
    adapter, count = subject.adapter, len(subject.adapter.layers)
    if adapter.architecture.id not in table.runs:
        says = f"{table.title} runs no {adapter.architecture.title} LoRAs."
        return Verdict("none", 0, count, (says,), (Finding("refuses", says, (), table.runs_source),))
    tally = _Tally(
        table.known(adapter.architecture, subject.file.tensors, subject.file.metadata), unknown=list(adapter.leftovers)
    )
    for case in cases(subject):
        _judge_module(table, case, subject, tally)
    findings = [_finding(*what, keys, count) for what, keys in tally.keys.items()]
    limit = table.most_unknown
    if limit is not None and len(tally.unknown) > limit:
        says = (
            f"{table.title} refuses files with more than {limit} keys that it does not know: here are {len(tally.unknown)}, "
            f"the first is {tally.unknown[0][:100]}."
        )
        findings.insert(0, Finding("refuses", says, (), table.most_unknown_source))
    refused = any(finding.effect == "refuses" for finding in findings)
    if refused:
        findings = [finding for finding in findings if finding.effect != "alters"]
    loaded = 0 if refused else count - len(tally.lost)
    loads = "all" if loaded == count else "some" if loaded else "none"
    return Verdict(loads, loaded, count, tuple(f.says for f in findings), tuple(findings))


def cases(subject: Subject) -> Iterator[Case]:
    """Each module of a file as a loader meets it."""
    adapter, foreign = subject.adapter, bool(subject.adapter.leftovers)
    for module, layer in adapter.layers.items():
        suffixes = frozenset(subject.grouped.tensors.get(layer.base, ()))
        yield Case(adapter.architecture, module, layer, layer.base, suffixes, foreign)


def _judge_module(table: Loader, case: Case, subject: Subject, tally: _Tally) -> None:
    kind = case.layer.parametrization
    family = kind.id if kind else ""
    if case.key not in tally.known:
        says = f"{table.title} knows no {_component(case)} key such as {{key}}"
        tally.add("loses", says, table.read, case.key)
        tally.unknown += _full_keys(case, subject, case.suffixes)
        return
    rules = [rule for rule in table.rules if applies(rule, case, family)]
    row = table.family(family, case.architecture.id, case.suffixes)
    if row is None and not any(rule.effect != "alters" for rule in rules):
        tally.add(table.unread, _unread(table, family, case), table.read, case.key)
    for rule in rules:
        if row is not None or rule.effect != "alters":
            tally.add(rule.effect, rule.says, rule.source, case.key)
    if row is None:
        tally.unknown += _full_keys(case, subject, case.suffixes)
        return
    needed = max((needed for needed in row.any if needed <= case.suffixes), key=len)
    ignored = case.suffixes - needed - row.beside
    tally.unknown += _full_keys(case, subject, ignored)
    others = case.layer.tensors.keys() - {ROLE_OF[suffix] for suffix in case.suffixes}  # under a key of another form
    others -= {Role.SET_WEIGHT}  # a control LoRA's `.scale`
    for role in sorted({ROLE_OF[suffix] for suffix in ignored} | others, key=lambda role: role.value):
        if role is not Role.ALPHA or CONDITIONS["scaled"](case):
            says = f"{table.title} loads the module without {_WITHOUT.get(role, role.value)}"
            tally.add("alters", says, row.source, case.key)


def applies(rule: Rule, case: Case, family: str) -> bool:
    """Whether every condition of a rule holds."""
    given = (
        (rule.architectures, case.architecture.id in rule.architectures),
        (rule.keys, fits(case.key, rule.keys)),
        (rule.families, family in rule.families),
        (rule.modifiers, bool(rule.modifiers & set(case.layer.modifiers))),
        (rule.suffixes, bool(rule.suffixes & case.suffixes)),
        (rule.has, rule.has <= case.suffixes),
        (rule.lacks, not rule.lacks & case.suffixes),
        (rule.paths, fits(case.module.path, rule.paths)),
        (rule.components, case.module.component.value in rule.components),
        (rule.when, all(CONDITIONS[name](case) for name in rule.when)),
    )
    return all(holds for condition, holds in given if condition)


def _finding(effect: str, says: str, source: str, keys: list[str], count: int) -> Finding:
    share = f"all {count}" if len(keys) == count else f"{len(keys)} of {count}"
    modules = "module" if count == 1 else "modules"
    words = {
        "refuses": "the file is refused",
        "loses": f"{share} {modules} lost",
        "alters": f"{share} {modules} altered",
    }
    sentence = says.replace("{key}", keys[0][:120])
    return Finding(effect, f"{words[effect][0].upper()}{words[effect][1:]}: {sentence}.", tuple(keys), source)


def _component(case: Case) -> str:
    return case.architecture.title if case.module.component.value == "denoiser" else case.module.component.value


def _unread(table: Loader, family: str, case: Case) -> str:
    known = any(row.id == family for row in table.families)
    if known:
        return f"{table.title} does not read {_NAMES.get(family, family)} spelt {', '.join(sorted(case.suffixes))}"
    return f"{table.title} does not read {_NAMES.get(family, family) or 'such tensors'}"


def _full_keys(case: Case, subject: Subject, suffixes: frozenset[str]) -> list[str]:
    return [subject.grouped.keys.get((case.key, suffix), case.key + suffix) for suffix in sorted(suffixes)]
