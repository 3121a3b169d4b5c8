"""Do honest clients of `medvar serve` get their images, bit for bit, while hostile ones do what they can?

    python benchmarks/soak.py [--seconds 600] [--honest 2] [--hostile 4] [--bundle BUNDLE]

Honest clients draw images of a few seeds again and again, and each is compared with the one that was drawn in this
process before. Hostile clients, at addresses of their own (127.0.0.2 and up, on Linux), send half a header or half a
body and wait, leave in the middle of a stream, and send noise, false lengths, odd arrays and deep JSON. Printed are the
honest images, how many differ, how many requests failed, the longest wait, what hostile clients did, and the memory of
the server at the beginning and the end. The exit status is 1 when an image differs or an honest request failed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from generate import named
from serve import server

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.bundle.read import Bundle, find_bundle, read_bundle
from medvar_engine.errors import MedvarError
from medvar_engine.generate.generator import Generator
from medvar_engine.remote.connection import Server
from medvar_engine.remote.messages import pack
from medvar_engine.remote.remote_backend import RemoteBackend
from medvar_engine.request import Request
from medvar_engine.types import FloatArray

SEEDS = range(4)
PATIENCE = 3.0  # seconds that a hostile client waits for an answer, or makes the server wait
Send = Callable[[socket.socket, random.Random], None]


def main() -> None:
    """Run it and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600, help="how long (default 600)")
    parser.add_argument("--honest", type=int, default=2, help="honest clients at once (default 2)")
    parser.add_argument("--hostile", type=int, default=4, help="hostile clients at once (default 4)")
    parser.add_argument("--bundle", help="folder or name (default: the first that ships)")
    options = parser.parse_args()
    bundle = read_bundle(find_bundle(options.bundle))
    generator = Generator(OnnxBackend(bundle, device="cpu"))
    expected = [draw(generator, bundle, seed) for seed in SEEDS]
    counts, waits = Counter[str](), [0.0]
    with server(str(bundle.path), "cpu") as address, ThreadPoolExecutor(options.honest + options.hostile) as pool:
        over, before = threading.Event(), memory_of_child()
        work = [pool.submit(honest, address, bundle, expected, over, counts, waits) for _ in range(options.honest)]
        work += [pool.submit(hostile, address, number, over, counts) for number in range(options.hostile)]
        time.sleep(options.seconds)
        over.set()
        for one in work:
            one.result()
        after = memory_of_child()
    for name, count in sorted(counts.items()):
        print(f"{count:7d} {name}")
    print(f"the longest image took {max(waits):.1f} s; memory of the server {before} MiB, then {after} MiB")
    sys.exit(int(bool(counts["honest: differing images"] or counts["honest: failed"])))


def draw(generator: Generator, bundle: Bundle, seed: int) -> FloatArray:
    """One image."""
    request = Request(named(bundle.labels), seed, sampling=bundle.sampling)
    return generator.image(generator.finish(generator.start([request])))


def honest(
    address: str,
    bundle: Bundle,
    expected: list[FloatArray],
    over: threading.Event,
    counts: Counter[str],
    waits: list[float],
) -> None:
    """Draw images and compare them, until it is over."""
    chance = random.Random(threading.get_ident())
    while not over.is_set():
        seed, began = chance.choice(SEEDS), time.monotonic()
        try:
            image = draw(Generator(RemoteBackend(Server(address))), bundle, seed)
        except MedvarError as error:
            counts["honest: failed"] += 1
            print(f"an honest client was refused: {error}", flush=True)
            continue
        waits.append(time.monotonic() - began)
        equal = np.array_equal(image, expected[seed])
        counts["honest: equal images" if equal else "honest: differing images"] += 1


def hostile(address: str, number: int, over: threading.Event, counts: Counter[str]) -> None:
    """Attack in every way, until it is over."""
    chance, place = random.Random(number), urlsplit(address)
    own = f"127.0.0.{number + 2}" if sys.platform == "linux" else ""
    while not over.is_set():
        name = chance.choice(sorted(ATTACKS))
        try:
            with socket.create_connection(
                (place.hostname, place.port), timeout=PATIENCE, source_address=(own, 0)
            ) as peer:
                ATTACKS[name](peer, chance)
        except OSError:
            counts["hostile: cut off by the server"] += 1
        counts[f"hostile: {name}"] += 1


def post(path: str, body: bytes, length: int | None = None) -> bytes:
    """A request that claims ``length`` bytes."""
    claimed = len(body) if length is None else length
    return f"POST /{path} HTTP/1.1\r\nHost: x\r\nContent-Length: {claimed}\r\n\r\n".encode() + body


def half_a_header(peer: socket.socket, chance: random.Random) -> None:
    """And wait."""
    peer.sendall(b"POST /step HTTP/1.1\r\nHost: x\r\nX: " + b"a" * chance.randrange(200))
    peer.recv(100)


def half_a_body(peer: socket.socket, chance: random.Random) -> None:
    """And wait."""
    peer.sendall(post("generate", b'{"requests": [', chance.choice((1000, 10**6, 2**31))))
    peer.recv(100)


def noise(peer: socket.socket, chance: random.Random) -> None:
    """Bytes that are no HTTP."""
    peer.sendall(chance.randbytes(chance.randrange(1, 5000)))
    peer.recv(100)


def leave(peer: socket.socket, chance: random.Random) -> None:
    """Ask for images, and leave at the first bytes of the answer."""
    peer.sendall(post("generate", json.dumps({"requests": [{"seed": chance.randrange(9)}] * 4}).encode()))
    peer.recv(chance.choice((1, 200)))


def odd_arrays(peer: socket.socket, chance: random.Random) -> None:
    """Arrays that the networks do not take."""
    features = np.full((1, chance.choice((0, 1, 400)), 4), np.nan, dtype=np.float32)
    labels = np.full((1, 3), chance.choice((-1, 0, 99)), dtype=np.int64)
    peer.sendall(post("step", pack({}, {"labels": labels, "features": features})))
    peer.recv(1000)


def deep_json(peer: socket.socket, chance: random.Random) -> None:
    """Lists in lists."""
    peer.sendall(post("generate", b"[" * chance.choice((100, 100_000))))
    peer.recv(1000)


def come_and_go(peer: socket.socket, _: random.Random) -> None:
    """Connect only."""


ATTACKS: dict[str, Send] = {
    one.__name__.replace("_", " "): one
    for one in (half_a_header, half_a_body, noise, leave, odd_arrays, deep_json, come_and_go)
}


def memory_of_child() -> int:
    """MiB of resident memory of the server, the only child of this process; 0 where that is not known."""
    try:
        (child,) = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
        lines = Path(f"/proc/{child}/status").read_text().splitlines()
    except (OSError, ValueError):
        return 0
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS"))


if __name__ == "__main__":
    main()
