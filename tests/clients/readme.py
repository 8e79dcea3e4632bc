"""Runs the README's programs against a gateway: the five-minute tour, and the shard services.

The programs and their outputs are the README's own code blocks, headed ```python NAME,
```javascript NAME and ```text output of NAME. Usage: readme.py ws://HOST:PORT/gateway, with one
shard id that is free. NODE_DIRECTORY names a directory whose node_modules has `ws`.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

URL = sys.argv[1]
API = URL.replace("ws:", "http:").removesuffix("/gateway") + "/api/v1"
README = pathlib.Path(__file__).resolve().parents[2] / "README.md"
DEFAULT_URL = "ws://127.0.0.1:7117/gateway"
DEADLINE = 20  # seconds for each program, and for whatever is waited for


def blocks(kind):
    found = re.findall(rf"^```{kind}(\S+)\n(.*?)^```$", README.read_text("utf-8"), re.M | re.S)
    if not found:
        sys.exit(f"readme: no block headed ```{kind}NAME in {README}")
    return dict(found)


def start(directory, name, text, interpreter=(sys.executable, "-u"), url=URL):
    assert DEFAULT_URL in text, f"{name} does not connect to {DEFAULT_URL}"
    path = pathlib.Path(directory, name)
    path.write_text(text.replace(DEFAULT_URL, url), "utf-8")
    command = [*interpreter, path]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process):
    """What else it printed, and what went wrong. It is to end by itself."""
    try:
        return process.communicate(timeout=DEADLINE)
    except subprocess.TimeoutExpired:
        process.kill()
        printed, errors = process.communicate()
        return printed, errors + f"\nit did not end within {DEADLINE} s"


def judge(name, process, printed, expected, errors):
    if process.returncode == 0 and printed == expected:
        return True
    print(f"readme: {name} printed\n{printed}\ninstead of\n{expected}\n{errors}")
    return False


def tour(directory, programs, outputs):
    assert programs.keys() == outputs.keys(), f"{programs.keys()} print {outputs.keys()}"
    backend = start(directory, "backend.py", programs["backend.py"])
    first_line = backend.stdout.readline()  # the shard's message must find it there
    shard = start(directory, "shard.py", programs["shard.py"])
    ends = [("shard.py", shard, "", *end(shard)), ("backend.py", backend, first_line, *end(backend))]
    return all([
        judge(name, process, before + rest, outputs[name], errors)
        for name, process, before, rest, errors in ends
    ])


def api(method, path):
    request = urllib.request.Request(API + path, method=method)
    with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
        return json.load(answer)


def shard_of(service):
    """The id that the service holds, once it is ready; None where that never happens."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        for shard in api("GET", "/shards")["shards"]:
            if (shard["holder"], shard["state"]) == (service, "ready"):
                return shard
        time.sleep(0.02)
    return None


def shard_service(directory, name, text, service, *interpreter):
    """It gets an id, says how far it is, and leaves when it is told to shut down."""
    process = start(directory, name, text, *interpreter)
    shard = shard_of(service)
    if shard is None:
        process.kill()
        return judge(name, process, *end(process), f"{service} never held a ready shard")
    api("POST", f"/services/{service}/shutdown")
    printed, errors = end(process)
    expected = f"connecting shard {shard['shard_id']} of {shard['shard_count']}\n"
    freed = all(shard["holder"] is None for shard in api("GET", "/shards")["shards"])
    return judge(name, process, printed, expected, errors if freed else f"{errors}\nits id is not free")


def tell(service, topic="gateway:opcode", source="gateway", /, **data):
    service.send(json.dumps({"s": source, "t": topic, "d": data}))


def told(service):
    return json.loads(service.recv(DEADLINE))


def meet(converse, directory, name, text, *interpreter):
    """What the program printed, and its process, when its gateway is `converse`; with the close code it ended with."""
    codes, is_over = [], threading.Event()

    def gateway(service):
        try:
            converse(service)
            service.recv(DEADLINE)
        except (ConnectionClosed, TimeoutError):
            pass
        codes.append(service.close_code)
        is_over.set()

    with serve(gateway, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}/gateway"
        process = start(directory, name, text, *interpreter, url=url)
        printed, errors = end(process)
        is_over.wait(DEADLINE)
        server.shutdown()
    return process, printed, errors, codes


def revokes(directory, name, text, *interpreter):
    """It stays when it loses the shard of the same id of another count, and leaves when it loses its own."""
    opcodes = []

    def converse(service):
        for opcode, count in [(11, 2), (33, 3), (11, 2)]:
            tell(service, opcode=opcode, shard_id=0, shard_count=count, reason="a test")
        while opcodes.count(31) < 4:  # `identifying` and `ready`, twice
            opcodes.append(told(service)["d"]["opcode"])
        tell(service, opcode=33, shard_id=0, shard_count=2, reason="a test")

    process, printed, errors, codes = meet(converse, directory, name, text, *interpreter)
    said = f"{errors}\nit sent the ops {opcodes}, and closed with {codes}"
    left = judge(name, process, printed, "connecting shard 0 of 2\n" * 2, said)
    stayed = opcodes.count(31) == 4 and codes == [4000]
    if not stayed:
        print(f"readme: {name} is to stay for SHARD_REVOKE 0/3 and to close with 4000 for 0/2: {said}")
    return left and stayed


def asks_to_be_started_again(directory, name, text, *interpreter):
    """Where the gateway restarts or says REBOOT, it ends with one clear line, and does not leave for good."""

    def restart(service):
        told(service)
        service.close(1012, "the gateway restarts")

    def reboot(service):
        told(service)
        tell(service, opcode=4, reason="deploy", deadline_ms=10_000, keep_discord_session=True)

    def is_clear(converse):
        process, _, errors, codes = meet(converse, directory, name, text, *interpreter)
        is_line = errors.count("\n") == 1 and errors.startswith("start me again: ")
        if process.returncode == 1 and is_line and 4000 not in codes:
            return True
        said = f"it closed with {codes}, and ended with {process.returncode}:\n{errors}"
        print(f"readme: {name} is to end with 1 and one line at {converse.__name__}: {said}")
        return False

    return all([is_clear(restart), is_clear(reboot)])


def waits(directory, name, text, expected):
    """Run again at once, it is told to wait for its shard id first."""

    def converse(service):
        told(service)  # IDENTIFY
        tell(service, opcode=1, service="shard-a")
        told(service)  # SHARD_CONNECT
        tell(service, opcode=30, reason="identify_rate_limit", position=1, retry_after_ms=5_500)
        tell(service, opcode=11, shard_id=0, shard_count=1)
        event = told(service)["d"]
        tell(service, "reply", "backend", seen=event["id"])
        told(service)
        tell(service, opcode=20, code="no_such_service")

    process, printed, errors, _ = meet(converse, directory, name, text)
    return judge(name, process, printed, expected, errors)


def main():
    python, javascript = blocks("python "), blocks("javascript ")
    with tempfile.TemporaryDirectory() as directory:
        tour_programs = {name: text for name, text in python.items() if name != "shard_service.py"}
        outputs, service = blocks("text output of "), ("shard_service.py", python["shard_service.py"])
        results = [
            tour(directory, tour_programs, outputs),
            waits(directory, "shard.py", python["shard.py"], outputs["shard.py"]),
            shard_service(directory, *service, "shard-py"),
            revokes(directory, *service),
            asks_to_be_started_again(directory, *service),
        ]
    # Node looks for packages beside the program.
    with tempfile.TemporaryDirectory(dir=os.environ["NODE_DIRECTORY"]) as directory:
        service = ("shard_service.mjs", javascript["shard_service.mjs"])
        results += [
            shard_service(directory, *service, "shard-js", ("node",)),
            revokes(directory, *service, ("node",)),
            asks_to_be_started_again(directory, *service, ("node",)),
        ]
    print("readme: ok" if all(results) else "readme: FAILED")
    sys.exit(not all(results))


main()
