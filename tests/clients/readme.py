"""Runs the README's five-minute tour against a gateway, and compares what it prints.

The programs and their outputs are the README's own code blocks, headed ```python NAME and
```text output of NAME. Usage: readme.py ws://HOST:PORT/gateway, with one shard id that is free.
"""

import pathlib
import re
import subprocess
import sys
import tempfile

URL = sys.argv[1]
README = pathlib.Path(__file__).resolve().parents[2] / "README.md"
DEFAULT_URL = "ws://127.0.0.1:7117/gateway"
DEADLINE = 20  # seconds for each program


def blocks(kind):
    found = re.findall(rf"^```{kind}(\S+)\n(.*?)^```$", README.read_text("utf-8"), re.M | re.S)
    if not found:
        sys.exit(f"readme: no block headed ```{kind}NAME in {README}")
    return dict(found)


def start(directory, name, text):
    assert DEFAULT_URL in text, f"{name} does not connect to {DEFAULT_URL}"
    path = pathlib.Path(directory, name)
    path.write_text(text.replace(DEFAULT_URL, URL), "utf-8")
    command = [sys.executable, "-u", path]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def main():
    programs, outputs = blocks("python "), blocks("text output of ")
    assert programs.keys() == outputs.keys(), f"{programs.keys()} print {outputs.keys()}"
    failed = False
    with tempfile.TemporaryDirectory() as directory:
        backend = start(directory, "backend.py", programs["backend.py"])
        first_line = backend.stdout.readline()  # the shard's message must find it there
        shard = start(directory, "shard.py", programs["shard.py"])
        for name, process, before in [("shard.py", shard, ""), ("backend.py", backend, first_line)]:
            try:
                rest, errors = process.communicate(timeout=DEADLINE)
            except subprocess.TimeoutExpired:
                process.kill()
                rest, errors = process.communicate()
                errors += f"\nit did not end within {DEADLINE} s"
            printed = before + rest
            if process.returncode != 0 or printed != outputs[name]:
                failed = True
                print(f"readme: {name} printed\n{printed}\ninstead of\n{outputs[name]}\n{errors}")
    print("readme: FAILED" if failed else "readme: ok")
    sys.exit(failed)


main()
