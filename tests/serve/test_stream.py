"""Whole images over a socket, scale by scale."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.generate.generator import Generator
from medvar_engine.generate.trace import Trace, traces_from_dict, traces_to_dict
from medvar_engine.remote.connection import Server
from medvar_engine.remote.messages import Message
from medvar_engine.request import Request, Sampling
from medvar_engine.types import FloatArray

Served = Callable[..., str]
REQUESTS = [
    Request(Condition("CT", "chest"), 3, Sampling(guidance=2.0)),
    Request(Condition("MR"), 4, Sampling(top_k=5)),
]


def streamed(address: str, **asked: Any) -> list[Message]:
    return list(Server(address, patience=20).stream("generate", asked))


def test_each_scale_comes_as_it_is_here_then_images_and_traces(served: Served, tiny_onnx: OnnxBackend) -> None:
    """A script would get other images from a server, or none it could make again."""
    *scales, last = streamed(served(), requests=[request.to_dict() for request in REQUESTS])
    generator = Generator(tiny_onnx)
    here = generator.finish(generator.start(REQUESTS))
    for k, message in enumerate(scales):
        assert message.values["scale"] == k
        np.testing.assert_array_equal(message.arrays["tokens"], here.pyramid.tokens(k))
        np.testing.assert_array_equal(message.arrays["entropy"], here.entropy[k])
        if k + 1 < len(scales):
            np.testing.assert_array_equal(message.arrays["preview"], generator.preview(here, k))
    np.testing.assert_array_equal(last.arrays["images"], generator.image(here))
    assert [trace.to_json() for trace in traces_from_dict(last.values["traces"])] == [t.to_json() for t in here.traces]


def test_previews_can_be_left_out(served: Served) -> None:
    """Over a thin line, previews are most of what is sent."""
    assert all("preview" not in message.arrays for message in streamed(served(), requests=[{}], previews=False))


def test_a_resample_is_continued(served: Served, tiny_onnx: OnnxBackend) -> None:
    """A script could make new images only."""
    generator = Generator(tiny_onnx)
    parent = generator.finish(generator.start(REQUESTS[:1])).trace(0)
    mask = np.zeros((16, 16), dtype=np.bool_)
    mask[4:] = True
    begun = generator.resample(parent, 2, seed=9, mask=mask)
    *scales, last = streamed(served(), traces=traces_to_dict(begun.traces))
    assert [message.values["scale"] for message in scales] == [2, 3]
    np.testing.assert_array_equal(last.arrays["images"], generator.image(generator.finish(begun)))


def test_traces_of_another_model_are_reported(served: Served, make_trace: Callable[..., Trace]) -> None:
    """Tokens of one model would be shown as an image of another."""
    for sides in ((1, 2, 3), (1, 2, 3, 4)):
        with pytest.raises(MedvarError, match="Open the bundle that made it"):
            streamed(served(), traces=traces_to_dict([make_trace(sides)]))


def test_hanging_up_stops_the_work_within_a_scale(
    served: Served, tiny_onnx: OnnxBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU would finish what nobody waits for, and others would wait."""
    computed: list[int] = []
    going_on = threading.Event()
    step = tiny_onnx.step

    def noted(state: Any, *more: Any) -> Any:
        if state.depth == 1:
            assert going_on.wait(10)
        computed.append(state.depth)
        return step(state, *more)

    monkeypatch.setattr(tiny_onnx, "step", noted)
    address = served()
    messages: Iterator[Message] = Server(address).stream("generate", {"requests": [{}]})
    assert next(messages).values["scale"] == 0
    messages.close()  # type: ignore[attr-defined]
    threading.Timer(0.3, going_on.set).start()
    assert len(streamed(address, requests=[{"condition": {"modality": "CT"}}])) == 5
    assert computed[-3:] == [1, 2, 3]
    assert computed[:-3] in ([0, 1, 0], [0, 0])  # nothing finer of the one that was left


def test_errors_during_a_stream_are_reported(
    served: Served, tiny_onnx: OnnxBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream would just end, and half an image be taken for a whole one."""
    step = tiny_onnx.step

    def failing(state: Any, *more: Any) -> Any:
        if state.depth == 2:
            raise MedvarError("Not enough memory to run it.")
        return step(state, *more)

    monkeypatch.setattr(tiny_onnx, "step", failing)
    messages = Server(served()).stream("generate", {"requests": [{}]})
    assert [next(messages).values["scale"], next(messages).values["scale"]] == [0, 1]
    with pytest.raises(MedvarError, match="Not enough memory"):
        next(messages)


def test_copies_of_training_slices_are_withheld(
    served: Served, tiny_onnx: OnnxBackend, gated: Callable[[Path, FloatArray], Path], tmp_path: Path
) -> None:
    """A script would keep a patient's slice that `medvar generate` does not write."""
    generator = Generator(tiny_onnx)
    here = generator.finish(generator.start(REQUESTS))
    images = generator.image(here)
    bundle = gated(tmp_path / "gated", images[:1])
    asked = [request.to_dict() for request in REQUESTS]

    *scales, last = streamed(served(bundle=bundle), requests=asked)
    assert [len(message.arrays["tokens"]) for message in scales] == [2, 2, 2, 1]
    np.testing.assert_array_equal(scales[-1].arrays["tokens"], here.pyramid.tokens(3)[1:])
    np.testing.assert_array_equal(last.arrays["images"], images[1:])
    assert [trace.request for trace in traces_from_dict(last.values["traces"])] == REQUESTS[1:]
    assert [own["image"] for own in last.values["withheld"]] == [0]
    assert [own["flagged"] for own in last.values["nearness"]] == [False]

    *scales, last = streamed(served(bundle=bundle), requests=asked[:1])
    assert [message.values["scale"] for message in scales] == [0, 1, 2]
    assert last.arrays["images"].shape == (0, 16, 16)
    assert traces_from_dict(last.values["traces"]) == []

    *scales, last = streamed(served(bundle=bundle, copy_policy="flag"), requests=asked)
    np.testing.assert_array_equal(last.arrays["images"], images)
    assert [own["flagged"] for own in last.values["nearness"]] == [True, False]
    assert last.values["withheld"] == []

    *scales, last = streamed(served(bundle=bundle, copy_policy="off"), requests=asked)
    assert (len(last.arrays["images"]), set(last.values)) == (2, {"traces"})


def test_withholding_needs_an_index(served: Served) -> None:
    """Whoever asks for a gate would believe that there is one."""
    with pytest.raises(MedvarError, match="has no training index"):
        served(copy_policy="withhold")


def test_invalid_numbers_are_reported(served: Served, tiny_onnx: OnnxBackend) -> None:
    """A script would see its stream cut, and not learn why."""
    generator = Generator(tiny_onnx)
    values = traces_to_dict([generator.step(generator.start(REQUESTS[:1])).trace(0)])
    values["images"][0]["entropy"] = [[None]]
    with pytest.raises(MedvarError, match="entropy"):
        streamed(served(), traces=values)


def test_a_bug_is_the_last_frame(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that ends without a word is taken for a broken line, and asked for again without end."""

    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(Generator, "image", broken)
    with pytest.raises(MedvarError, match="error occurred in the server") as raised:
        streamed(served(), requests=[{}])
    assert "secret" not in str(raised.value)


def test_nan_logits_are_refused(served: Served, tiny_onnx: OnnxBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Damaged weights would give images that mean nothing."""
    step = type(tiny_onnx).step

    def nan(self: Any, *arguments: Any) -> Any:
        logits, state = step(self, *arguments)
        return [own * np.nan for own in logits], state

    monkeypatch.setattr(type(tiny_onnx), "step", nan)
    with pytest.raises(MedvarError, match="NaN"):
        streamed(served(), requests=[{}])
