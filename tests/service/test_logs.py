from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from support.process import WITHIN
from support.server import issues, serving

_FLOOD = """
import logging, sys
from bearerd.log import say
from bearerd.model import Logging
from bearerd.service import logs
logs._MOST_LINES = 3
logs._FLUSH_WITHIN = 60.0
logs.set_up(Logging(format=sys.argv[1]), {})
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
    assert process.stdout.readline() == "said\n"  # although nothing reads its log
    _, log = process.communicate("go on\n", timeout=WITHIN)
    lines = log.splitlines()
    messages = [json.loads(line)["message"] if log_format == "json" else line.split(maxsplit=2)[2] for line in lines]
    kept = [message for message in messages if message.startswith("line ")]
    dropped = sum(int(message.split()[0]) for message in messages if "were dropped" in message)
    assert messages[-1] == "last"
    assert dropped > 0
    assert len(kept) + dropped == 2000


_NO_MEMORY = """
import logging, sys
from bearerd.log import say
from bearerd.model import Logging
from bearerd.service import logs
logs._FLUSH_WITHIN = 60.0
logs.set_up(Logging(format="text"), {})
once = logs.LOGGER.log
def fails(*_, **__): raise MemoryError
logs.LOGGER.log = fails
say(logging.INFO, "without memory in this thread")
logs.LOGGER.log = once
write = logs.os.write
def fails_once(*_):
    logs.os.write = write
    raise MemoryError
logs.os.write = fails_once
say(logging.INFO, "without memory in the thread that writes")
logs.flush()
say(logging.INFO, "last")
logs.flush()
"""


def test_without_memory_a_line_is_lost_and_the_next_one_is_written() -> None:
    done = subprocess.run([sys.executable, "-c", _NO_MEMORY], capture_output=True, text=True, check=True)
    assert [line.split(maxsplit=2)[2] for line in done.stderr.splitlines()] == ["last"]


_NO_MEMORY_TO_WAIT = """
import logging
from bearerd.log import say
from bearerd.model import Logging
from bearerd.service import logs
logs._FLUSH_WITHIN, logs._PAUSE = 60.0, 0.0
once = logs.queue.Queue.get
def fails_once(*_):
    logs.queue.Queue.get = once
    raise MemoryError
logs.queue.Queue.get = fails_once
logs.set_up(Logging(format="text"), {})
say(logging.INFO, "first")
logs.flush()
"""


def test_without_memory_to_wait_for_a_line_it_is_written_later() -> None:
    done = subprocess.run([sys.executable, "-c", _NO_MEMORY_TO_WAIT], capture_output=True, text=True, check=True)
    assert [line.split(maxsplit=2)[2] for line in done.stderr.splitlines()] == ["first"]


_AGAIN = """
import logging
from bearerd.errors import NoThread
from bearerd.log import say
from bearerd.model import Logging
from bearerd.service import logs
logs._FLUSH_WITHIN = 60.0
logs.set_up(Logging(format="text"), {})
say(logging.INFO, "before")
def no_thread(*_): raise NoThread
logs.begin = no_thread
logs.set_up(Logging(format="json", level="warning"), {})
say(logging.INFO, "not said")
say(logging.WARNING, "after")
logs.flush()
"""


def test_other_settings_need_no_other_thread() -> None:
    done = subprocess.run([sys.executable, "-c", _AGAIN], capture_output=True, text=True, check=True)
    before, after = done.stderr.splitlines()
    assert before.endswith("INFO    before")
    assert json.loads(after)["message"] == "after"


_LEVELS = """
import logging, os, sys
from bearerd.log import say
from bearerd.model import Logging
from bearerd.service import logs
logs._FLUSH_WITHIN = 60.0
logs.set_up(Logging(format=sys.argv[1], level="debug"), os.environ)
for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
    say(level, "what happened")
logs.flush()
"""


def said(log_format: str, *, journal: bool) -> list[str]:
    reads, writes = os.pipe()
    status = os.fstat(writes)
    stream = f"{status.st_dev}:{status.st_ino}" if journal else f"{status.st_dev}:{status.st_ino + 1}"
    with os.fdopen(writes, "w") as stderr, os.fdopen(reads) as log:
        environ = {**os.environ, "JOURNAL_STREAM": stream}
        subprocess.run([sys.executable, "-c", _LEVELS, log_format], stderr=stderr, env=environ, check=True)
        stderr.close()
        return log.read().splitlines()


def test_journal_lines_have_a_priority_and_no_time() -> None:
    assert said("text", journal=True) == [
        "<7>DEBUG   what happened",
        "<6>INFO    what happened",
        "<4>WARNING what happened",
        "<3>ERROR   what happened",
    ]
    assert [line[:3] for line in said("json", journal=True)] == ["<7>", "<6>", "<4>", "<3>"]
    assert {json.loads(line[3:])["message"] for line in said("json", journal=True)} == {"what happened"}


def test_an_inherited_journal_variable_does_not_change_the_format() -> None:
    lines = said("text", journal=False)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\S+Z \w+ +what happened", line) for line in lines)
    assert len(lines) == 4


# -- what libraries say by themselves ------------------------------------------------------------------

_IN_1970 = """
import datetime, sys
import urllib3.connection
# As if the clock were before the earliest date that urllib3 considers plausible.
urllib3.connection.RECENT_DATE = datetime.date(9999, 1, 1)
from bearerd.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("verb", [["once"], ["check", "--online"]], ids=["once", "check"])
def test_a_clock_in_1970_makes_no_raw_warning(verb: list[str], tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    with serving(issues(), context) as server:
        config = tmp_path / "config.yaml"
        config.write_text(
            f"state_directory: {tmp_path}/state\noutput: {{directory: {tmp_path}/tokens}}\n"
            f"clients:\n  dnb:\n    token_url: {server.url}\n    ca_file: {tmp_path}/ca.pem\n"
            "    client_id: id\n    client_secret: {env: DNB_SECRET}\n    tokens: {bci: {}}\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", _IN_1970, *verb, "-c", config],
            env={**os.environ, "DNB_SECRET": "s3cr3t"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert len(server.seen) == 1
    assert [line for line in done.stderr.splitlines() if not re.match(r"\d{4}-\d\d-\d\dT\S+Z \w+ ", line)] == []
    assert "SystemTimeWarning" not in done.stdout + done.stderr


_WARNS = """
import os, sys, warnings
from bearerd.model import Logging
from bearerd.service import logs
logs.set_up(Logging(format=sys.argv[1]), os.environ)
warnings.warn("our own", UserWarning)
for module in ("urllib3.connection", "requests", "apscheduler.jobstores.base"):
    warnings.warn_explicit("theirs", UserWarning, "x.py", 1, module=module)
warnings.warn_explicit("not theirs", UserWarning, "x.py", 1, module="requests_like")
logs.flush()
"""


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_other_warnings_become_log_lines(log_format: str) -> None:
    done = subprocess.run([sys.executable, "-c", _WARNS, log_format], capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()

    if log_format == "json":
        events = [json.loads(line) for line in lines]
        assert [(event["level"], event["message"], event["at"]) for event in events] == [
            ("warning", "UserWarning: our own", "<string>:6"),
            ("warning", "UserWarning: not theirs", "x.py:1"),
        ]
    else:
        assert [line.partition(" ")[2] for line in lines] == [
            "WARNING UserWarning: our own at=<string>:6",
            "WARNING UserWarning: not theirs at=x.py:1",
        ]


def test_no_line_contains_terminal_control_characters() -> None:
    script = """
import logging
from bearerd.log import say
from bearerd.model import Logging
from bearerd.service import logs
logs.set_up(Logging(), {})
say(logging.INFO, "a\\x1b[2Jb\\r\\nc\\u2028d\\x9be\\udcff", key="f\\x1bg")
logs.flush()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=WITHIN)
    assert done.stderr.split(maxsplit=2)[2] == 'a [2Jb  c d e\\udcff key="f g"\n'
