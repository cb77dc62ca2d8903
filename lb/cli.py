"""The commands. Each imports what it needs when it runs, so that all of them start at once."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

import lb

if TYPE_CHECKING:
    from lb.config import Config

DEFAULT_ADMIN = "http://127.0.0.1:9901"
_Loaded = TypeVar("_Loaded")
Option = Callable[[Callable[..., Any]], Callable[..., Any]]


def file_option(*names: str, help: str, metavar: str = "FILE", required: bool = False) -> Option:
    """An option that takes the path of a file."""
    path = click.Path(path_type=Path)
    return click.option(*names, metavar=metavar, required=required, type=path, help=help)


config_option = file_option(
    "-c", "--config", "config_file", required=True, help="The configuration, a YAML file."
)


def fail(message: str, code: int = 2) -> NoReturn:
    """Ends with one clear line."""
    click.echo(f"lb: {message}", err=True)
    sys.exit(code)


def show_version(context: click.Context, _option: click.Parameter, asked: bool) -> None:
    if asked:
        click.echo(f"lb {lb.__version__} ({'compiled' if lb.compiled() else 'interpreted'})")
        context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=show_version,
    help="Show the version and exit.",
)
def main() -> None:
    """A layer-7 load balancer that explains itself."""


@main.command()
@config_option
def serve(config_file: Path) -> None:
    """Run the balancer.

    SIGTERM and SIGINT drain and exit 0; a second one exits at once. SIGHUP reloads the configuration and
    reopens the access log, SIGUSR1 only reopens the log. SIGUSR2 starts another process on the same sockets,
    and drains when that is ready.
    """
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # until there is something to reload or to hand over

    import uvloop

    from lb.build import CannotStart
    from lb.serve import serve as run
    from lb.watch import ConfigFile

    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    file = ConfigFile(config_file)
    config = _loaded(file.load)

    def say(line: str) -> None:
        click.echo(f"lb: {line}", err=True)

    try:
        uvloop.run(run(config, file, say))
    except CannotStart as error:
        fail(f"can't start: {error}")
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # it is ending already


@main.command()
@config_option
def check(config_file: Path) -> None:
    """Validate a configuration; print every problem with its place. Exits with 0 or 2."""
    config = _load(config_file)
    from lb.build import missing_files, warnings

    for words in (*warnings(config), *missing_files(config)):
        click.echo(f"{config_file}: warning: {words}", err=True)
    backends = sum(len(pool.backends) for pool in config.pools.values())
    counts = [
        _count(len(config.listeners), "listener"),
        _count(len(config.routes), "route"),
        _count(len(config.pools), "pool"),
        _count(backends, "backend"),
    ]
    sources = sum(len(pool.discovery) for pool in config.pools.values())
    if sources:
        counts.append(_count(sources, "source"))
    click.echo(f"{config_file}: good ({', '.join(counts)})")


@main.command()
@click.option("--scenario", is_flag=True, help="That of a scenario of lb simulate instead.")
def schema(scenario: bool) -> None:
    """Print the JSON Schema of the configuration, for editors."""
    from lb.config.schema import json_schema, scenario_schema

    click.echo(json.dumps(scenario_schema() if scenario else json_schema(), indent=2))


@main.command()
@click.argument("request_id")
@click.option("--admin", metavar="URL", help=f"The admin address of the balancer. [{DEFAULT_ADMIN}]")
@file_option(
    "-c", "--config", "config_file", help="Take the admin address and its token from this configuration."
)
@file_option("--token-file", help="A file with the admin token.")
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
def explain(
    request_id: str, admin: str | None, config_file: Path | None, token_file: Path | None, as_json: bool
) -> None:
    """Ask the running balancer why a request went where it went.

    The token, where one is needed, comes from --token-file, from the configuration, or from the environment
    variable LB_ADMIN_TOKEN.
    """
    from lb.ask import Unanswered, ask
    from lb.observe.render import explain as in_words

    url, token = _admin_of(admin, config_file, token_file)
    try:
        record = ask(url, f"/api/requests/{request_id}", token)
    except Unanswered as error:
        fail(str(error), code=1)
    click.echo(json.dumps(record, indent=2) if as_json else in_words(record))


@main.command()
@click.option("--once", is_flag=True, help="Stop by itself after the first round of requests.")
@click.option("--port", default=0, show_default="a free one", help="The balancer's port.")
@click.option("--admin-port", default=0, show_default="a free one", help="The port of its admin API.")
@click.option(
    "--requests", default=60, show_default=True, type=click.IntRange(1, 100_000), help="How many to send."
)
def demo(once: bool, port: int, admin_port: int, requests: int) -> None:
    """Start three greeters and a balancer, send requests, show who served what."""
    from lb.demo.show import Demo, DemoFailed

    try:
        Demo(port, admin_port, requests).run(once)
    except DemoFailed as error:
        fail(str(error), code=1)
    except KeyboardInterrupt:
        sys.exit(130)


@main.command()
@click.argument("names", nargs=-1, metavar="[POLICY]...")
@file_option(
    "-c",
    "--scenario",
    "scenario_file",
    metavar="SCENARIO",
    help="The scenario, a YAML file. One slow replica of four if left out.",
)
@file_option(
    "--replay",
    "log_file",
    metavar="LOG",
    help="Instead: the requests of an access log, as they came. - is standard input.",
)
@click.option(
    "--against", multiple=True, metavar="POLICY", help="With --replay: a policy to try; more may follow."
)
@click.option(
    "--log-format",
    default="",
    metavar="FORMAT",
    help="json, nginx, or what is behind log_format in nginx. Found out by itself if left out.",
)
@click.option("--pool", default="", metavar="NAME", help="Of a log with several pools, this one.")
@click.option(
    "--slots",
    type=click.IntRange(0, 1_000_000),
    help="A backend of the log works on so many requests at a time; 0: on all. Estimated if left out.",
)
@click.option(
    "--backends", default=0, type=click.IntRange(0, 10_000), help="How many, where the log doesn't name them."
)
@click.option("--workers", type=click.IntRange(1, 256), help="So many workers, whatever the scenario says.")
@click.option("--seed", default=1, show_default=True, help="The same one gives the same result, to the byte.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@file_option("--plot", help="Also draw them: FILE.svg or FILE.png.")
def simulate(names: tuple[str, ...], against: tuple[str, ...], **asked: Any) -> None:
    """Run policies on virtual time, and print what came of each side by side.

    A POLICY is a name, module:Class, or file.py:Class; with options: name,option=value. With none, those of
    the scenario; else all there are.
    """
    from lb.simulation import Asked, CannotSimulate, run

    logging.getLogger("lb").setLevel(logging.ERROR)  # what backends go through here is no news
    if against and asked["log_file"] is None:
        fail("--against is for --replay: name the policies alone")
    try:
        _loaded(lambda: run(Asked(names=(*against, *names), **asked)))
    except CannotSimulate as error:
        fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


@main.command("test-policy")
@click.argument("name", metavar="POLICY")
def test_policy(name: str) -> None:
    """Check that a policy keeps the contract that a pool relies on. Exits with 0, or 1 if it doesn't.

    A POLICY is module:Class, file.py:Class or a name; with options: file.py:Class,option=value. What has a
    question mark is unusual, but may be what you want.
    """
    from lb.scenarios import WrongPolicy, contestants
    from lb.simulate.contract import maker, verdicts

    logging.getLogger("lb").setLevel(logging.ERROR)  # what backends go through here is no news
    try:
        (found,) = contestants([name], None, Path.cwd())
    except WrongPolicy as error:
        fail(str(error))
    broken = 0
    for verdict in verdicts(maker(found.policy, found.options), found.policy.weighted):
        check = verdict.check
        mark = "ok    " if not verdict.found else "broken" if check.binding else "?     "
        click.echo(f"{mark}  {check.promise}")
        if verdict.found:
            click.echo(f"        {verdict.found}")
            broken += check.binding
    if broken:
        fail(f"{found.label} breaks the contract ({_count(broken, 'check')})", code=1)
    click.echo(f"{found.label} keeps the contract")


def _admin_of(admin: str | None, config_file: Path | None, token_file: Path | None) -> tuple[str, str]:
    """The address of the admin API, and the token for it: an empty one where none is needed."""
    token = os.environ.get("LB_ADMIN_TOKEN", "")
    try:
        if config_file is not None:
            settings = _load(config_file).admin
            if settings is None:
                fail(f"{config_file} has the admin API turned off")
            admin = admin or f"http://{settings.bind}"
            if settings.token is not None and not token_file:
                token = settings.token.read()
        if token_file is not None:
            token = token_file.read_text().strip()
    except (OSError, ValueError) as error:
        fail(f"no token: {error}")
    return admin or DEFAULT_ADMIN, token


def _load(config_file: Path) -> Config:
    from lb.config import load

    return _loaded(lambda: load(config_file))


def _loaded(load: Callable[[], _Loaded]) -> _Loaded:
    """What is loaded, or the end with every problem."""
    from lb.config import ConfigError

    try:
        return load()
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(2)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
