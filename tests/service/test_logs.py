from __future__ import annotations

import json
import subprocess
import sys

import pytest

_FLOOD = """
import logging, sys
from bearerd.log import say
from bearerd.model import Logging
from bearerd.service import logs
logs._MOST_LINES = 3
logs.set_up(Logging(format=sys.argv[1]))
for number in range(2000):
    say(logging.INFO, f"line {number} " + "x" * 1000)
print("said", flush=True)
sys.stdin.readline()
logs.flush()
say(logging.INFO, "last")
logs.flush()
"""


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_lines_that_are_not_read_in_time_are_dropped_and_counted(log_format: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _FLOOD, log_format],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "said\n"  # though nobody reads what it logs
    _, log = process.communicate("go on\n", timeout=20)
    lines = log.splitlines()
    messages = [json.loads(line)["message"] if log_format == "json" else line.split(maxsplit=2)[2] for line in lines]
    kept = [message for message in messages if message.startswith("line ")]
    dropped = sum(int(message.split()[0]) for message in messages if "were dropped" in message)
    assert messages[-1] == "last"
    assert dropped > 0
    assert len(kept) + dropped == 2000
