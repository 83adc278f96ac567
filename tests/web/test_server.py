"""What the page's server answers, and to whom."""

from __future__ import annotations

import json
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from support import ROOT, warm
from support.served_page import Served


def status(url: str, **headers: str) -> int:
    try:
        with urlopen(Request(url, headers=headers), timeout=30) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


def test_the_browser_is_told_to_load_nothing_from_elsewhere(served: Served) -> None:
    with urlopen(served.address, timeout=30) as answer:
        policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'self' ")
    assert "http" not in policy
    assert "*" not in policy


@pytest.mark.parametrize(
    "file", [Path("/etc/passwd"), ROOT / "README.md", ROOT / "fss/web/page.py", Path("../../../../etc/passwd")]
)
def test_files_outside_its_folder_are_not_served(served: Served, file: Path) -> None:
    assert status(f"{served.address}/gradio_api/file={file}") in (403, 404)


def test_a_file_of_its_folder_is_served(served: Served) -> None:
    """So that the test above can fail."""
    file = served.folder / "uploaded.txt"
    file.write_text("here")
    assert status(f"{served.address}/gradio_api/file={file}") == 200


def test_other_names_for_this_address_get_no_answer(served: Served) -> None:
    assert status(served.address, Host="localhost") == 200
    assert status(served.address, Host="rebound.example.org") == 400


def test_a_picture_at_an_address_is_not_fetched(served: Served) -> None:
    """Whoever speaks to the server without a browser can name any address as an uploaded file."""
    config = json.load(urlopen(f"{served.address}/config", timeout=30))
    [asked] = [part["id"] for part in config["components"] if part["props"].get("elem_id") == "asked"]
    [event] = [each for each in config["dependencies"] if asked in each["inputs"]]
    remote = {"path": "https://example.org/picture.png", "meta": {"_type": "gradio.FileData"}}
    told = {"data": [None, [remote]], "fn_index": event["id"], "session_hash": "stranger"}
    body = json.dumps(told).encode()
    join = Request(f"{served.address}/gradio_api/queue/join", body, {"Content-Type": "application/json"})
    assert urlopen(join, timeout=30).status == 200
    with urlopen(f"{served.address}/gradio_api/queue/data?session_hash=stranger", timeout=60) as answers:
        messages = [json.loads(line[6:]) for line in answers if line.startswith(b"data: ")]
    [done] = [message for message in messages if message["msg"] == "process_completed"]
    assert not done["success"]
    refusal = "refused to connect to example.org: the page works without a network\n"
    for _ in range(100):  # which may come through the pipe after the answer
        if refusal in served.said:
            break
        time.sleep(0.1)
    assert refusal in served.said
    assert status(served.address) == 200


def refused(*arguments: str) -> str:
    """What the command says when it does not start."""
    done = warm.run("-m", "fss.web", *arguments, cwd=ROOT)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_port_that_is_taken_is_told(served: Served) -> None:
    port = served.address.rpartition(":")[2]
    assert refused("--port", port).startswith(f"error: port {port} cannot be used")


def test_a_port_that_is_none_is_told() -> None:
    assert "port 70000 cannot be used" in refused("--port", "70000")


def test_a_model_that_is_not_there_is_told() -> None:
    assert "error: no model nowhere" in refused("--model", "nowhere", "--port", "0")
