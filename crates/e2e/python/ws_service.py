"""A WebSocket service: echoes, and does what a path asks. Prints its port, then serves until it is ended."""

import asyncio
import http
import os

from websockets.asyncio.server import serve


async def handle(connection):
    path = connection.request.path.split("?")[0]
    if path == "/close":
        await connection.close(4321, "as asked")
    elif path == "/fragments":
        # One message in many frames, with a ping between them.
        async def pieces():
            for number in range(100):
                yield str(number)
                await connection.ping()

        await connection.send(pieces())
    elif path == "/abort":
        await connection.send("soon")
        connection.transport.abort()
    elif path == "/flood":
        # Until the visitor stops reading.
        piece = os.urandom(1 << 16)
        while True:
            await connection.send(piece)
    elif path == "/headers":
        for name, value in connection.request.headers.raw_items():
            await connection.send(f"{name.lower()}: {value}")
        await connection.send(f"subprotocol: {connection.subprotocol}")
        await connection.send(f"extensions: {[e.name for e in connection.protocol.extensions]}")
    else:
        async for message in connection:
            await connection.send(message)
        print("closed", connection.close_code, connection.close_reason, flush=True)


def refuse(connection, request):
    if request.path == "/refused":
        return connection.respond(http.HTTPStatus.FORBIDDEN, "not you")


def choose(_, offered):
    return next((name for name in offered if name in ("chat.v1", "chat.v2")), None)


async def main():
    options = {"process_request": refuse, "select_subprotocol": choose, "max_size": 80 << 20}
    async with serve(handle, "127.0.0.1", int(os.environ.get("PORT", "0")), **options) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(main())
