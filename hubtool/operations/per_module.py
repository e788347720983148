"""Runs one function over many modules: in parallel, largest first, one thread of arithmetic each, results in order.

The matrices are small, so that modules side by side use the cores better than threads within one product.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = Callable[[int, int], None]  # modules done, modules in all

MAX_WORKERS = 4


def default_workers() -> int:
    """The cores at hand, few of them: the memory bus is the limit."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MAX_WORKERS)


def for_each(
    items: Sequence[Item],
    work: Callable[[Item], Result],
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> list[Result]:
    """`work` of every item, in the order of the items; the first error ends it. Results do not depend on `workers`."""

    def inferred(item: Item) -> Result:
        with torch.inference_mode():
            return work(item)

    with one_thread():
        pool = ThreadPoolExecutor(workers or default_workers(), "module", lambda: torch.set_num_threads(1))
        try:
            futures = [pool.submit(inferred, item) for item in items]
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                if progress:
                    progress(done, len(items))
            return [future.result() for future in futures]
        finally:
            pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Arithmetic within the block runs in the thread that asks for it: small tensors cost less than waking another one."""
    threads_before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads_before)
