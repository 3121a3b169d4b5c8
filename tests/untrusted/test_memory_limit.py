"""The limits of memory that sessions of ONNX Runtime get. None of the tests needs a GPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest

from medvar_engine.backends import onnx_sessions
from medvar_engine.backends.key_value_graphs import average_graph
from medvar_engine.backends.onnx_sessions import Sessions
from medvar_engine.untrusted.memory_limit import open_session, run_bytes

CPU, GPU = "CPUExecutionProvider", "CUDAExecutionProvider"


class Opened:
    """Stands for a session that runs on the first provider."""

    def __init__(self, content: bytes, options: Any, providers: list[Any]) -> None:
        self.asked = providers
        self._providers = [one if isinstance(one, str) else one[0] for one in providers]

    def get_providers(self) -> list[str]:
        return self._providers


def runtime(session: type = Opened) -> Any:
    names = ("SessionOptions", "OrtMemoryInfo", "OrtAllocatorType", "OrtMemType", "OrtArenaCfg")
    own = {name: getattr(onnxruntime, name) for name in names}
    pools: list[Any] = []
    return SimpleNamespace(
        **own,
        InferenceSession=session,
        pools=pools,
        create_and_register_allocator=lambda place, pool: pools.append(pool),
    )


def opened(own: Any, providers: list[str]) -> Any:
    options = own.SessionOptions()
    return open_session(own, average_graph(), options, providers, 100, weights=0, most_on_gpu=2**33)


def test_a_gpu_gets_its_own_limit() -> None:
    """A stranger's graph of a kilobyte would fill a GPU that others use, too."""
    own = runtime()
    assert opened(own, [GPU, CPU]).asked == [(GPU, {"gpu_mem_limit": 2**33}), CPU]
    assert not own.pools


def test_without_a_gpu_the_limit_is_that_of_the_cpu() -> None:
    """Where CUDA is installed without a GPU, a graph would run on the CPU without a limit."""

    class OnTheCpu(Opened):
        def get_providers(self) -> list[str]:
            return [CPU]

    for providers in ([CPU], [GPU, CPU]):
        own = runtime(OnTheCpu)
        assert opened(own, providers).asked == [CPU]
        assert len(own.pools) == 1


@pytest.mark.parametrize("side", [128, 256])
def test_a_gpu_may_hold_a_batch(monkeypatch: pytest.MonkeyPatch, side: int) -> None:
    """The limit of one image would refuse an honest batch of 16 with guidance, which a GPU runs as a whole."""
    asked: dict[str, Any] = {}
    monkeypatch.setattr(onnx_sessions, "open_session", lambda *given, **named: asked.update(named, most=given[4]))
    sessions = Sessions(SimpleNamespace(image_size=side), [GPU, CPU], 1)  # type: ignore[arg-type]
    sessions._session(b"", None, 1000)
    assert asked["most"] == run_bytes(1000, side**2, onnx_sessions._PIXEL_BYTES)
    assert asked["most_on_gpu"] > 16 * asked["most"]
