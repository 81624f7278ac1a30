"""A client of adit in another language: stock grpcio, stock protobuf, nothing of ours.

Its first argument selects the case. It prints its results on standard output, one line each:

    serve      register, open both streams, serve requests, response heartbeats
    shuffled   the same, every message with its fields in random order and unknown ones between them
    mute       the same, but heartbeats stay without a response
    streams    the same, and ends either stream and opens it again when a request says so (P-1.7)
    refusals   what a wrong version, a wrong credential, an old session get; then a takeover by the same instance

docs/protocol.md numbers the rules (P-x.y).
"""

import os
import queue
import random
import sys
import tempfile
import threading
import zlib

import grpc
from google.protobuf.descriptor import FieldDescriptor
from grpc_tools import protoc

KIND, SERVER, TOKEN, PROTO = sys.argv[1:5]
MESSAGE_COST = 256
CHUNK = 16 * 1024


def generate():
    """The stubs, made from the committed proto alone."""
    out = tempfile.mkdtemp()
    code = protoc.main(
        ["protoc", f"-I{PROTO}", f"--python_out={out}", f"--grpc_python_out={out}", "adit/tunnel/v1/tunnel.proto"]
    )
    if code != 0:
        sys.exit(f"protoc: {code}")
    # The stubs import each other by the package's path; so that `adit` is theirs, not a package of the system.
    for directory in ("adit", "adit/tunnel", "adit/tunnel/v1"):
        open(os.path.join(out, directory, "__init__.py"), "w").close()
    sys.path.insert(0, out)
    import adit.tunnel.v1.tunnel_pb2 as messages
    import adit.tunnel.v1.tunnel_pb2_grpc as service

    return messages, service


pb, rpc = generate()
SAYING = threading.Lock()


def say(*words):
    with SAYING:
        print(*words, flush=True)


def pattern(offset, length):
    """Bytes that both sides can compute."""
    return bytes((offset + index) % 251 for index in range(length))


# Computed once: Python is slow at it.
PERIOD = pattern(0, 251) * 600


def piece(offset, length):
    start = offset % 251
    return PERIOD[start : start + length]


def varint(value):
    out = bytearray()
    while True:
        out.append((value & 0x7F) | (0x80 if value > 0x7F else 0))
        value >>= 7
        if not value:
            return bytes(out)


def shuffled(message):
    """The message with its fields in random order, at every depth (P-2.3). Repeated fields keep theirs."""
    parts = []
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            many = value if isinstance_repeated(field) else [value]
            tag = varint(field.number << 3 | 2)
            encoded = b""
            for one in many:
                body = shuffled(one)
                encoded += tag + varint(len(body)) + body
        else:
            alone = type(message)()
            if isinstance_repeated(field):
                getattr(alone, field.name).extend(value)
            else:
                setattr(alone, field.name, value)
            encoded = alone.SerializeToString()
        parts.append(encoded)
    # Unknown fields: a number, and bytes.
    parts.append(varint(1000 << 3 | 0) + varint(7))
    parts.append(varint(1001 << 3 | 2) + varint(3) + b"abc")
    random.shuffle(parts)
    return b"".join(parts)


def isinstance_repeated(field):
    repeated = getattr(field, "is_repeated", None)
    return repeated if isinstance(repeated, bool) else field.label == FieldDescriptor.LABEL_REPEATED


def plain(message):
    return message.SerializeToString()


class Outbox:
    """What is to be sent on one stream; an iterator for grpcio."""

    def __init__(self):
        self.messages = queue.Queue()

    def send(self, **fields):
        self.messages.put(pb.TunnelMessage(**fields))

    def __iter__(self):
        return iter(self.messages.get, None)


class Request:
    """One request from the visitor's side, and its credit in both directions (P-4)."""

    def __init__(self, head, initial):
        self.head = head
        self.initial = initial
        self.path = head.path.decode()
        self.received = 0
        self.crc = 0
        self.cost = 0
        self.granted = initial
        self.send_limit = initial
        self.sent_cost = 0
        self.peak = 0
        self.response = None
        self.ended = False


class Link:
    def __init__(self, channel, registered, session, serialize, responds_to_heartbeats=True):
        self.settings = registered.settings
        self.responds_to_heartbeats = responds_to_heartbeats
        self.channel = channel
        self.serialize = serialize
        self.metadata = (("adit-session", session),)
        self.results = queue.Queue()
        self.sequence = 0
        self.open_control()
        self.open_proxy()
        self.announce()

    def open_control(self):
        self.control_out = Outbox()
        self.control = self.stream("ControlStream", self.control_out, ())
        threading.Thread(target=self.read_control, daemon=True).start()

    def announce(self):
        """P-1.4: all tunnels in one message; waits for their results."""
        self.sequence += 1
        tunnels = [pb.Tunnel(name="py", protocol_type=pb.PROTOCOL_TYPE_HTTP)]
        announce = pb.TunnelsAnnounce(sequence=self.sequence, tunnels=tunnels)
        self.control_out.send(
            protocol_type=pb.PROTOCOL_TYPE_CONTROL, control=pb.Control(tunnels_announce=announce)
        )
        results = self.results.get(timeout=20)
        assert results.sequence == self.sequence, results
        assert [result.name for result in results.results] == ["py"], results
        for result in results.results:
            assert not result.HasField("error"), result

    def open_proxy(self):
        # P-2.2: ids belong to one data stream.
        self.out = Outbox()
        self.requests = {}
        self.last_id = 0
        self.proxy = self.stream("Proxy", self.out, (("adit-lane", "0"),))
        # P-1.6: open before any message has been sent.
        self.proxy.initial_metadata()

    def stream(self, name, out, more):
        path = "/adit.tunnel.v1.TunnelService/" + name
        decode = pb.TunnelMessage.FromString
        call = self.channel.stream_stream(path, self.serialize, decode)
        return call(iter(out), metadata=self.metadata + more)

    def read_control(self):
        try:
            for message in self.control:
                if message.control.HasField("heartbeat"):
                    self.on_heartbeat(self.control_out, message)
                elif message.control.HasField("tunnel_results"):
                    self.results.put(message.control.tunnel_results)
        except grpc.RpcError as error:
            say("control ended", error.code().name)

    def on_heartbeat(self, out, message):
        beat = message.control.heartbeat
        if beat.reply:
            say("heartbeat responded", beat.sequence)
        elif self.responds_to_heartbeats:
            reply = pb.Heartbeat(sequence=beat.sequence, reply=True)
            out.send(protocol_type=pb.PROTOCOL_TYPE_CONTROL, control=pb.Control(heartbeat=reply))

    def serve(self):
        """Until the stream ends; says how."""
        try:
            for message in self.proxy:
                self.on_message(message)
            say("proxy ended", "OK")
        except grpc.RpcError as error:
            say("proxy ended", error.code().name)

    def on_message(self, message):
        kind = message.WhichOneof("payload")
        if kind == "control":
            if message.control.HasField("heartbeat"):
                self.on_heartbeat(self.out, message)
            return
        number = message.request_id
        if kind == "http_request":
            # P-2.2, P-2.8.
            assert number % 2 == 0 and number > self.last_id, number
            assert len(message.http_request.open.request_uuid) == 16
            self.last_id = number
            request = Request(message.http_request, self.settings.initial_window_bytes)
            self.requests[number] = request
            if message.http_request.body:
                self.on_data(number, request, message.http_request.body)
            if request.path.startswith("/down") or request.path == "/overrun":
                self.begin_response(number, request)
        request = self.requests.get(number)
        if not request:
            return
        if kind == "chunk":
            self.on_data(number, request, message.chunk)
        elif kind == "window":
            # P-4.3: a lower limit is ignored.
            request.send_limit = max(request.send_limit, message.window.limit)
            self.go_on(number, request)
        elif kind == "reset":
            say("reset", pb.ResetCode.Name(message.reset.code), request.path)
            del self.requests[number]
            return
        elif kind == "stop_sending":
            say("stop", request.path)
            self.out.send(request_id=number, end_stream=True)
            del self.requests[number]
            return
        if message.end_stream or kind == "trailers":
            request.ended = True
            if not (request.path.startswith("/down") or request.path == "/overrun"):
                self.response(number, request)

    def on_data(self, number, request, data):
        request.received += len(data)
        request.crc = zlib.crc32(data, request.crc)
        request.cost += len(data) + MESSAGE_COST
        request.peak = max(request.peak, request.granted)
        # P-4.4: the server keeps to what it was granted.
        if request.cost > request.granted:
            say("overrun by the server", request.cost, request.granted)
        # P-4.6: granted anew when half has been consumed; here data is consumed when it is read.
        if request.granted - request.cost < request.initial // 2:
            request.granted = request.cost + request.initial
            window = pb.Window(limit=request.granted, consumed=request.cost)
            self.out.send(request_id=number, message_type=pb.MESSAGE_TYPE_WINDOW, window=window)

    def response(self, number, request):
        if request.path == "/end-control":
            self.control.cancel()
        elif request.path == "/open-control":
            self.open_control()
        elif request.path == "/end-data":
            self.proxy.cancel()
            return
        if request.path == "/hello":
            text = b"hello from python"
        elif request.path == "/headers":
            text = b"\n".join(header.name + b": " + header.value for header in request.head.headers)
        else:
            text = f"{request.received} {request.crc}".encode()
        headers = [pb.Header(name=b"content-length", value=str(len(text)).encode())]
        self.out.send(
            request_id=number,
            protocol_type=pb.PROTOCOL_TYPE_HTTP,
            message_type=pb.MESSAGE_TYPE_RESPONSE,
            end_stream=True,
            http_response=pb.HttpResponse(status=200, headers=headers, body=text),
        )
        del self.requests[number]

    def begin_response(self, number, request):
        if request.path == "/overrun":
            self.out.send(request_id=number, http_response=pb.HttpResponse(status=200))
            # P-4.4: more than was granted, on purpose; in one message, so that no grant can come in between.
            self.out.send(request_id=number, chunk=piece(0, request.send_limit))
            return
        length = int(request.path.rsplit("/", 1)[1])
        request.response = [0, length]
        headers = [pb.Header(name=b"content-length", value=str(length).encode())]
        head = pb.HttpResponse(status=200, headers=headers)
        self.out.send(request_id=number, message_type=pb.MESSAGE_TYPE_RESPONSE, http_response=head)
        self.go_on(number, request)

    def go_on(self, number, request):
        """As much of a response as the server's windows allow (P-4.2)."""
        if request.response == None:  # noqa: E711
            return
        offset, length = request.response
        while offset < length:
            size = min(CHUNK, length - offset)
            if request.sent_cost + size + MESSAGE_COST > request.send_limit:
                break
            request.sent_cost += size + MESSAGE_COST
            last = offset + size == length
            self.out.send(
                request_id=number,
                message_type=pb.MESSAGE_TYPE_STREAM_CHUNK,
                end_stream=last,
                chunk=piece(offset, size),
            )
            offset += size
        request.response[0] = offset
        if offset == length:
            request.response = None


def register_request(**changes):
    fields = dict(
        protocol_version=1,
        capabilities=["http", "an-unknown-capability"],
        client_id="python-1",
        group_id="python",
        instance_secret=bytes(range(32)),
        credential=pb.Credential(token=TOKEN),
        lanes=1,
        client_version="python",
    )
    fields.update(changes)
    return pb.RegisterRequest(**fields)


def reason(error):
    for metadata in (error.trailing_metadata(), error.initial_metadata()):
        for name, value in metadata or ():
            if name == "adit-reason":
                return value
    return "-"


def register(stub, **changes):
    registered = stub.Register(register_request(**changes), timeout=20)
    assert registered.protocol_version == 1
    # P-1.2: the intersection.
    assert "an-unknown-capability" not in registered.capabilities
    return registered


def connect():
    # Channels with the same options share a connection otherwise.
    options = [("grpc.use_local_subchannel_pool", 1)]
    return grpc.insecure_channel(SERVER, options=options)


def refused(what, call):
    try:
        call()
        say(what, "accepted")
    except grpc.RpcError as error:
        say(what, error.code().name, reason(error))


def refusals(channel, stub):
    refused("version", lambda: stub.Register(register_request(protocol_version=9), timeout=20))
    wrong = pb.Credential(token="wrong" * 8)
    refused("credential", lambda: stub.Register(register_request(credential=wrong), timeout=20))
    refused("nothing", lambda: stub.Register(register_request(credential=None), timeout=20))
    for session in ("nonsense", "A" * 43, "0" * 64):
        call = stub.Proxy(iter(()), metadata=(("adit-session", session),), timeout=20)
        refused("session", lambda: next(call))
    call = stub.ControlStream(iter(()), metadata=(("adit-session", "nonsense"),), timeout=20)
    refused("control", lambda: next(call))

    first = register(stub)
    old = Link(channel, first, first.session, plain)
    ended = threading.Thread(target=old.serve)
    ended.start()
    # P-1.8: another instance is refused as long as this one responses.
    refused(
        "instance",
        lambda: rpc.TunnelServiceStub(connect()).Register(
            register_request(instance_secret=bytes(32)), timeout=20
        ),
    )
    # P-1.8: the same instance takes over, and the old epoch's streams are closed.
    new_channel = connect()
    second = register(rpc.TunnelServiceStub(new_channel))
    assert second.epoch > first.epoch
    new = Link(new_channel, second, second.session, plain)
    ended.join(20)
    say("taken over", not ended.is_alive())
    # P-1.5: the old session opens nothing any more.
    call = stub.Proxy(iter(()), metadata=(("adit-session", first.session),), timeout=20)
    refused("fenced", lambda: next(call))
    say("ready")
    new.serve()


def main():
    channel = connect()
    stub = rpc.TunnelServiceStub(channel)
    if KIND == "refusals":
        refusals(channel, stub)
        return
    registered = register(stub)
    serialize = shuffled if KIND == "shuffled" else plain
    link = Link(channel, registered, registered.session, serialize, KIND != "mute")
    if KIND == "serve":
        # P-6.5: the server responses on the data stream as well.
        beat = pb.Heartbeat(sequence=77)
        link.out.send(protocol_type=pb.PROTOCOL_TYPE_CONTROL, control=pb.Control(heartbeat=beat))
    say("ready")
    link.serve()
    while KIND == "streams":
        link.open_proxy()
        link.serve()


main()
