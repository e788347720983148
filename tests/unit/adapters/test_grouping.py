"""Tensors gathered by module before anyone knows what the names mean."""

from support.files import Raw, number, random_tensor
from support.lazy import lazy

from hubtool.adapters.grouping import group_tensors, is_lone_scale


def grouped(*keys: str, shape: tuple[int, ...] = (4, 4)) -> object:
    return group_tensors(lazy({key: random_tensor(1, shape) for key in keys}))


def test_tensors_of_one_base_are_one_group_in_any_order() -> None:
    found = grouped("b.lora_up.weight", "a.alpha", "b.alpha", "a.lora_down.weight", "b.lora_down.weight")
    assert {base: set(rows) for base, rows in found.tensors.items()} == {
        "a": {".alpha", ".lora_down.weight"},
        "b": {".alpha", ".lora_down.weight", ".lora_up.weight"},
    }
    assert found.size == 5


def test_every_key_is_in_a_group_or_among_the_others() -> None:
    keys = ["a.lora_A.weight", "a.weight", "x", "", "bundle_emb.t.clip_l", "b.lora_B.default.weight", "c.bias"]
    found = grouped(*keys)
    assert {*found.keys.values(), *found.others} == set(keys)
    assert not set(found.keys.values()) & set(found.others)


def test_a_plain_weight_counts_only_beside_on_input() -> None:
    assert set(grouped("a.weight", "b.weight", "b.on_input").keys.values()) == {"b.weight", "b.on_input"}


def test_a_second_adapter_of_one_dump_is_left_over() -> None:
    found = grouped("a.lora_A.one.weight", "a.lora_A.two.weight")
    assert set(found.others) == {"a.lora_A.two.weight"}


def test_a_group_knows_what_weight_it_is_made_for() -> None:
    tensors = {"a.lora_down.weight": random_tensor(1, (4, 5, 3, 3)), "a.lora_up.weight": random_tensor(2, (7, 4, 1, 1))}
    (group,) = group_tensors(lazy(tensors)).groups
    assert (group.base, group.extent.rows, group.extent.columns) == ("a", 7, 45)
    assert group.extent.fits((7, 5, 3, 3))
    assert group.extent.fits((7, 45))
    assert not group.extent.fits((7, 5))


def test_a_scale_alone_is_told_from_a_scale_of_something() -> None:
    tensors = {
        "a.scale": number(1),
        "b.alpha": number(1),
        "c.alpha": number(1),
        "c.lora_up.weight": Raw("F16", (1, 1), b"ab"),
    }
    found = group_tensors(lazy(tensors)).tensors
    assert [is_lone_scale(found[base]) for base in "abc"] == [True, True, False]
