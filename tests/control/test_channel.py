"""The channel between supervisor and worker, over real sockets."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from struct import pack

import pytest
import pytest_asyncio

from lb.control.channel import (
    AskRefused,
    Channel,
    ChannelClosed,
    decode,
    encode,
    hand_over,
    pair,
    pair_for_descriptors,
    take_over,
)
from lb.control.messages import (
    KINDS,
    Changes,
    Collect,
    Configure,
    Counts,
    Done,
    Drain,
    Find,
    Found,
    Message,
    Refused,
    Search,
)
from tests.control.waiting import until

Ends = tuple[Channel, Channel]


@pytest_asyncio.fixture
async def ends() -> AsyncIterator[Ends]:
    """Both ends of a channel."""
    a, b = pair()
    one, other = await Channel.over(a), await Channel.over(b)
    yield one, other
    for each in (one, other):
        await each.end()


@pytest.mark.parametrize(
    "message",
    [
        Configure("lb.yaml", "pools: {}\n# Grüße, 你好\n"),
        Changes("greeter", [["a", {"healthy": False}]]),  # type: ignore[list-item]
        Search(status=[500, 599], min_duration=0.25),  # type: ignore[arg-type]
        Counts(listeners=[["127.0.0.1:80", {"requests": [[200, 1]]}]]),  # type: ignore[list-item]
        Found([], 0),
        Done(),
    ],
    ids=lambda message: type(message).__name__,
)
def test_what_is_said_is_what_is_heard(message: Message) -> None:
    frame = encode(7, message)
    assert frame[:4] == pack("!I", len(frame) - 4)
    assert decode(frame[4:]) == (7, message)


def test_every_message_has_a_name_of_its_own() -> None:
    kinds = {kind for kind in Message.__subclasses__() if kind.__dict__.get("__slots__") is not None}
    assert kinds == set(KINDS.values())


async def test_messages_come_in_the_order_in_which_they_were_said(ends: Ends) -> None:
    one, other = ends
    heard: list[Message] = []
    other.on_message = heard.append
    said = [Find(f"request {number} {'x' * (number * 977 % 5000)}") for number in range(500)]
    for message in said:
        one.tell(message)
    await until(lambda: len(heard) == 500)
    assert heard == said


async def test_a_question_gets_its_own_answer(ends: Ends) -> None:
    one, other = ends

    async def answer(message: Message) -> Message:
        assert isinstance(message, Find)
        await asyncio.sleep(0.02 if message.request_id == "slow" else 0)
        return Found([(1.0, {"id": message.request_id})], 1)

    other.on_ask = answer
    answers = await asyncio.gather(*(one.ask(Find(each)) for each in ("slow", "quick")))
    assert answers == [Found([[1.0, {"id": each}]], 1) for each in ("slow", "quick")]  # type: ignore[list-item]


async def test_both_sides_may_ask(ends: Ends) -> None:
    one, other = ends
    one.on_ask = lambda message: Found([], 1)
    other.on_ask = lambda message: Found([], 2)
    assert await asyncio.gather(one.ask(Collect()), other.ask(Collect())) == [Found([], 2), Found([], 1)]


async def test_an_answer_comes_after_what_was_said_before(ends: Ends) -> None:
    one, other = ends
    heard: list[Message] = []
    one.on_message = heard.append

    def answer(message: Message) -> Message:
        other.tell(Counts())
        return Done()

    other.on_ask = answer
    await one.ask(Collect())
    assert heard == [Counts()]


class TestWhatGoesWrong:
    async def test_a_refusal_has_a_reason(self, ends: Ends) -> None:
        one, other = ends
        other.on_ask = lambda message: Refused("the port is taken")
        with pytest.raises(AskRefused, match="the port is taken"):
            await one.ask(Collect())

    @pytest.mark.parametrize("later", [False, True])
    async def test_an_answer_that_fails_is_a_refusal_and_logged(
        self, ends: Ends, later: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        one, other = ends

        def fails(message: Message) -> Message:
            raise LookupError("no such thing")

        async def fails_later(message: Message) -> Message:
            return fails(message)

        other.on_ask = fails_later if later else fails
        with pytest.raises(AskRefused, match="LookupError: no such thing"):
            await one.ask(Collect())
        assert "Collect went wrong" in caplog.text

    async def test_a_message_that_fails_does_not_end_the_rest(
        self, ends: Ends, caplog: pytest.LogCaptureFixture
    ) -> None:
        one, other = ends
        heard: list[Message] = []

        def fails_first(message: Message) -> None:
            heard.append(message)
            if len(heard) == 1:
                raise LookupError

        other.on_message = fails_first
        one.tell(Done())
        one.tell(Done())
        await until(lambda: len(heard) == 2)
        assert "Done went wrong" in caplog.text

    async def test_no_answer_in_time(self, ends: Ends) -> None:
        one, other = ends
        late = asyncio.Event()

        async def answers_late(message: Message) -> Message:
            await late.wait()
            return Done()

        other.on_ask = answers_late
        with pytest.raises(TimeoutError):
            await one.ask(Collect(), 0.02)
        late.set()
        other.on_ask = lambda message: Found([], 9)
        assert await one.ask(Collect()) == Found([], 9)  # and not the late one

    async def test_the_other_side_dies(self, ends: Ends) -> None:
        one, other = ends
        lost = asyncio.Event()
        one.on_lost = lost.set
        other.on_ask = lambda message: asyncio.get_running_loop().create_future()
        asked = asyncio.ensure_future(one.ask(Collect()))
        await asyncio.sleep(0.02)
        other.close()
        with pytest.raises(ChannelClosed):
            await asked
        assert lost.is_set()
        with pytest.raises(ChannelClosed):
            await one.ask(Collect())
        one.tell(Done())  # nobody minds

    @pytest.mark.parametrize(
        "bytes_",
        [
            pack("!I", 3) + b"???",
            pack("!I", 2) + b"[]",
            pack("!I", 2) + b"17",
            b'\x00\x00\x00\x0f[0,"Nobody",{}]',
            b'\x00\x00\x00\x13[0,"Done",{"some":1}]'[:4] + b'[0,"Done",{"x":1}] ',
            pack("!I", 2**31),
        ],
    )
    async def test_what_is_no_message_ends_it(self, bytes_: bytes, caplog: pytest.LogCaptureFixture) -> None:
        ours, theirs = pair()
        channel = await Channel.over(theirs)
        with ours:
            ours.send(bytes_)
            await channel.heard_all(5)
        assert "can't be understood" in caplog.text

    async def test_who_does_not_read_is_known_for_it_and_at_last_given_up(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr("lb.control.channel.WAITING", 4_000_000)
        ours, theirs = pair()
        with theirs:
            channel = await Channel.over(ours)
            assert channel.keeps_up
            channel.tell(Configure("lb.yaml", "x" * 2_000_000))
            assert not channel.keeps_up
            assert not channel.lost
            channel.tell(Configure("lb.yaml", "x" * 3_000_000))
            await until(lambda: channel.lost)
        assert "doesn't read" in caplog.text

    async def test_who_was_slow_keeps_up_again(self, ends: Ends) -> None:
        one, other = ends
        heard: list[Message] = []
        other.on_message = heard.append
        one.tell(Configure("lb.yaml", "x" * 3_000_000))
        assert not one.keeps_up
        await until(lambda: len(heard) == 1)
        assert one.keeps_up

    async def test_what_was_said_before_the_end_is_heard(self) -> None:
        a, b = pair()
        one, other = await Channel.over(a), await Channel.over(b)
        heard: list[Message] = []
        other.on_message = heard.append
        one.tell(Configure("lb.yaml", "x" * 3_000_000))
        one.tell(Drain(1.0))
        await one.end(5)
        await other.heard_all(5)
        assert heard[-1] == Drain(1.0)


class TestDescriptors:
    @pytest.mark.parametrize("count", [0, 1, 3, 600])
    def test_they_come_under_their_names(self, count: int) -> None:
        ours, theirs = pair_for_descriptors()
        reading, writing = os.pipe()
        names = [f"pipe {number}" for number in range(count)]
        with ours, theirs:
            hand_over(ours, names, [writing] * count)
            found = take_over(theirs)
        assert list(found) == names
        for number, descriptor in enumerate(found.values()):
            assert not os.get_inheritable(descriptor)
            os.write(descriptor, b"%d " % number)
            os.close(descriptor)
        os.close(writing)
        assert os.read(reading, 10_000).split() == [b"%d" % number for number in range(count)]
        os.close(reading)

    def test_two_hand_overs_stay_apart(self) -> None:
        ours, theirs = pair_for_descriptors()
        with ours, theirs, socket.socket() as one:
            hand_over(ours, ["a"], [one.fileno()])
            hand_over(ours, ["b"], [one.fileno()])
            for name in "ab":
                found = take_over(theirs)
                assert list(found) == [name]
                os.close(found[name])

    def test_nobody_is_there(self) -> None:
        ours, theirs = pair_for_descriptors()
        theirs.close()
        with ours, pytest.raises(OSError):
            hand_over(ours, [], [])
        ours, theirs = pair_for_descriptors()
        ours.close()
        with theirs, pytest.raises(ChannelClosed):
            take_over(theirs)
