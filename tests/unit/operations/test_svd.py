"""The low-rank approximation is as good as the best there is, and says truthfully how good."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hubtool.operations import svd
from hubtool.operations.ranks import EnergyRank, FixedRank, QuantileRank, RatioRank, ThresholdRank
from hubtool.operations.svd import Matrix, truncate

if TYPE_CHECKING:
    from collections.abc import Iterator

SHAPES = [(192, 192), (448, 192), (192, 864)]


@pytest.fixture(autouse=True, scope="module", params=["bfloat16", "float32"])
def _searched_in(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every machine tests both: which one it would choose depends on its processor."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(svd, "quick_dtype", lambda _="cpu": getattr(torch, request.param))
        yield


def planted(shape: tuple[int, int], values: list[float], noise: float = 0.0, seed: int = 0) -> torch.Tensor:
    """A matrix with these singular values, plus Gaussian noise of this size, in float32."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = shape
    left = torch.linalg.qr(torch.randn(rows, len(values), generator=generator, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(columns, len(values), generator=generator, dtype=torch.float64)).Q
    signal = (left * torch.tensor(values, dtype=torch.float64)) @ right.T
    return (signal + noise * torch.randn(shape, generator=generator, dtype=torch.float64)).float()


@lru_cache(maxsize=8)
def spectra(shape: tuple[int, int]) -> dict[str, torch.Tensor]:
    """Spectra of fine-tunes and the ones that mislead."""
    side = min(shape)
    edge = shape[0] ** 0.5 + shape[1] ** 0.5  # the largest singular value of unit noise
    return {
        "noise only": planted(shape, [0.0], 1.0),
        "signal crossing the noise": planted(shape, [edge * (i / 24) ** -0.8 for i in range(1, 97)], 1.0),
        "one dominant value": planted(shape, [1000 * edge] + [2 * edge] * 8, 1.0),
        "rank 16 and a little noise": planted(shape, [edge * i for i in range(16, 0, -1)], 1e-2),
        "harmonic": planted(shape, [1 / i for i in range(1, side + 1)]),
        "exponential": planted(shape, [0.9**i for i in range(side)]),
        "flat": planted(shape, [1.0] * side),
    }


def energies_of(values: torch.Tensor) -> torch.Tensor:
    """Squared singular values, descending, in float64."""
    wide = values.double() if values.shape[0] <= values.shape[1] else values.double().T
    return torch.linalg.eigvalsh(wide @ wide.T).flip(0).clamp_min(0)


def best_error(values: torch.Tensor, rank: int) -> float:
    return float(energies_of(values)[rank:].sum())


def actual_error(values: torch.Tensor, found: svd.Truncation) -> float:
    return float((values.double() - found.up.double() @ found.down.double()).square().sum())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [8, 24])
def test_the_randomized_error_is_within_one_percent_of_the_optimum_for_every_spectrum(
    shape: tuple[int, int], rank: int
) -> None:
    for name, values in spectra(shape).items():
        found = truncate(Matrix.of(values), FixedRank(rank))
        assert found.method == "randomized"
        assert found.up.shape == (shape[0], rank)
        assert actual_error(values, found) ** 0.5 <= 1.01 * best_error(values, rank) ** 0.5, name


@pytest.mark.parametrize("shape", SHAPES)
def test_the_reported_error_is_the_actual_one(shape: tuple[int, int]) -> None:
    for name, values in spectra(shape).items():
        for exact in (False, True):
            found = truncate(Matrix.of(values), FixedRank(16), exact=exact)
            assert found.squared_error == pytest.approx(actual_error(values, found), rel=2e-3), name


@pytest.mark.parametrize("shape", [*SHAPES, (16, 500), (500, 1), (1, 1)])
def test_the_exact_method_reaches_the_optimum(shape: tuple[int, int]) -> None:
    values = planted(shape, [1.0], 0.1)
    rank = min(8, *shape)
    found = truncate(Matrix.of(values), FixedRank(rank), exact=True)
    assert found.method == "exact"
    assert actual_error(values, found) <= 1.000001 * best_error(values, rank) + 1e-10 * float(values.square().sum())


@pytest.mark.skipif(svd.quick_dtype() is torch.float32, reason="this CPU does not multiply bfloat16 itself")
def test_searching_in_bfloat16_costs_no_accuracy() -> None:
    values = spectra((448, 192))["signal crossing the noise"]
    quick = Matrix.of(values)
    found, careful = (truncate(m, FixedRank(24)) for m in (quick, replace(quick, quick=quick.exact)))
    assert found.squared_error <= 1.003 * careful.squared_error


@pytest.mark.parametrize(
    ("side", "rank", "exact"), [(64, 4, True), (320, 32, False), (320, 54, True), (1280, 128, False)]
)
def test_the_method_follows_from_side_and_rank(side: int, rank: int, exact: bool) -> None:
    assert svd.gram_is_cheaper(side, rank) is exact


def test_up_and_down_share_the_singular_values_evenly() -> None:
    found = truncate(Matrix.of(planted((320, 640), [9.0, 4.0, 1.0])), FixedRank(3))
    expected = torch.tensor([3.0, 2.0, 1.0])
    assert torch.allclose(found.up.norm(dim=0), expected, rtol=1e-4)
    assert torch.allclose(found.down.norm(dim=1), expected, rtol=1e-4)


def test_the_same_matrix_gives_the_same_bits_every_time() -> None:
    values = spectra((448, 192))["noise only"]
    first, second = (truncate(Matrix.of(values), FixedRank(16)) for _ in range(2))
    assert torch.equal(first.up, second.up)
    assert torch.equal(first.down, second.down)


@pytest.mark.parametrize("shape", [(1280, 1600), (1600, 1280)])
def test_a_matrix_with_a_few_rows_that_are_not_zero_comes_back_whole(shape: tuple[int, int]) -> None:
    values = torch.zeros(shape)
    values[:3] = torch.randn(3, shape[1], generator=torch.Generator().manual_seed(0))
    found = truncate(Matrix.of(values), FixedRank(32))
    assert torch.allclose(found.up @ found.down, values, atol=1e-5)
    assert 0 <= found.squared_error < 1e-11 * float(values.square().sum())


def test_ranks_beyond_the_matrix_rank_hold_zeros_not_noise_blown_up() -> None:
    found = truncate(Matrix.of(planted((320, 320), [1.0, 0.5])), FixedRank(32))
    assert bool(torch.isfinite(found.up).all())
    assert bool(torch.isfinite(found.down).all())
    assert float(found.down.abs().max()) < 10


@pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
def test_energy_gives_the_rank_that_a_full_decomposition_gives(share: float) -> None:
    for name, values in spectra((192, 448)).items():
        energies = energies_of(values)
        sums = torch.cumsum(energies, 0) / energies.sum()
        wanted = int((sums < share).sum()) + 1
        if abs(float(sums[wanted - 1]) - share) < 1e-9 or name == "flat":
            continue  # a tie: both neighbours are right
        assert truncate(Matrix.of(values), EnergyRank(share)).up.shape[1] == wanted, name


def test_energy_stops_at_its_limit() -> None:
    values = spectra((192, 448))["noise only"]
    assert truncate(Matrix.of(values), EnergyRank(0.9, limit=12)).up.shape[1] == 12


@pytest.mark.parametrize("exact", [False, True])
def test_threshold_keeps_every_singular_value_above_it(exact: bool) -> None:
    values = planted((320, 640), [16.0, 8.0, 4.0, 2.0, 1.0])
    assert truncate(Matrix.of(values), ThresholdRank(3.0), exact=exact).up.shape[1] == 3
    assert truncate(Matrix.of(values), ThresholdRank(20.0), exact=exact).up.shape[1] == 0
    assert truncate(Matrix.of(values), ThresholdRank(1.5, limit=2), exact=exact).up.shape[1] == 2


def odd_matrix(kind: str, rows: int, columns: int, seed: int) -> torch.Tensor:
    """Matrices that break careless algorithms, float64."""
    generator = torch.Generator().manual_seed(seed)
    few = 1 + seed % 40
    values = torch.zeros(rows, columns, dtype=torch.float64)
    noise = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    if kind == "few rows":
        values[:few] = noise[:few]
    elif kind == "few columns":
        values[:, -few:] = noise[:, -few:]
    elif kind == "low rank":
        values = noise[:, :few] @ noise[:few]
    elif kind == "nearly equal rows":
        values = noise[:1] + 10.0 ** -(1 + seed % 4) * noise
    elif kind == "sparse":
        values = noise * (noise.abs() > 2.5)
    elif kind == "one element":
        values[seed % rows, seed % columns] = 3
    elif kind == "steps":
        values = (noise[:, :few] * 10.0 ** -torch.arange(noise[:, :few].shape[1], dtype=torch.float64)) @ noise[:few]
    return values * 10.0 ** (seed % 3 * 6 - 6)


@pytest.mark.parametrize(
    "kind", ["few rows", "few columns", "low rank", "nearly equal rows", "sparse", "one element", "steps"]
)
@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), rows=st.sampled_from([41, 130, 320]), columns=st.sampled_from([66, 200, 500]))
def test_odd_matrices_are_approximated_as_well_as_can_be(kind: str, seed: int, rows: int, columns: int) -> None:
    values = odd_matrix(kind, rows, columns, seed).float()
    whole = float(values.double().square().sum())
    if not whole:
        return
    found = truncate(Matrix.of(values), FixedRank(1 + seed % 30))
    rounding = 1e-10 * whole  # float32 can do no better
    error = actual_error(values, found)
    assert error <= 1.02 * best_error(values, found.up.shape[1]) + rounding
    assert found.squared_error == pytest.approx(error, rel=0.02, abs=rounding)


def singular_values(values: torch.Tensor) -> torch.Tensor:
    return torch.linalg.svdvals(values.double())


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("share", [0.05, 0.2, 0.7])
def test_quantile_is_the_fewest_values_whose_sum_is_that_share_of_all(share: float, exact: bool) -> None:
    for name, values in spectra((192, 448)).items():
        full = singular_values(values)
        sums = torch.cumsum(full, 0) / full.sum()
        if float((sums - share).abs().min()) < 1e-6:
            continue  # a tie: both neighbours are right
        found = truncate(Matrix.of(values), QuantileRank(share), exact=exact)
        assert found.up.shape[1] == int((sums < share).sum()) + 1, name


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("ratio", [0.05, 0.3, 0.9])
def test_ratio_keeps_the_values_above_that_share_of_the_largest(ratio: float, exact: bool) -> None:
    for name, values in spectra((192, 448)).items():
        full = singular_values(values)
        if name == "flat" or float((full / full[0] - ratio).abs().min()) < 1e-6:
            continue
        found = truncate(Matrix.of(values), RatioRank(ratio), exact=exact)
        assert found.up.shape[1] == int((full > ratio * full[0]).sum()), name


@pytest.mark.parametrize("rule", [RatioRank(0.01, limit=7), QuantileRank(0.9, limit=7)])
def test_ratio_and_quantile_stop_at_their_limit(rule: RatioRank | QuantileRank) -> None:
    assert truncate(Matrix.of(spectra((192, 448))["noise only"]), rule).up.shape[1] == 7
