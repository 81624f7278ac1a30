"""Visits ws_service.py through whatever stands before it: ADDRESS HOST. A line for each check."""

import asyncio
import sys

import websockets
from websockets.asyncio.client import connect

SOON = 60


async def echo(open):
    async with open("/") as connection:
        for message in ["", "a", "caf\u00e9 \u2026", b"", bytes(range(256)), "x" * 125, "x" * 126, b"y" * 65535, b"z" * 65536]:
            await connection.send(message)
            assert await connection.recv() == message


async def compressed(open):
    async with open("/") as connection:
        assert [extension.name for extension in connection.protocol.extensions] == ["permessage-deflate"]
        message = "the same again and again, " * 100_000
        await connection.send(message)
        assert await connection.recv() == message


async def uncompressed(open):
    async with open("/", compression=None) as connection:
        assert connection.protocol.extensions == []
        message = bytes(range(256)) * (64 << 12)
        await connection.send(message)
        assert await connection.recv() == message


async def fragments_there(open):
    async with open("/") as connection:
        async def pieces():
            for number in range(100):
                yield bytes([number]) * 1000
                await connection.ping()

        await connection.send(pieces())
        whole = await connection.recv()
        assert whole == b"".join(bytes([number]) * 1000 for number in range(100))


async def fragments_back(open):
    async with open("/fragments") as connection:
        parts = [part async for part in connection.recv_streaming()]
        assert "".join(parts) == "".join(str(number) for number in range(100))
        assert len(parts) >= 100, len(parts)


async def ping(open):
    async with open("/") as connection:
        responded = await connection.ping(b"are you there")
        await asyncio.wait_for(responded, SOON)


async def subprotocol(open):
    async with open("/headers", subprotocols=["chat.v1", "other"]) as connection:
        assert connection.subprotocol == "chat.v1", connection.subprotocol
        lines = [line async for line in connection]
        assert "subprotocol: chat.v1" in lines, lines
        assert any(line.startswith("x-forwarded-for: ") for line in lines), lines
        assert "origin: http://somewhere.test" in lines, lines
        assert "extensions: ['permessage-deflate']" in lines, lines


async def close_by_the_service(open):
    async with open("/close") as connection:
        try:
            await connection.recv()
            raise AssertionError("a message")
        except websockets.ConnectionClosed as closed:
            assert (closed.rcvd.code, closed.rcvd.reason) == (4321, "as asked"), closed


async def close_by_the_visitor(open):
    connection = await open("/")
    await connection.close(4000, "enough")
    assert connection.close_code == 4000, connection.close_code


async def abort_by_the_service(open):
    """TCP ends without a close frame, and so it does here: 1006 is what a library calls that."""
    async with open("/abort") as connection:
        assert await connection.recv() == "soon"
        try:
            await connection.recv()
            raise AssertionError("a message")
        except websockets.ConnectionClosed as closed:
            assert not closed.rcvd, closed
        assert connection.close_code == 1006, connection.close_code


async def refused(open):
    try:
        await open("/refused")
        raise AssertionError("it opened")
    except websockets.InvalidStatus as response:
        assert response.response.status_code == 403, response.response
        assert response.response.body == b"not you", response.response.body


async def many_beside_one_that_stalls(open):
    stalled = await open("/flood", max_queue=1, compression=None)

    async def one(number):
        async with open("/") as connection:
            for turn in range(50):
                message = f"{number} {turn}"
                await connection.send(message)
                assert await connection.recv() == message

    await asyncio.wait_for(asyncio.gather(*(one(number) for number in range(50))), SOON)
    stalled.transport.abort()


async def main(address, host, asked):
    def open(path, **options):
        ip, port = address.rsplit(":", 1)
        options = {"max_size": 80 << 20, "origin": "http://somewhere.test", **options}
        return connect(f"ws://{host}{path}", host=ip, port=int(port), proxy=None, **options)

    checks = [
        echo,
        compressed,
        uncompressed,
        fragments_there,
        fragments_back,
        ping,
        subprotocol,
        close_by_the_service,
        close_by_the_visitor,
        abort_by_the_service,
        refused,
        many_beside_one_that_stalls,
    ]
    for check in checks:
        if asked and check.__name__ not in asked:
            continue
        await asyncio.wait_for(check(open), SOON)
        print(check.__name__, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
