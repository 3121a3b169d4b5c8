from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.generate.trace import Edit, Encoded, Graft, Outside, Replace, Request, Resample, Trace
from medvar_engine.request import MAX_SEED, Sampling

MakeTrace = Callable[..., Trace]


def assert_same(one: Trace, other: Trace) -> None:
    """Equal to the last token, through edits and parents."""
    assert one.to_json() == other.to_json()
    assert one.request == other.request
    assert one.pyramid == other.pyramid
    assert (one.bundle_id, one.version) == (other.bundle_id, other.version)
    for mine, its in zip(one.entropy, other.entropy, strict=True):
        np.testing.assert_array_equal(mine, its)


def test_a_trace_survives_json(make_trace: MakeTrace) -> None:
    """An image's file would not make the image again."""
    condition = Condition("MR", "brain", "axial", "ixi")
    trace = make_trace((1, 2, 3, 4), seed=MAX_SEED - 1, condition=condition)
    again = Trace.from_json(trace.to_json())
    assert_same(again, trace)
    assert again.request == Request(condition, MAX_SEED - 1, Sampling(guidance=2.0, top_k=9))
    assert "\n" not in trace.to_json()


@pytest.mark.parametrize("kind", ["resample", "masked", "replace", "encoded"])
def test_edits_survive_json(make_trace: MakeTrace, kind: str) -> None:
    """The history panel would not say how an image was made, and undo could not tell."""
    mask = np.random.default_rng(1).random((13, 7)) > 0.5
    edits: dict[str, Edit] = {
        "resample": Resample(2),
        "masked": Resample(1, mask),
        "replace": Replace(1, np.eye(2, dtype=bool), np.array([[1, 2], [3, 4]])),
        "encoded": Encoded("00ff"),
    }
    again = Trace.from_json(make_trace(edit=edits[kind], parent=make_trace(seed=5)).to_json())
    assert again.parent is not None
    assert_same(again.parent, make_trace(seed=5))
    match again.edit:
        case Resample(from_scale, None):
            assert from_scale == 2
        case Resample(from_scale, found):
            assert from_scale == 1
            np.testing.assert_array_equal(found, mask)
        case Replace(scale, where, tokens):
            assert (scale, where.tolist(), tokens.tolist()) == (1, [[True, False], [False, True]], [[1, 2], [3, 4]])
        case Encoded(image):
            assert image == "00ff"
        case _:
            pytest.fail(f"{again.edit} is no edit")


def test_all_fields_of_a_resample_survive_json(make_trace: MakeTrace) -> None:
    """An image whose outside was kept, or whose noise was another's, could not be continued from its file."""
    inverted = Request(Condition("CT"), 2**64 - 1, Sampling(top_k=3))
    edit = Resample(0, np.eye(5, dtype=bool), (1, 2), Outside(2.5), inverted)
    again = Trace.from_json(make_trace(edit=edit, parent=make_trace()).to_json()).edit
    assert isinstance(again, Resample)
    assert (again.from_scale, again.keep, again.outside, again.inverted) == (0, (1, 2), Outside(2.5), inverted)


def test_files_of_earlier_versions_are_read(make_trace: MakeTrace) -> None:
    """Images made before scales could be locked would not open any more."""
    content = json.loads(make_trace(edit=Resample(1), parent=make_trace()).to_json())
    content["images"][-1]["edit"] = {"kind": "resample", "from_scale": 1, "mask": None}
    again = Trace.from_json(json.dumps(content)).edit
    assert isinstance(again, Resample)
    assert (again.from_scale, again.mask, again.keep, again.outside, again.inverted) == (1, None, (), None, None)


@pytest.mark.parametrize("written", [{}, {"real": True}, {"real": None}, {"real": 0}, {"real": "false"}], ids=str)
def test_an_encoded_image_is_real_unless_its_file_denies_it(make_trace: MakeTrace, written: dict[str, Any]) -> None:
    """A patient's image in a file of an earlier version, or in a damaged one, would count as synthetic."""
    text = make_trace(edit=Encoded("00ff")).to_json()
    assert json.loads(text)["images"][-1]["edit"] == {"kind": "encoded", "image": "00ff"}
    trace = Trace.from_json(_change(text, edit={"kind": "encoded", "image": "00ff", **written}))
    assert trace.edit == Encoded("00ff")
    assert trace.encoded
    assert make_trace(edit=Resample(1), parent=trace).of_real_image


def test_an_encoded_synthetic_image_stays_synthetic(make_trace: MakeTrace) -> None:
    """Files of images without any patient would say that they show one."""
    source = make_trace(edit=Encoded("00ff", real=False))
    again = Trace.from_json(make_trace(edit=Resample(1), parent=source).to_json())
    assert again.parent is not None
    assert again.parent.edit == source.edit
    assert not again.parent.encoded
    assert not again.of_real_image


def test_a_long_session_can_be_saved(make_trace: MakeTrace) -> None:
    """After an afternoon of resampling, saving would end in a recursion error."""
    trace = make_trace((1,))
    for _ in range(3000):
        trace = make_trace((1,), edit=Resample(0), parent=trace)
    again: Trace | None = Trace.from_json(trace.to_json())
    generations = 0
    while again is not None:
        generations, again = generations + 1, again.parent
    assert generations == 3001


def test_shared_ancestors_are_written_once(make_trace: MakeTrace) -> None:
    """Grafting back and forth between two images would double the file each time."""
    one = make_trace(seed=1)
    two = make_trace(seed=2, edit=Resample(1), parent=one)
    size = len(two.to_json())
    for _ in range(30):
        one, two = two, make_trace(seed=3, edit=Graft(1, one), parent=two)
    assert len(two.to_json()) < 40 * size
    again = Trace.from_json(two.to_json())
    assert_same(again, two)
    assert isinstance(again.edit, Graft)
    assert again.parent is not None
    assert again.parent.parent is again.edit.coarse


def _change(text: str, **values: Any) -> str:
    content = json.loads(text)
    content["images"][-1] |= values
    return json.dumps(content)


@pytest.mark.parametrize(
    "values",
    [
        {"tokens": [1, 2]},
        {"tokens": [[1]]},
        {"tokens": ["a"] * 14},
        {"tokens": [-1] * 14},
        {"tokens": [1e400] * 14},
        {"tokens": None},
        {"seed": -1},
        {"seed": 2**64},
        {"seed": "x"},
        {"schedule": [3, 2, 1]},
        {"schedule": 3},
        {"sampling": {"temperature": -1}},
        {"sampling": {"guidance": float("nan")}},
        {"sampling": {"top_k": 1.5}},
        {"sampling": {"unknown": 1}},
        {"condition": {"organ": "liver"}},
        {"condition": {"region": 3}},
        {"entropy": [[1, 2, 3]]},
        *({"stack": stack} for stack in ("1", 0, False, [], {}, {"slice": 0}, {"step": 0.1})),
        *({"stack": {"slice": 1, "step": 0.1, "before": one}} for one in ("12", {}, None, 5)),
        *({"stack": {"slice": 1, "step": 0.1, "before": [one]}} for one in ([1], 1.0, True, -1, 2**31)),
        *({"stack": {"slice": 0, "step": step}} for step in ("0.1", True, [0.1], 1e400, 10**400, 0, -1)),
        *({"stack": {"slice": number, "step": 0.1}} for number in ("1", 1.0, True, -1, 1024, ["x" * 500])),
        {"stack": {"slice": 0, "step": 0.1, "before": [1]}},
        {"edit": {"kind": "delete"}},
        {"edit": {"kind": "resample", "from_scale": 1, "mask": {"shape": [10**6, 10**6], "bits": ""}}},
        {"edit": {"kind": "resample", "from_scale": 1, "mask": {"shape": [-1, -8], "bits": "AA=="}}},
        {"edit": {"kind": "resample", "from_scale": 1, "mask": {"shape": [2, 2], "bits": "?"}}},
        {"edit": {"kind": "resample", "from_scale": 1, "mask": None, "keep": 3}},
        {"edit": {"kind": "resample", "from_scale": 1, "mask": None, "outside": {"soft_edge": -1}}},
        {"edit": {"kind": "resample", "from_scale": 1, "mask": None, "outside": [1]}},
        {"edit": {"kind": "resample", "from_scale": 1, "mask": None, "inverted": {"seed": 1}}},
        {"edit": {"kind": "graft", "scale": 1, "coarse": 0}},
        {"parent": 0},
        {"parent": -1},
        {"parent": {}},
    ],
    ids=str,
)
def test_damage_is_reported(make_trace: MakeTrace, values: dict[str, Any]) -> None:
    """A stranger's or a damaged file would crash the program, or fill the memory."""
    with pytest.raises(MedvarError) as caught:
        Trace.from_json(_change(make_trace().to_json(), **values))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "{}", '{"medvar_trace":1,"images":[]}', "[" * 100_000])
def test_files_that_are_not_traces_are_reported(text: str) -> None:
    """Opening some other JSON would crash the program."""
    with pytest.raises(MedvarError, match="not a MedVAR trace"):
        Trace.from_json(text)


def test_a_newer_format_asks_for_an_update(make_trace: MakeTrace) -> None:
    """Somebody with an old version would be told that the file is damaged."""
    text = make_trace().to_json().replace('"medvar_trace":1', '"medvar_trace":2')
    with pytest.raises(MedvarError, match=r"format 2.*Update"):
        Trace.from_json(text)


def test_seeds_are_checked_on_creation() -> None:
    """A seed too large for the noise would fail in the middle of a batch."""
    with pytest.raises(MedvarError, match="seed"):
        Request(seed=2**64)
    with pytest.raises(MedvarError, match="seed"):
        Request(seed=-1)


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), -float("inf"), 1e400, "nan"])
def test_numbers_that_could_not_be_saved_are_not_opened(make_trace: MakeTrace, value: Any) -> None:
    """One such image of a stranger's would make every later session unsavable."""
    values = json.loads(make_trace(parent=make_trace()).to_json())
    values["images"][0]["entropy"][1][2] = value
    with pytest.raises(MedvarError, match="damaged"):
        Trace.from_json(json.dumps(values))
