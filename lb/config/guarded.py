"""Sections with an address that isn't for everybody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from lb.config.fields import address
from lb.config.section import Found, Section, readable

own_address = address("127.0.0.1", least_port=0)


class Guarded(Section):
    """A section with `bind` and `token`: who can be reached from other machines needs one."""

    what: ClassVar[str]  # it guards, in words

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        bind = readable(own_address.read, data.get("bind"))
        if bind is not None and not bind.is_loopback and data.get("token") is None:
            yield (
                ("bind",),
                f"{bind} can be reached from other machines, so {cls.what} needs a token: "
                "token: {file: PATH} or {env: NAME}; or bind it to 127.0.0.1",
            )
