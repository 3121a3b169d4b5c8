"""An image is made again from its trace, through every kind of edit, or it is said what differs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.generate.edits import Graft
from medvar_engine.generate.generator import Generator
from medvar_engine.generate.replay import replay
from medvar_engine.generate.trace import Trace
from medvar_engine.request import Request


@pytest.fixture
def generator(tiny_onnx: OnnxBackend) -> Generator:
    return Generator(tiny_onnx)


def finished(generator: Generator, seed: int = 1) -> Trace:
    return generator.finish(generator.start([Request(Condition("CT", "chest", "axial"), seed)])).trace(0)


def test_every_edit_is_replayed(generator: Generator, tiny_onnx: OnnxBackend) -> None:
    """A file of an edited image could not be made again, though it says how."""
    size = tiny_onnx.info.image_size
    mask = np.zeros((size, size), dtype=bool)
    mask[: size // 2] = True
    first, other = finished(generator), finished(generator, 2)
    inside = generator.finish(generator.resample(first, 1, seed=5, mask=mask, exact_outside=True, soft_edge=2.0)).trace(
        0
    )
    locked = generator.finish(generator.resample(inside, 1, seed=6, condition=Condition("MR"), keep=[2])).trace(0)
    by_hand = generator.finish(generator.with_token(locked, 1, 0, 0, 3)).trace(0)
    grafted = generator.edit(by_hand, Graft(2, other)).trace(0)
    inverted = generator.finish(
        generator.resample(grafted, 0, condition=Condition("CT"), inversion=generator.invert(grafted))
    ).trace(0)
    read = Trace.from_json(inverted.to_json())
    fresh = Generator(tiny_onnx)
    again = replay(fresh, read)
    assert again.pyramid == inverted.pyramid
    assert again.trace(0).to_json() == inverted.to_json()


def test_a_real_image_is_not_drawn(generator: Generator, tiny_onnx: OnnxBackend) -> None:
    """Variations of a real scan could not be made again without the scan itself, which must not be in the file."""
    size = tiny_onnx.info.image_size
    real = np.linspace(-1, 1, size * size, dtype=np.float32).reshape(1, size, size)
    encoded = generator.encode(real, [Request(Condition("CT"))]).trace(0)
    varied = generator.finish(generator.resample(encoded, 2, seed=3)).trace(0)
    assert replay(Generator(tiny_onnx), Trace.from_json(varied.to_json())).pyramid == varied.pyramid


def test_an_unfinished_image_is_replayed_to_its_depth(generator: Generator) -> None:
    """The trace of an image that was stopped at scale 2 would come back with scales that nobody has seen."""
    *_, part = generator.run(generator.start([Request(seed=4)]), until=1)
    assert replay(generator, part.trace(0)).pyramid == part.pyramid


def test_says_what_differs(generator: Generator) -> None:
    """Who checks a file that was tampered with, or comes from another machine, would be told that all is well."""
    trace = finished(generator)
    token = int(trace.pyramid.maps[2][0, 1, 1])
    maps = [m.copy() for m in trace.pyramid.maps]
    maps[2][0, 1, 1] = token + 1 if token == 0 else token - 1
    forged = replace(trace, pyramid=type(trace.pyramid)(trace.pyramid.schedule, tuple(maps)))
    with pytest.raises(MedvarError, match=r"Scale 2 .*1 of \d+ tokens differ"):
        replay(generator, forged)
    with pytest.raises(MedvarError, match="another model"):
        replay(generator, replace(trace, bundle_id="0" * 64))


def test_an_image_with_tokens_left_out_is_shown_but_not_made_again(generator: Generator) -> None:
    """Images of an earlier version would not open any more, or others would come out under their names."""
    trace = finished(generator)
    text = trace.to_json().replace('"top_p":0.96', '"top_p":0.96,"skip_settled":0.25')
    older = Trace.from_json(text)
    assert older.request == replace(trace.request, skipped=0.25)
    shown = generator.restore([older])
    assert shown.trace(0).to_json() == text
    np.testing.assert_array_equal(generator.image(shown), generator.image(generator.restore([trace])))
    with pytest.raises(MedvarError, match=r"skip_settled 0\.25.*not make it again"):
        replay(generator, older)
    again = generator.finish(generator.resample(older, 2, seed=8)).trace(0)
    assert again.pyramid == generator.finish(generator.resample(trace, 2, seed=8)).trace(0).pyramid
    assert again.request.skipped == 0
    with pytest.raises(MedvarError, match="not make it again"):
        replay(generator, again)
    *_, part = generator.run(generator.start([trace.request]), until=1)
    unfinished = replace(part.trace(0), request=older.request)
    with pytest.raises(MedvarError, match="or finish it"):
        generator.finish(generator.restore([unfinished]))


def test_a_file_without_skipped_tokens_is_replayed(generator: Generator) -> None:
    """Half of an older collection would be refused for a field that says nothing."""
    trace = finished(generator)
    read = Trace.from_json(trace.to_json().replace('"top_p":0.96', '"top_p":0.96,"skip_settled":0.0'))
    assert replay(generator, read).trace(0).to_json() == trace.to_json()
