"""What a set is made of: the file that people write, and which image is what."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvar_engine.bundle.read import Bundle, find_bundle, read_bundle
from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.request import Sampling
from medvar_engine.sets.mixture import Component, Mixture
from medvar_engine.sets.mixture_file import read_mixture
from medvar_engine.sets.set_plan import SetPlan

GOOD = """\
seed: 7
sampling: {guidance: 2.5}
conditions:
  - {modality: CT, region: chest, weight: 3}
  - modality: MR
    region: brain
    seed: 1000
    sampling: {top_p: 0.5, coarse_guidance: 0.5, coarse_top_p: 0.7}
"""


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """The shipped one, as if it knew neither contrast nor position: only labels and sampling matter here."""
    shipped = read_bundle(find_bundle())
    return replace(shipped, labels=replace(shipped.labels, contrast=(), position=0))


def read(tmp_path: Path, bundle: Bundle, text: str | bytes) -> Mixture:
    path = tmp_path / "mix.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_mixture(path, bundle)


def test_a_mixture_is_read_from_its_file(tmp_path: Path, bundle: Bundle) -> None:
    """Sampling or seeds that were asked for would silently be others."""
    default = bundle.sampling
    chest, brain = read(tmp_path, bundle, GOOD).components
    assert chest == Component(Condition("CT", "chest"), replace(default, guidance=2.5), 7, 3.0)
    sampling = replace(default, guidance=2.5, top_p=0.5, coarse_guidance=0.5, coarse_top_p=0.7)
    assert brain == Component(Condition("MR", "brain"), sampling, 1000, 1.0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (GOOD.replace("brain", "brian"), "line 5: conditions[1]: Unknown region 'brian'. Did you mean 'brain'?"),
        (
            GOOD.replace("region: brain", "region: [brain]"),
            "line 5: conditions[1]: The condition factor region must be a name, but is ['brain']",
        ),
        (
            GOOD.replace("region: brain", "region: 3"),
            "line 5: conditions[1]: The condition factor region must be a name",
        ),
        (GOOD.replace("region: brain", "position: .nan"), "conditions[1]: position is the position of the slice"),
        (GOOD.replace("region: brain", "position: high"), "conditions[1]: position is the position of the slice"),
        (GOOD.replace("region: brain", "position: 0.5"), "conditions[1]: This model is not conditioned on position"),
        (GOOD.replace("region: brain", "contrast: T1"), "conditions[1]: This model is not conditioned on contrast"),
        (
            GOOD.replace("region: brain", "regoin: brain"),
            "line 6: Unknown setting 'conditions[1].regoin'. Did you mean 'region'?",
        ),
        (GOOD.replace("region: brain", "modality: CT"), "line 6: the field modality is repeated"),
        (GOOD.replace("seed: 1000", "seed: -1"), "line 7: conditions[1].seed must be at least 0, but is -1"),
        (GOOD.replace("seed: 7", "seed: true"), "line 1: seed must be a whole number, but is True"),
        (GOOD.replace("weight: 3", "weight: .nan"), "line 4: conditions[0].weight must be a finite number, but is nan"),
        (GOOD.replace("weight: 3", "weight: .inf"), "line 4: conditions[0].weight must be"),
        (GOOD.replace("weight: 3", "weight: 0"), "line 4: conditions[0].weight must be at least"),
        (GOOD.replace("weight: 3", "weight: many"), "line 4: conditions[0].weight must be a number"),
        (GOOD.replace("weight: 3", "weight: 3, count: 3"), "a weight or a count, not both"),
        (GOOD.replace("weight: 3", "count: 3"), "conditions[1]: either all conditions need a count, or none"),
        (GOOD.replace("weight: 3", "count: 0"), "line 4: conditions[0].count must be at least 1"),
        (GOOD.replace("weight: 3", "count: 2.5"), "line 4: conditions[0].count must be a whole number"),
        (GOOD.replace("top_p: 0.5", "top_p: 2"), "line 8: top_p must be"),
        (GOOD.replace("top_p: 0.5", "top_k: 1.5"), "line 8: conditions[1].sampling.top_k must be a whole number"),
        (
            GOOD.replace("top_p: 0.5", "topp: 1"),
            "line 8: Unknown setting 'conditions[1].sampling.topp'. Did you mean 'top_p'?",
        ),
        (GOOD.replace("guidance: 2.5", "guidance: high"), "line 2: sampling.guidance must be a number"),
        (GOOD.replace("{guidance: 2.5}", "3"), "line 2: sampling must be a list of fields and values"),
        ("", "is empty"),
        ("seed: 1", "Missing setting 'conditions'"),
        ("conditions: []", "conditions must be a list of at least one entry"),
        ("conditions: 3", "conditions must be a list, but is 3"),
        ("- a", "line 1: it must be a list of fields and values"),
        ("conditions: [3]", "line 1: conditions[0] must be a list of fields and values"),
        ("a: [", "is not YAML"),
        ("? [a]\n: b", "line 1: the name of a field is expected here"),
        (b"\xff\xfe\x00", "cannot be read"),
        ("conditions:\n- region: !!python/object/apply:os.system [id]", "line 2: a value of the kind"),
        ("conditions:\n- region: !!python/name:os.system", "is not YAML"),
        ("seed: " + "9" * 9999, "is not YAML"),
        ("seed: !!timestamp soon", "is not YAML"),
        ("seed: !!int ''", "is not YAML"),
        ("seed: !!bool soon", "is not YAML"),
        ("[" * 600, "is not YAML"),
        ("x" * 2**21, "too large"),
    ],
)
def test_invalid_mixture_files_are_refused(tmp_path: Path, bundle: Bundle, text: str | bytes, says: str) -> None:
    """A mistake would be found after a night, in a traceback, or never; a stranger's file would run code."""
    with pytest.raises(MedvarError) as error:
        read(tmp_path, bundle, text)
    assert says in str(error.value)
    assert str(tmp_path / "mix.yaml") in str(error.value)


def test_aliases_do_not_unfold(tmp_path: Path, bundle: Bundle) -> None:
    """A kilobyte of a stranger's YAML would fill the memory."""
    bomb = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
    with pytest.raises(MedvarError):
        read(tmp_path, bundle, "a0: &a0 [x]\n" + bomb)
    shared = "conditions:\n- sampling: &s {top_p: 0.5}\n- sampling: *s\n"
    with pytest.raises(MedvarError, match="write the value out"):
        read(tmp_path, bundle, shared)


def test_a_file_that_is_not_there(tmp_path: Path, bundle: Bundle) -> None:
    """A mistyped name would be a traceback."""
    for path, says in (
        (tmp_path / "none.yaml", "The mixture .* cannot be read"),
        (tmp_path, "it is not a regular file"),
    ):
        with pytest.raises(MedvarError, match=says):
            read_mixture(path, bundle)


@settings(max_examples=25)
@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=6))
def test_every_beginning_of_a_set_is_mixed(weights: list[float]) -> None:
    """A set stopped early would lack a condition; a share would be another than asked for."""
    kinds = [Condition(region=str(number)) for number in range(len(weights))]
    mixture = Mixture(
        tuple(Component(kind, Sampling(), 0, weight) for kind, weight in zip(kinds, weights, strict=True))
    )
    requests = mixture.requests(range(2000))
    for count in (100, 1000, 2000):
        found = Counter(request.condition for request in requests[:count])
        for kind, weight in zip(kinds, weights, strict=True):
            assert abs(found[kind] - count * weight / sum(weights)) < 12
    assert [request.seed for request in requests] == list(range(2000))
    assert mixture.requests([1234, 7]) == [requests[1234], requests[7]]
    assert Mixture.from_dict(mixture.to_dict()) == mixture


def test_counts_are_exact(tmp_path: Path, bundle: Bundle) -> None:
    """Whoever asks for 3 and 2 images would get 4 and 1."""
    mixture = read(tmp_path, bundle, "conditions:\n- {region: chest, count: 3}\n- {region: brain, count: 2}\n")
    assert mixture.total == 5
    assert SetPlan(mixture, 5, "model").counts() == {Condition(region="chest"): 3, Condition(region="brain"): 2}
    with pytest.raises(MedvarError, match="5 images together, but 6"):
        SetPlan(mixture, 6, "model")


def test_labels_of_like_spelling_have_folders_of_their_own() -> None:
    """Two classes would be mixed into one; or a label would name a folder outside the set."""
    labels = ("T1+", "T1-", "t1 ", "../../etc")
    names = Mixture(tuple(Component(Condition(dataset=name), Sampling()) for name in labels)).folders()
    assert list(names.values()) == ["t1_", "t1_-2", "t1_-3", "_etc"]


@pytest.mark.parametrize("count", [0, 10**9])
def test_the_number_of_images_follows_from_counts(count: int, mixture: Mixture) -> None:
    """A typing mistake would fill the memory with units."""
    with pytest.raises(MedvarError, match="1 to"):
        SetPlan(mixture, count, "model")


def test_too_large_seeds_are_refused() -> None:
    """The last images of a night would fail."""
    last = Mixture((Component(Condition(), Sampling(), 2**64 - 5),))
    SetPlan(last, 5, "model")
    with pytest.raises(MedvarError, match="The largest seed is"):
        SetPlan(last, 6, "model")


def test_a_set_with_tokens_left_out_keeps_its_name() -> None:
    """A set of an earlier version would be made again with other images, as if it were the same."""
    mixture = Mixture.of(Condition("CT"), Sampling())
    values = mixture.to_dict()
    values["ingredients"][0]["sampling"]["skip_settled"] = 0.5
    older = Mixture.from_dict(values)
    assert older.to_dict() == values
    assert [request.skipped for request in older.requests(range(2))] == [0.5, 0.5]
