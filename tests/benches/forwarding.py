"""Counts what a whole gateway executes for each message that it forwards, under callgrind.

Beside what the micro-benchmarks count it is all the rest of user space: tasks that are woken, messages
between actors, buffers, timers. What the kernel does is not counted.

A gateway with one worker is put under load by `gateway bench pairs` twice, for a shorter and for a longer
time. What the second took more, less what the gateway does in as much time without a load, divided by the
messages that came more, is the count. It is the same in every run within 3 %.
"""

import contextlib
import json
import os
import re
import resource
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

#: For each case the flags of `gateway bench pairs`, and how many services are there that do nothing. In all of
#: them 8,192 messages are in flight: more would not arrive before the load gives up on them.
CASES = {
    "forward_message by_8_pairs": (["--pairs=8"], 0),
    "forward_message by_64_pairs": (["--pairs=64", "--window=128"], 0),
    "forward_message acknowledged": (["--pairs=8", "--ack"], 0),
    "forward_message beside_4096_idle": (["--pairs=8"], 4096),
    "forward_message of_1024_bytes": (["--pairs=8", "--size=1024"], 0),
}

#: How many times as much as by 8 pairs a message may take, on any machine.
BOUNDS = {
    "forward_message by_64_pairs": 1.2,
    "forward_message acknowledged": 1.6,
    "forward_message beside_4096_idle": 1.1,
}
BASE = "forward_message by_8_pairs"

#: The first is slow, as callgrind translates the code.
FIRST_SECONDS = 2
SHORTER_SECONDS = 1
LONGER_SECONDS = 5
REST_SECONDS = 2
#: Fewer are no load, but a gateway or a machine that stands still.
LEAST_MESSAGES = 5_000
START_SECONDS = 60
BENCH_SECONDS = 300
STOP_SECONDS = 60
#: Connections of the load, and descriptors that are not for connections.
SPARE_CONNECTIONS = 400
SPARE_DESCRIPTORS = 400


class Failed(Exception):
    """A gateway, its load or callgrind did not do what it has to."""


def counts(binary: Path) -> dict[str, int]:
    """The instructions for each message, by the case's name."""
    return {name: count(binary, flags, idle) for name, (flags, idle) in CASES.items()}


def beyond_bounds(found: dict[str, int]) -> list[str]:
    """A line for each case that takes more than it may beside the first."""
    return [
        f"{name} takes {found[name] / found[BASE]:.2f} times what {BASE} does, more than {bound}"
        for name, bound in BOUNDS.items()
        if name in found and found[name] > found[BASE] * bound
    ]


def count(binary: Path, flags: list[str], idle: int) -> int:
    with tempfile.TemporaryDirectory() as made, contextlib.ExitStack() as services:
        directory = Path(made)
        with started(binary, directory, idle) as (pid, port):
            for index in range(idle):
                services.enter_context(identified(port, f"idle-{index}"))
            control("--instr=on", pid)
            load = [binary, "bench", "pairs", f"--url=ws://127.0.0.1:{port}/gateway", "--json", *flags]
            times = (FIRST_SECONDS, SHORTER_SECONDS, LONGER_SECONDS)
            _, shorter, longer = (loaded(load, seconds, pid) for seconds in times)
            time.sleep(REST_SECONDS)
            control("--dump", pid)
        _, in_shorter, in_longer, at_rest = (executed(directory / f"counts.{dump}") for dump in (1, 2, 3, 4))
    seconds, messages = (more - less for less, more in zip(shorter, longer))
    if messages < LEAST_MESSAGES:
        raise Failed(f"{flags}: only {messages} messages more in {LONGER_SECONDS} s than in {SHORTER_SECONDS} s")
    return round((in_longer - in_shorter - at_rest * seconds / REST_SECONDS) / messages)


@contextlib.contextmanager
def started(binary: Path, directory: Path, idle: int) -> Iterator[tuple[int, int]]:
    """A gateway of which nothing is counted yet: its process id and its port."""
    connections = idle + SPARE_CONNECTIONS
    # The gateway has two for each connection.
    allow_descriptors(2 * connections + SPARE_DESCRIPTORS)
    command = ["valgrind", "--tool=callgrind", "--instr-atstart=no"]
    command += [f"--callgrind-out-file={directory / 'counts'}", binary, "serve", "--workers=1"]
    settings = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    settings |= {
        "GATEWAY_LISTEN": "127.0.0.1:0",
        "GATEWAY_DATA_DIR": "none",
        "GATEWAY_MAX_CONNECTIONS": str(connections - SPARE_CONNECTIONS // 2),
        "GATEWAY_MAX_UNIDENTIFIED": str(SPARE_CONNECTIONS // 8),
        # No ping comes amid the messages.
        "GATEWAY_HEARTBEAT_MS": "600000",
        "RUST_LOG": "info",
    }
    log = directory / "log"
    with log.open("w") as written:
        process = subprocess.Popen(command, env=settings, stdin=subprocess.DEVNULL, stderr=written)
    try:
        yield process.pid, port_in(log, process)
        process.terminate()
        if process.wait(STOP_SECONDS) != 0:
            raise Failed(f"the gateway ended with {process.returncode}")
    except (Failed, OSError, subprocess.SubprocessError) as error:
        raise Failed(f"{error}; the gateway's log:\n{log.read_text()}") from error
    finally:
        process.kill()
        process.wait()


def allow_descriptors(needed: int) -> None:
    """For this process and those that it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise Failed(f"a process may open {hard} files here (ulimit -Hn), and {needed} are needed")
    if soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))


def port_in(log: Path, process: subprocess.Popen) -> int:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r"listening on 127\.0\.0\.1:(\d+)", log.read_text()):
            return int(found[1])
        time.sleep(0.05)
    raise Failed("the gateway does not listen")


def loaded(load: list, seconds: float, pid: int) -> tuple[float, int]:
    """Has the instructions up to the end of such a load dumped; how long it took, and its messages."""
    begun = time.monotonic()
    run = subprocess.run([*load, f"--seconds={seconds}"], capture_output=True, text=True, timeout=BENCH_SECONDS)
    if run.returncode != 0:
        raise Failed(f"the load found faults: {run.stdout}{run.stderr}")
    control("--dump", pid)
    return time.monotonic() - begun, json.loads(run.stdout)["checks"]["arrived"]


def executed(dump: Path) -> int:
    """The instructions since the dump before."""
    totals = re.search(r"^totals: (\d+)", dump.read_text(), re.MULTILINE)
    if totals is None:
        raise Failed(f"callgrind counted nothing in {dump.name}")
    return int(totals[1])


def control(wish: str, pid: int) -> None:
    run = subprocess.run(["callgrind_control", wish, str(pid)], capture_output=True, text=True, timeout=STOP_SECONDS)
    if run.returncode != 0 or "OK" not in run.stdout:
        raise Failed(f"callgrind_control {wish} failed: {run.stdout}{run.stderr}")


def identified(port: int, name: str) -> socket.socket:
    """A service that has identified, and says nothing from then on."""
    service = socket.create_connection(("127.0.0.1", port), timeout=START_SECONDS)
    try:
        identify(service, port, name)
    except BaseException:
        service.close()
        raise
    return service


def identify(service: socket.socket, port: int, name: str) -> None:
    request = (
        f"GET /gateway HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    message = json.dumps({"s": name, "t": "gateway:opcode", "d": {"opcode": 0}}).encode()
    # A text frame of less than 126 bytes, whose mask of zeros changes nothing (RFC 6455, section 5.3).
    service.sendall(request.encode() + struct.pack("!BB4x", 0x81, 0x80 | len(message)) + message)
    answer = b""
    while b'"opcode":1' not in answer:
        piece = service.recv(4096)
        if not piece:
            raise Failed(f"{name} was not accepted: {answer!r}")
        answer += piece
