"""A gRPC service with health and reflection. Prints its port, then serves until it is ended."""

import concurrent.futures
import sys
import threading
import time

import grpc
from google.rpc import error_details_pb2, status_pb2
from google.protobuf import any_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

from grpc_echo import BIG, Message, messages, services

NAME = messages.DESCRIPTOR.services_by_name["Echo"].full_name


class Echo(services.EchoServicer):
    def __init__(self):
        self.lock = threading.Lock()
        self.cancelled = 0
        self.remaining = 0.0

    def Unary(self, request, context):
        seen = [(k, v) for k, v in context.invocation_metadata() if k.startswith("x-")]
        context.send_initial_metadata([("x-initial", "first"), ("x-initial", "second")])
        # What came goes back, in its order, repeated and binary.
        context.set_trailing_metadata(seen)
        return Message(payload=request.payload, count=len(seen), text=request.text)

    def Collect(self, requests, context):
        count = length = 0
        for request in requests:
            count += 1
            length += len(request.payload)
        return Message(count=count, text=str(length))

    def Expand(self, request, context):
        for number in range(request.count):
            yield Message(count=number, payload=request.payload)

    def Chat(self, requests, context):
        for request in requests:
            yield Message(payload=request.payload[::-1], count=request.count)

    def Fail(self, request, context):
        detail = any_pb2.Any()
        detail.Pack(error_details_pb2.ErrorInfo(reason="TEST", domain="adit", metadata={"k": "v"}))
        status = status_pb2.Status(code=grpc.StatusCode.ABORTED.value[0], message="none of \u00e9 \u2026 %", details=[detail])
        context.abort_with_status(rpc_status.to_status(status))

    def Hang(self, request, context):
        gone = threading.Event()
        context.add_callback(gone.set)
        with self.lock:
            self.remaining = context.time_remaining() or 0.0
        yield Message(text="begun")
        gone.wait(60)
        with self.lock:
            self.cancelled += 1

    def Seen(self, request, context):
        with self.lock:
            return Message(count=self.cancelled, text=str(self.remaining))


def main():
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=64), options=BIG)
    services.add_EchoServicer_to_server(Echo(), server)
    checker = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checker, server)
    checker.set(NAME, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection((NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    sys.exit(main())
