"""Limits the memory in which ONNX Runtime runs an untrusted graph, and the memory to load it."""

from __future__ import annotations

from threading import Lock
from typing import Any

from medvar_engine.untrusted.onnx_graph import may_fold

_SPARE = 32 * 2**20
_WEIGHTS = 4  # times their size, for weights that are converted
_GRACE = 5.0  # seconds to wait for another graph that is being loaded
_CPU = ["CPUExecutionProvider"]
_GPU_LIMIT = {"CUDAExecutionProvider": "gpu_mem_limit"}  # the option of a provider that limits its memory, in bytes

_loading = Lock()


def run_bytes(weights: int, places: int, bytes_per_place: int) -> int:
    """The memory for running a graph with ``weights`` bytes of weights at ``places`` pixels."""
    return _SPARE + _WEIGHTS * weights + bytes_per_place * places


def open_session(
    runtime: Any, content: bytes, options: Any, providers: list[str], most: int, *, weights: int, most_on_gpu: int
) -> Any:
    """An inference session. Its weights, results and what it computes need at most ``most`` bytes of memory.

    Beyond, a run ends with an error of the runtime; see `run_options`. Results count as long as they exist. On a GPU,
    ``most_on_gpu`` limits the GPU's memory, and operators that a GPU cannot run have no limit.

    Args:
        runtime: the package onnxruntime.
        content: the ONNX file.
        options: the other options of the session.
        providers: the execution providers.
        most: limit in bytes on a CPU.
        weights: bytes of weights in other files.
        most_on_gpu: limit in bytes on a GPU; unused if the providers include none.

    Raises:
        ValueError: if the graph could take any memory to be loaded, see `may_fold`.
    """
    if not may_fold(content, weights=weights):  # then it is computed in every run, within the limit
        options.add_session_config_entry("optimization.disable_specified_optimizers", "ConstantFolding")
    options.add_session_config_entry("session.load_model_format", "ONNX")
    if providers != _CPU:
        limited = [(name, {_GPU_LIMIT[name]: most_on_gpu}) if name in _GPU_LIMIT else name for name in providers]
        session = runtime.InferenceSession(content, options, providers=limited)
        if session.get_providers() != _CPU:
            return session
        del session  # the other device could not be used
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    # The limit is that of a pool of memory, which belongs to the sessions that are made until there is another pool.
    # As soon as a graph needs more, the pool grows by exactly what is needed.
    place = runtime.OrtMemoryInfo("Cpu", runtime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, runtime.OrtMemType.DEFAULT)
    pool = {"max_mem": most, "arena_extend_strategy": 1, "initial_chunk_size_bytes": 2**20}
    alone = _loading.acquire(timeout=_GRACE)  # not longer, because another graph may never end loading
    try:
        runtime.create_and_register_allocator(place, runtime.OrtArenaCfg(pool))
        return runtime.InferenceSession(content, options, providers=_CPU)
    finally:
        if alone:
            _loading.release()


def run_options(runtime: Any, session: Any) -> Any:
    """The options of one run of an `open_session`, after which the memory that it needed is free for others."""
    options = runtime.RunOptions()
    if session.get_providers() == _CPU:
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options
