"""Checks a policy's name and options against the policy's class itself, so that a new one needs no table."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lb.config.fields import flag, text_of
from lb.config.section import AT_KEY, Found
from lb.config.values import parse_duration
from lb.config.written import Plain, as_float, as_int, did_you_mean, natural, quoted, shown

if TYPE_CHECKING:
    from lb.balance import Balancer


_FILE = ".py:"


def examine_policy(name: str, options: dict[str, Any], directory: Path | None) -> Iterator[Found]:
    """What is wrong with them. Puts the options in place as the class expects them."""
    try:
        policy = find_policy(name, directory)
        known = _options_of(policy)
    except ValueError as error:
        yield ("policy",), str(error)
        return
    accepts_any = any(each.kind is each.VAR_KEYWORD for each in known.values())
    named = {key: each for key, each in known.items() if each.kind is not each.VAR_KEYWORD}
    for key, written in options.items():
        try:
            value = _from_environment(written)
        except ValueError as error:
            yield ("options", key), str(error)
            continue
        if key in named:
            try:
                options[key] = _option(value, _kind_of(named[key]))
                if key in policy.checks:
                    policy.checks[key](options[key])
            except ValueError as error:
                yield ("options", key), str(error)
        elif accepts_any:
            options[key] = _option(value, "")
        else:
            yield ("options", key, AT_KEY), _unknown_option(name, key, tuple(named))
    for key, parameter in named.items():
        if parameter.default is parameter.empty and key not in options:
            yield ("policy",), f"{name} needs the option {quoted(key)}"


def _from_environment(written: Any) -> Any:
    """What stands there, or in the environment variable that it names: `{env: NAME}`. For what differs from
    one balancer to the next, such as its number among its peers, while they have the same file."""
    if not isinstance(written, Mapping) or list(written) != ["env"]:
        return written
    name = str(written["env"])
    if name not in os.environ:
        raise ValueError(f"the environment variable {name} isn't set")
    return Plain(os.environ[name])


def find_policy(name: str, directory: Path | None) -> type[Balancer]:
    """The class of a name, of `module:Class` or of `file.py:Class`. Raises ValueError that says why there is
    none. Modules are looked for in the directory, too; a file is meant from where we are."""
    from lb.balance import policies, policy_class  # here, so that importing the models stays quick

    try:
        if _FILE in name:
            return _from_file(name)
        with _importing_from(directory):
            return policy_class(name)
    except KeyError as error:
        if name.endswith(".py"):
            raise ValueError(f"{quoted(name)} needs the class, too, as in {name}:MyPolicy") from None
        if ":" not in name:
            known = policies()
            near = did_you_mean(name, known) or f" (there are: {', '.join(known)}, or module:Class)"
            raise ValueError(f"there is no policy {quoted(name)}{near}") from None
        raise _import_failed(name, error) from error
    except (ImportError, AttributeError, TypeError) as error:
        raise ValueError(f"can't use {name}: {_on_one_line(error)}") from error
    except (Exception, SystemExit) as error:  # whatever a module of the user's does when it is imported
        raise _import_failed(name, error) from error


def _from_file(name: str) -> type[Balancer]:
    """A class of a file, whatever the file is called. What lies beside it can be imported there."""
    from lb.balance import policy_class

    path_name, _, class_name = name.rpartition(":")
    path = Path(path_name).resolve()
    if not path.is_file():
        raise ImportError(f"there is no file {path_name}")
    module_name = path.stem
    if getattr(sys.modules.get(module_name), "__file__", None) != str(path):
        if module_name in sys.modules:  # another module has its name already: one of Python's own, say
            module_name = f"{module_name}_at_{path.parent}".replace(".", "_")
        spec = spec_from_file_location(module_name, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path_name} is no Python module")
        module = sys.modules[module_name] = module_from_spec(spec)
        try:
            with _importing_from(path.parent):
                spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[module_name]
            raise
    return policy_class(f"{module_name}:{class_name}")


def _import_failed(name: str, error: BaseException) -> ValueError:
    return ValueError(f"importing {name} failed: {type(error).__name__}: {_on_one_line(error)}")


def _on_one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


@contextmanager
def _importing_from(directory: Path | None) -> Iterator[None]:
    """A policy of the user's own may lie beside the configuration file."""
    if directory is None:
        yield
        return
    place = str(directory.resolve())
    sys.path.insert(0, place)
    try:
        yield
    finally:
        if place in sys.path:
            sys.path.remove(place)


def _options_of(policy: type[Balancer]) -> Mapping[str, inspect.Parameter]:
    """The parameters of `__init__` behind self, clock and rng."""
    parameters = list(inspect.signature(policy.__init__).parameters.values())[3:]
    return {each.name: each for each in parameters if each.kind is not each.VAR_POSITIONAL}


def _kind_of(parameter: inspect.Parameter) -> str:
    """The annotation's name: `float` for float, "float" and float | None."""
    annotation = parameter.annotation
    name = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return name.removesuffix(" | None")


def _unknown_option(policy: str, key: str, known: tuple[str, ...]) -> str:
    if not known:
        return f"{policy} has no options, so {quoted(key)} means nothing to it"
    near = did_you_mean(key, known) or f" (it has: {', '.join(known)})"
    return f"{policy} has no option {quoted(key)}{near}"


def _option(value: object, kind: str) -> object:
    """An option of a policy, by the name of the type that its parameter is annotated with.

    A float takes a duration as well, since durations are floats of seconds in the code.
    """
    if kind == "bool":
        return flag().read(value)
    if kind == "str":
        return text_of(value, "text")
    if kind == "int":
        number: float | None = as_int(value)
        what = "a whole number"
    elif kind == "float":
        number = as_float(value)
        if number is None and isinstance(value, Plain) and value[:1].isdigit():
            return parse_duration(value)
        what = "a number or a duration"
    else:
        return natural(value)
    if number is None:
        raise ValueError(f"must be {what}, not {shown(value)}")
    return number
