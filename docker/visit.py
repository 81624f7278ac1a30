#!/usr/bin/env python3
"""A visitor of the compose stack that is not of adit's making: sends random bytes through one public
entry, and reports whether they came back. Exit code 1 with the reason when it did not.

Usage: visit.py http|websocket|grpc|tcp|udp HOST:PORT [HOST FIELD]
"""
import asyncio
import http.client
import os
import socket
import sys

TIMEOUT_S = 10
PAYLOAD = os.urandom(24).hex().encode()
LARGE = PAYLOAD * 5000  # 240 KB: more than one window, more than one message


def http_(address, host):
    connection = http.client.HTTPConnection(*address, timeout=TIMEOUT_S)
    connection.request("GET", "/small", headers={"Host": host})
    response = connection.getresponse()
    body = response.read()
    assert response.status == 200, f"status {response.status}: {body[:200]!r}"
    assert len(body) == 1024, f"{len(body)} bytes instead of 1024"
    connection.request("POST", "/upload", body=LARGE, headers={"Host": host})
    response = connection.getresponse()
    body = response.read()
    assert response.status == 200, f"status {response.status}: {body[:200]!r}"
    assert str(len(LARGE)).encode() in body, f"{len(LARGE)} bytes were sent, the service counted {body!r}"


def websocket(address, host):
    import websockets

    async def echo():
        stream = socket.create_connection(address, TIMEOUT_S)
        stream.setblocking(False)
        async with websockets.connect(f"ws://{host}/", sock=stream, open_timeout=TIMEOUT_S) as session:
            for message in (PAYLOAD, LARGE):
                await session.send(message)
                response = await asyncio.wait_for(session.recv(), TIMEOUT_S)
                assert response == message, f"{len(response)} bytes came back for {len(message)}"
            await session.send("1000")  # a text is the length that is wanted
            response = await asyncio.wait_for(session.recv(), TIMEOUT_S)
            assert len(response) == 1000, f"{len(response)} bytes instead of 1000"

    asyncio.run(echo())


def grpc(address, host):
    import grpc as stock

    def same(message):
        return message

    target = "%s:%d" % address
    options = [("grpc.default_authority", host), ("grpc.enable_http_proxy", 0)]
    with stock.insecure_channel(target, options) as channel:
        unary = channel.unary_unary("/compose.Check/Unary", same, same)
        response = unary(PAYLOAD, timeout=TIMEOUT_S)
        assert response == PAYLOAD, f"{len(response)} bytes came back for {len(PAYLOAD)}"
        stream = channel.stream_stream("/compose.Check/Stream", same, same)
        messages = [PAYLOAD, b"", LARGE]
        responses = list(stream(iter(messages), timeout=TIMEOUT_S))
        assert responses == messages, f"{len(responses)} messages came back for {len(messages)}"


def tcp(address, _):
    with socket.create_connection(address, TIMEOUT_S) as stream:
        stream.sendall(b"e" + LARGE)  # the first byte says what is wanted: an echo
        stream.shutdown(socket.SHUT_WR)
        response = b""
        while part := stream.recv(65536):
            response += part
    assert response == LARGE, f"{len(response)} bytes came back for {len(LARGE)}"


def udp(address, _):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.settimeout(1)
        datagrams.connect(address)
        # A datagram may be lost, so that one of a few is enough.
        for _ in range(TIMEOUT_S):
            datagrams.send(PAYLOAD)
            try:
                assert datagrams.recv(65536) == PAYLOAD, "another datagram came back"
                return
            except TimeoutError:
                pass
    raise AssertionError(f"nothing came back within {TIMEOUT_S} s")


def main():
    visits = {"http": http_, "websocket": websocket, "grpc": grpc, "tcp": tcp, "udp": udp}
    if len(sys.argv) not in (3, 4) or sys.argv[1] not in visits:
        sys.exit(__doc__)
    ip, _, port = sys.argv[2].rpartition(":")
    visits[sys.argv[1]]((ip, int(port)), sys.argv[3] if len(sys.argv) == 4 else sys.argv[2])


try:
    main()
except Exception as error:  # every one is a failed visit, and its text is what there is to say
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    sys.exit(1)
