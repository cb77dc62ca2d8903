"""What the pages tell to do is done, and what they show is what comes of it. Only addresses differ."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lb.demo.greeter import arguments
from tests.docs.conftest import PATIENCE, get, replaced
from tests.docs.pages import README, Block, blocks, commands, files_of, pairs
from tests.e2e.process import Balancer, run, running
from tests.tools import need

NAMED = (
    "pools",
    "requests",
    "failures",
    "rejected",
    "checks",
)  # mappings whose keys are a matter of the case


def test_the_readme_from_its_first_command_to_the_last(greeters: list[str], tmp_path: Path) -> None:
    """The greeters are there already; make has tests of its own."""
    config = tmp_path / "lb.yaml"
    done = []
    with running(tmp_path, replaced(blocks("yaml", page=README)[0].text, greeters)) as balancer:
        for command in commands(README):
            words = shlex.split(command.removesuffix("&"))
            done.append(" ".join(words[:2]))
            if words[:3] == ["python", "-m", "lb.demo.greeter"]:
                options = arguments(words[3:])
                assert options.id == f"greeter-{'abc'[options.bind.port - 9001]}"
            elif words[:2] == ["lb", "check"]:
                assert run("check", "-c", config).stdout.startswith(f"{config}: good")
            elif words[:2] == ["lb", "explain"]:
                told = run("explain", get(balancer, "/").id, "--admin", balancer.admin)
                assert (told.returncode, told.stderr) == (0, "")
            elif words[0] == "curl":
                words[-1] = words[-1].replace("127.0.0.1:8080", balancer.address)
                answer = subprocess.run(
                    [need("curl"), "-s", *words[1:]],
                    capture_output=True,
                    text=True,
                    timeout=PATIENCE,
                    check=True,
                )
                assert answer.stdout.startswith("HTTP/1.1 200 OK\n")
                assert _names(answer.stdout) == _names(blocks("text", page=README)[0].text)
            else:
                assert command in ("make demo", "make test", "lb serve -c lb.yaml"), command
    assert done[:2] == ["make demo", "make test"]
    assert "lb explain" in done


def _names(answer: str) -> list[str]:
    """The names of the fields of a response."""
    return re.findall(r"^([\w-]+): ", answer, re.M)


def _form(text: str) -> set[str]:
    """An explanation without what is a matter of the case: numbers, IDs, which greeter it was."""
    text = re.sub(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "ID", text)
    text = re.sub(r"greeter-[abc]", "greeter", text)
    text = re.sub(r"(?m)^( ->)?( +greeter .*\d)  (picked|compared)$", r"\2", text)
    text = re.sub(r"\d+", "0", text)
    return {" ".join(line.split()) for line in text.splitlines()}


def test_an_explanation_looks_as_the_readme_shows_it(fleet: Balancer) -> None:
    requests = fleet.api("/api/requests?backend=greeter-a&status=200")["requests"]
    request = next(each for each in requests if each["attempts"][0]["reused_connection"])
    told = run("explain", request["id"], "--admin", fleet.admin)
    (shown,) = (block for block in blocks("text", page=README) if block.text.startswith("Request "))
    assert _form(told.stdout) - {""} == _form(shown.text) - {""}


@pytest.mark.parametrize("page", [README, "docs/policies.md"])
def test_the_policy_of_the_page_serves(page: str, greeters: list[str], tmp_path: Path) -> None:
    (block,) = (each for each in blocks("yaml", page=page) if re.search(r"\w:[A-Z]", each.text))
    for name, text in files_of(page).items():
        (tmp_path / name).write_text(text)
    with running(tmp_path, replaced(block.text, greeters)) as balancer:
        answers = [get(balancer, "/") for _ in range(4)]
        assert {answer.status for answer in answers} == {200}
        told = run("explain", answers[-1].id, "-c", balancer.config, "--admin", balancer.admin)
        assert balancer.metric("lb_policy_errors_total") == 0
    (reason,) = re.findall(r'reason = "(.+)"', block_of_policy(page))
    assert f": {reason}." in told.stdout
    if page == README:
        assert {answer.headers["X-Greeter"] for answer in answers} == {"greeter-a"}, "it is never full"


def block_of_policy(page: str) -> str:
    return next(text for text in files_of(page).values() if "Balancer" in text)


@pytest.mark.parametrize(("block", "shown"), pairs("sh", "json"), ids=lambda block: block.place)
def test_the_admin_api_answers_in_the_form_that_is_shown(block: Block, shown: Block, fleet: Balancer) -> None:
    words = shlex.split(block.text)
    assert words[0] == "curl"
    server, _, path = words[-1].removeprefix("http://").partition("/")
    if server != "127.0.0.1:9901":
        return  # for the balancer itself: see test_tables
    method = words[words.index("-X") + 1] if "-X" in words else "GET"
    change = json.loads(words[words.index("-d") + 1]) if "-d" in words else None
    path = path.replace("60ms", "0s")
    status, answer = fleet.ask(f"/{path}", method, change)
    try:
        assert status == 200, answer
        _compare(json.loads(shown.text), json.loads(answer), shown.place)
    finally:
        if change:
            fleet.ask(f"/{path}", method, {"state": "active"})


def _compare(shown: Any, real: Any, place: str) -> None:
    """Same keys in the same order, same kinds of values, all the way down."""
    if isinstance(shown, dict) and place.endswith(NAMED) and isinstance(real, dict):
        for key in shown.keys() & real.keys():
            _compare(shown[key], real[key], f"{place}.{key}")
    elif isinstance(shown, dict):
        assert isinstance(real, dict), place
        assert list(shown) == list(real), place
        for key, value in shown.items():
            _compare(value, real[key], f"{place}.{key}")
    elif isinstance(shown, list):
        assert isinstance(real, list), place
        for one, other in zip(shown[:1], real[:1], strict=False):
            _compare(one, other, f"{place}[]")
    elif shown is not None and real is not None:
        assert isinstance(real, int | float if isinstance(shown, float) else type(shown)), place
