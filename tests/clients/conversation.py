"""A conversation with the gateway, held by Python's `websockets`: an example and a test.

    pip install websockets
    python conversation.py ws://127.0.0.1:7117/gateway

The address may also come as GATEWAY_URL. Prints a line for each step and `ok` at the end; where
something is not as it should be, all that was sent and came, and the exit code is 1. A gateway
with a free shard id is all it needs. What is said here is explained in the README.
"""

import json
import os
import socket
import sys
import traceback

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

IDENTIFY, ACCEPT, REJECT = 0, 1, 2
SHARD_CONNECT, SHARD_ACCEPT, SHARD_DEATH, SHARD_WAIT = 10, 11, 12, 30
ERROR, RECEIPT, WATCH, PRESENCE = 20, 21, 23, 24
LEAVE_FOR_GOOD = 4000

SECONDS = 10  # the longest wait for anything
URL = sys.argv[1] if len(sys.argv) > 1 else os.environ["GATEWAY_URL"]
transcript = []
services = []


class Service:
    """A name and a WebSocket. The library answers the gateway's pings by itself."""

    def __init__(self, name):
        self.name = name
        # `legacy`: the connection itself, not something for `with`.
        self.websocket = connect(URL, open_timeout=SECONDS, max_size=None, proxy=None, legacy=True)
        services.append(self)

    def identify(self, **fields):
        """Says who the service is. The answer is ACCEPT or REJECT."""
        self.send_op(IDENTIFY, **fields)
        return self.receive()["d"]

    def send(self, target, topic, data, **more):
        self.send_message(f"gateway-proxy:{target}:{topic}", data, **more)

    def send_op(self, opcode, **fields):
        self.send_message("gateway:opcode", {"opcode": opcode, **fields})

    def send_message(self, topic, data, **more):
        self.send_text(json.dumps({"s": self.name, "t": topic, "d": data, **more}))

    def send_text(self, text):
        transcript.append(f"{self.name} sends {text}")
        self.websocket.send(text)

    def receive(self):
        return json.loads(self.receive_text())

    def receive_op(self, opcode, skip=None):
        """Waits for an op of the gateway's. Those numbered `skip` may come before it."""
        while True:
            message = self.receive()
            expect("what came", (message["s"], message["t"]), ("gateway", "gateway:opcode"))
            if message["d"]["opcode"] != skip:
                expect("the opcode", message["d"]["opcode"], opcode)
                return message["d"]

    def receive_text(self):
        text = self.websocket.recv(timeout=SECONDS)
        transcript.append(f"{self.name} gets {text}")
        return text

    def wait_for_close(self):
        """Waits until the gateway closes the connection, and returns the code."""
        try:
            text = self.receive_text()
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else "no close frame"
        raise AssertionError(f"expected a close, got {text}")

    def drop(self):
        """Ends the connection without a close frame, as a crash does."""
        self.websocket.socket.shutdown(socket.SHUT_RDWR)

    def leave(self):
        """Ends the session: mailbox and shard ids are given up at once."""
        self.websocket.close(LEAVE_FOR_GOOD)


def expect(what, got, wanted):
    if got != wanted:
        raise AssertionError(f"{what}: expected {wanted!r}, got {got!r}")


def step(line):
    transcript.append(f"--- {line}")
    print(f"python: {line}", flush=True)


def converse():
    backend_name, shard_name = f"py-backend-{os.getpid()}", f"py-shard-{os.getpid()}"

    backend = Service(backend_name)
    accept = backend.identify(receipts=True)
    expect("the answer", (accept["opcode"], accept["service"]), (ACCEPT, backend_name))
    expect("resumed, shards, version", (accept["resumed"], accept["shards"], accept["version"]), (False, [], 1))
    expect("a session of 128 bits or more", len(accept["session"]) >= 22, True)
    for setting in ("heartbeat_ms", "resume_window_ms", "max_message_bytes"):
        expect(f"{setting} is above 0", accept[setting] > 0, True)
    shard = Service(shard_name)
    expect("the answer", shard.identify()["opcode"], ACCEPT)
    step("two services are accepted")

    double = Service(backend_name)
    reject = double.identify()
    expect("the answer", (reject["opcode"], reject["code"]), (REJECT, "already_connected"))
    expect("retry_after_ms is a number", isinstance(reject["retry_after_ms"], int), True)
    expect("the close code", double.wait_for_close(), 4003)
    step("a second service of the same name is refused")

    exact = r'{"z": 1.50, "a":-0e+00,"a":12345678901234567890, "é☃":"\u00e9\/\ud83d\ude00\ud800"  ,"":[{ }]}'
    shard.send_text(f'{{"s":"{shard_name}","t":"gateway-proxy:{backend_name}:a:b:c","d":{exact}}}')
    text = backend.receive_text()
    came = json.loads(text)
    expect("source and topic", (came["s"], came["t"]), (shard_name, "a:b:c"))
    expect("d is what was sent, byte for byte", exact in text, True)
    backend.send(came["s"], "reply", {"to": came["t"]})
    expect("the reply", shard.receive(), {"s": backend_name, "t": "reply", "d": {"to": "a:b:c"}})
    large = "☃" * (accept["max_message_bytes"] // 4)
    shard.send_text(json.dumps({"s": shard_name, "t": f"gateway-proxy:{backend_name}:large", "d": large}, ensure_ascii=False))
    expect("a large message is what was sent", backend.receive()["d"] == large, True)
    step("messages pass both ways, unaltered")

    shard.send("nobody-of-that-name", "x:y", None, n="my-7")
    error = shard.receive_op(ERROR)
    expect("the code", error["code"], "no_such_service")
    expect("t and n", (error["t"], error["n"]), ("gateway-proxy:nobody-of-that-name:x:y", "my-7"))
    step("what cannot be delivered comes back")

    shard.send_op(SHARD_CONNECT)
    lease = shard.receive_op(SHARD_ACCEPT, skip=SHARD_WAIT)
    expect("the id is below shard_count", 0 <= lease["shard_id"] < lease["shard_count"], True)
    shard.send_op(SHARD_DEATH, shard_id=lease["shard_id"])
    shard.send_op(SHARD_CONNECT)
    again = shard.receive_op(SHARD_ACCEPT, skip=SHARD_WAIT)
    expect("the id", again["shard_id"], lease["shard_id"])
    expect("the epoch has grown", again["epoch"] > lease["epoch"], True)
    step("a shard id is leased, given back and leased again")

    backend.send_op(WATCH, services=shard_name)
    shard.drop()
    while backend.receive_op(PRESENCE)["event"] != "away":
        pass
    numbers = list(range(200))
    for number in numbers:
        backend.send(shard_name, "missed", number, n=number)
    expect("the receipts", [backend.receive_op(RECEIPT)["n"] for _ in numbers], numbers)
    shard = Service(shard_name)
    accept = shard.identify()
    expect("the answer", accept["opcode"], ACCEPT)
    expect("resumed, shards", (accept["resumed"], accept["shards"]), (True, [lease["shard_id"]]))
    expect("what was missed", [shard.receive()["d"] for _ in numbers], numbers)
    backend.send(shard_name, "after", "all")
    expect("what comes next", shard.receive(), {"s": backend_name, "t": "after", "d": "all"})
    step("a service that was away gets all that it missed, in order")


def main():
    try:
        converse()
        step("ok")
    except Exception:  # whatever went wrong is shown with its story
        print("\n".join(line[:1000] for line in transcript), file=sys.stderr)
        traceback.print_exc()
        sys.exit(1)
    finally:
        for service in services:
            service.leave()


main()
