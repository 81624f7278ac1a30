"""Calls the service of grpc_service.py through whatever stands before it: ADDRESS AUTHORITY. A line for each check."""

import concurrent.futures
import sys
import threading
import time

import grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from grpc_echo import BIG, Message, services

SOON = 60


def unary(stub, _):
    sent = [("x-text", "one"), ("x-text", "two"), ("x-blob-bin", bytes(range(256))), ("x-blob-bin", b"")]
    response, call = stub.Unary.with_call(Message(payload=b"abc", text="caf\u00e9"), metadata=sent, timeout=SOON)
    assert (response.payload, response.text) == (b"abc", "caf\u00e9"), response
    first = [v for k, v in call.initial_metadata() if k == "x-initial"]
    assert first == ["first", "second"], first
    back = [(k, v) for k, v in call.trailing_metadata() if k.startswith("x-text") or k.startswith("x-blob")]
    assert sorted(back) == sorted(sent), back


def client_stream(stub, _):
    response = stub.Collect((Message(payload=bytes(1000)) for _ in range(1000)), timeout=SOON)
    assert (response.count, response.text) == (1000, "1000000"), response


def server_stream(stub, _):
    responses = list(stub.Expand(Message(count=2000, payload=b"x" * 100), timeout=SOON))
    assert [response.count for response in responses] == list(range(2000))
    assert all(response.payload == b"x" * 100 for response in responses)


def bidi_in_turns(stub, _):
    """Each message is sent only when the response to the one before has come: nothing may be held back."""
    turn = threading.Semaphore(1)

    def requests():
        for number in range(200):
            assert turn.acquire(timeout=SOON)
            yield Message(payload=str(number).encode(), count=number)

    seen = 0
    for response in stub.Chat(requests(), timeout=SOON):
        assert response.payload == str(seen).encode()[::-1], response
        seen += 1
        turn.release()
    assert seen == 200, seen


def status_with_details(stub, _):
    try:
        stub.Fail(Message(), timeout=SOON)
        raise AssertionError("it responded")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.ABORTED, error
        assert error.details() == "none of \u00e9 \u2026 %", error.details()
        detail = error_details_pb2.ErrorInfo()
        assert rpc_status.from_call(error).details[0].Unpack(detail)
        assert (detail.reason, detail.metadata["k"]) == ("TEST", "v"), detail


def until_cancelled(stub, count):
    end = time.monotonic() + SOON
    while stub.Seen(Message(), timeout=SOON).count < count:
        assert time.monotonic() < end, "the service was not notified"
        time.sleep(0.01)


def deadline(stub, _):
    before = stub.Seen(Message(), timeout=SOON).count
    responses = stub.Hang(Message(), timeout=2)
    assert next(responses).text == "begun"
    # The deadline crosses: what the service has left is what the visitor gave it, less the way.
    left = float(stub.Seen(Message(), timeout=SOON).text)
    assert 0 < left <= 2.1, left
    try:
        next(responses)
        raise AssertionError("it responded")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
    until_cancelled(stub, before + 1)


def cancellation(stub, _):
    before = stub.Seen(Message(), timeout=SOON).count
    responses = stub.Hang(Message())
    assert next(responses).text == "begun"
    responses.cancel()
    until_cancelled(stub, before + 1)


def large_message(stub, _):
    payload = bytes(range(256)) * (64 << 12)
    response = stub.Unary(Message(payload=payload), timeout=SOON)
    assert response.payload == payload, len(response.payload)


def two_hundred_at_once(stub, _):
    def one(number):
        return stub.Unary(Message(text=str(number)), timeout=SOON).text == str(number)

    with concurrent.futures.ThreadPoolExecutor(max_workers=50) as pool:
        assert all(pool.map(one, range(200)))


def health(_, channel):
    stub = health_pb2_grpc.HealthStub(channel)
    response = stub.Check(health_pb2.HealthCheckRequest(service="adit.e2e.v1.Echo"), timeout=SOON)
    assert response.status == health_pb2.HealthCheckResponse.SERVING, response


def reflection(_, channel):
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    response = next(stub.ServerReflectionInfo(asked, timeout=SOON))
    names = [service.name for service in response.list_services_response.service]
    assert "adit.e2e.v1.Echo" in names, names


def main(address, authority, asked):
    channel = grpc.insecure_channel(address, options=[*BIG, ("grpc.default_authority", authority)])
    stub = services.EchoStub(channel)
    checks = [
        unary,
        client_stream,
        server_stream,
        bidi_in_turns,
        status_with_details,
        deadline,
        cancellation,
        large_message,
        two_hundred_at_once,
        health,
        reflection,
    ]
    for check in checks:
        if asked and check.__name__ not in asked:
            continue
        check(stub, channel)
        print(check.__name__, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
