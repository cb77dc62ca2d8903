"""From what the machine and the generators say to the figures: pure."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import load, report
from benchmarks.__main__ import arguments
from benchmarks.cases import CASES, chosen
from benchmarks.machine import parse_stat
from benchmarks.measure import Run

STAT = (
    "4242 (a (b) c) S 17 4242 4242 0 -1 4194560 900 0 0 0 {utime} {stime} {cutime} {cstime} 20 0 1 0 99 1 2"
)


def run(peer: str, number: int, cpu: float, case: str = "few", errors: int = 0) -> Run:
    return Run(peer, case, number, cpu, 1e6 / cpu, 1000.0, 2000.0, 100_000, errors)


def test_cpu_time_is_user_and_system_and_that_of_ended_children() -> None:
    stat = parse_stat(STAT.format(utime=1, stime=20, cutime=300, cstime=4000))
    assert (stat.parent, stat.ticks) == (17, 4321)


def test_ratios_are_taken_round_by_round() -> None:
    # nginx is twice as slow in round 1, and so is lb: their ratio isn't.
    runs = [run("nginx", 0, 20), run("lb", 0, 30), run("nginx", 1, 40), run("lb", 1, 60), run("nginx", 2, 20)]
    runs.append(run("lb", 2, 34))
    lb, nginx = report.summarise(runs)
    assert (lb.peer, lb.cpu_microseconds, lb.ratio, lb.ratio_min, lb.ratio_max) == ("lb", 34, 1.5, 1.5, 1.7)
    assert (nginx.peer, nginx.ratio, nginx.rounds) == ("nginx", 1.0, 3)


def test_a_void_run_counts_for_nothing() -> None:
    runs = [run("nginx", 0, 20, errors=1), run("lb", 0, 30), run("nginx", 1, 20), run("lb", 1, 40)]
    runs.append(run("haproxy", 0, 10, errors=5))
    lb, nginx = report.summarise(runs)
    assert (lb.ratio, lb.rounds, nginx.rounds) == (2.0, 2, 1)  # round 0 has no pair


def test_without_the_reference_there_are_no_ratios() -> None:
    (lb,) = report.summarise([run("lb", 0, 30)])
    assert lb.ratio is lb.ratio_min is lb.ratio_max is None


def test_a_run_without_requests_is_void() -> None:
    assert Run("lb", "few", 0, 0, 0, 0, 0, requests=0, errors=0).void


def test_the_table_has_a_part_for_each_case() -> None:
    runs = [run("nginx", 0, 20), run("lb", 0, 30), run("nginx", 0, 20, "1m")]
    console = Console(file=io.StringIO(), width=100)
    report.show(report.summarise(runs), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert CASES["few"].title in text
    assert CASES["1m"].title in text
    assert "1.50" in text


def test_the_json_holds_runs_and_medians(tmp_path: Path) -> None:
    runs = [run("nginx", 0, 20), run("nginx", 1, 20, errors=3)]
    report.write(tmp_path / "new" / "r.json", {"created": "now"}, runs, report.summarise(runs))
    written = json.loads((tmp_path / "new" / "r.json").read_text())
    assert written["created"] == "now"
    assert [(entry["errors"], entry["void"]) for entry in written["runs"]] == [(0, False), (3, True)]
    assert [entry["cpu_microseconds"] for entry in written["summary"]] == [20]


def test_the_result_of_wrk_is_its_last_line() -> None:
    line = '{"requests": 9, "seconds": 1.5, "received": 300, "errors": 0, "p50": 120.0, "p99": 450.0}'
    assert load.parse(f"Running 1s test\n  2 threads\n{line}\n").requests == 9


def test_cases_send_2_and_12_request_headers() -> None:
    assert {name: len(case.headers) + 1 for name, case in CASES.items()} == {
        "few": 2,
        "many": 12,
        "10k": 2,
        "1m": 2,
        "tls": 2,
        "tls-1m": 2,
    }
    assert [len(case.body) for case in chosen(["1m", "10k", "few"])] == [14, 10 * 1024, 1024 * 1024]


@pytest.mark.parametrize("wrong", [["--only", "few,all"], ["--peers", "apache"], ["--rounds", "0"]])
def test_a_wrong_option_is_told(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        arguments(wrong)
    assert exit_.value.code == 2
    assert wrong[0] in capsys.readouterr().err
