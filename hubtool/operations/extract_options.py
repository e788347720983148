"""What to extract and how: the options, whether they go together, and what they mean for a module."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from hubtool.errors import UsageProblem
from hubtool.operations.adapter_output import check_output
from hubtool.operations.extract_allocation import HEADROOM
from hubtool.operations.ranks import EnergyRank, FixedRank, QuantileRank, RankRule, RatioRank, ThresholdRank

# after our own modules: hubtool.operations.ranks says what to install where torch is missing
import torch  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from hubtool.operations.extract_forms import Form
    from hubtool.operations.extract_pairs import Pair

DEFAULT_RANK = 32
MAX_WORKERS = 4  # each holds the largest module; more than this many hardly gain, the memory bus being the limit
_NO_LIMIT = 1 << 30
#: Options of which each decides the ranks.
_DECIDING = ("energy", "threshold", "ratio", "quantile", "max_size")
#: Those that are shares of one.
_SHARES = ("energy", "ratio", "quantile")


@dataclass(frozen=True, slots=True)
class ExtractOptions:
    """What to extract and how; at most one of the options that decide ranks, whose ranks `rank` then limits."""

    rank: int | None = None  # of linear layers and 1×1 convolutions; None: DEFAULT_RANK, or no limit
    conv_rank: int | None = None  # of larger convolutions; None: as `rank`; 0: no resnets and samplers at all
    energy: float | None = None  # smallest rank per module that holds this share of ‖ΔW‖²
    threshold: float | None = None  # keep singular values greater than this
    ratio: float | None = None  # keep singular values greater than this share of the module's largest
    quantile: float | None = None  # fewest singular values whose sum is at least this share of the sum of all
    max_size: int | None = None  # bytes of the file; ranks go where they hold the most energy per byte
    conv: Literal["flat", "tucker"] = "flat"  # how larger convolutions are factorised
    biases: bool = False  # changes of biases, whole
    norms: bool = False  # changes of norms, whole
    components: Sequence[str] = ()  # empty: all that both checkpoints hold
    dialect: str = "kohya"
    dtype: str = "F16"
    parametrization: Literal["lora", "lokr", "full"] = "lora"
    method: Literal["randomized", "exact"] = "randomized"
    device: str = "cpu"
    seed: int = 0  # of the randomized method: equal seeds give equal files
    workers: int | None = None  # None: the cores at hand, at most MAX_WORKERS
    hash_inputs: bool = False
    force: bool = False
    dry_run: bool = False
    progress: Callable[[int, int], None] | None = field(default=None, compare=False)  # bytes compared, bytes in all


def check_options(options: ExtractOptions, output: Path, inputs: Sequence[Path]) -> None:
    """Whether the options go together and the output may be written.

    Raises:
        UsageProblem: they do not.
        OutputExists: there is something at `output`.
        UnknownDialect: there is no such dialect.
    """
    _check_ranks(options)
    _check_forms(options)
    _check_device(options.device)
    check_output(output, inputs, options.dialect, force=options.force)


def _check_ranks(options: ExtractOptions) -> None:
    asked = [name for name in _DECIDING if getattr(options, name) is not None]
    if len(asked) > 1:
        flags = " and ".join(f"`--{name.replace('_', '-')}`" for name in asked)
        raise UsageProblem(f"{flags} each decide the ranks.", hint="Give one of them.")
    for name in _SHARES:
        share = getattr(options, name)
        if share is not None and not 0 < share <= 1:
            message = f"`--{name}` is a share between 0 and 1, not {share}."
            raise UsageProblem(message, hint=f"Try `--{name} {'0.1' if name == 'ratio' else '0.9'}`.")
    if options.ratio == 1:
        raise UsageProblem(
            "No singular value is greater than the largest, so `--ratio 1` keeps none.", hint="Try `--ratio 0.1`."
        )
    if options.threshold is not None and not 0 < options.threshold < math.inf:
        raise UsageProblem(f"A threshold is a positive number, not {options.threshold}.")
    if options.rank is not None and options.rank < 1:
        raise UsageProblem(f"A rank is at least 1, not {options.rank}.")


def _check_forms(options: ExtractOptions) -> None:
    ranked = [name for name in ("rank", *_DECIDING) if getattr(options, name) is not None]
    if options.parametrization != "lora" and ranked:
        flag = f"--{ranked[0].replace('_', '-')}"
        message = f"`--parametrization {options.parametrization}` has no rank, so `{flag}` says nothing."
        raise UsageProblem(message, hint=f"Leave out `{flag}`.")
    if options.conv == "tucker" and options.parametrization != "lora":
        raise UsageProblem("`--conv tucker` is a form of LoRA.", hint="Leave out `--parametrization`.")
    if options.conv == "tucker" and any(name != "rank" for name in ranked):
        message = f"Tucker cores have one rank for both sides, which `--{ranked[-1].replace('_', '-')}` does not give."
        raise UsageProblem(message, hint="Give `--conv-rank N`, or leave out `--conv tucker`.")


def _check_device(name: str) -> None:
    """Say at once what torch would say in the middle of the work."""
    kind, _, number = name.partition(":")
    there: Mapping[str, Callable[[], bool]] = {
        "cpu": lambda: True, "cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available,
    }  # fmt: skip
    if kind not in there or (number and not number.isdigit()):
        raise UsageProblem(f"There is no device {name!r}.", hint="Use `--device cpu`, `cuda`, `cuda:1` or `mps`.")
    if not there[kind]() or (kind == "cuda" and number and int(number) >= torch.cuda.device_count()):
        message = f"This computer, or its torch {torch.__version__}, has no device {name}."
        raise UsageProblem(message, hint="Leave out `--device`: the CPU needs seconds.")


def form_of(options: ExtractOptions, pair: Pair) -> Form:
    """In what form a module is stored."""
    if options.parametrization != "lora":
        return options.parametrization
    return "tucker" if pair.is_kernel and options.conv == "tucker" else "lora"


def rule_for(options: ExtractOptions, pair: Pair, even: int) -> RankRule:
    """How many singular values a module keeps; `even` is the rank where nothing is said."""
    rank = options.conv_rank if pair.is_kernel and options.conv_rank is not None else options.rank
    variable: Mapping[str, Callable[[float, int], RankRule]] = {
        "energy": EnergyRank, "threshold": ThresholdRank, "ratio": RatioRank, "quantile": QuantileRank,
    }  # fmt: skip
    for name, rule in variable.items():
        value = getattr(options, name)
        if value is not None:
            return rule(value, rank or _NO_LIMIT)
    most = HEADROOM * even if options.max_size is not None else even
    return FixedRank(min(rank or most, pair.shape[0], math.prod(pair.shape[1:])))


def worker_count(options: ExtractOptions) -> int:
    """How many modules are worked on at once: another device takes one after the other."""
    if options.device != "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return options.workers or min(cores, MAX_WORKERS)
