"""Builds the messages of echo.proto at run time: nothing generated is committed."""

import importlib
import pathlib
import sys
import tempfile

from grpc_tools import protoc

HERE = pathlib.Path(__file__).parent
_out = tempfile.mkdtemp()
if protoc.main(["protoc", f"-I{HERE}", f"--python_out={_out}", f"--grpc_python_out={_out}", str(HERE / "echo.proto")]):
    sys.exit("echo.proto does not compile")
sys.path.insert(0, _out)
messages = importlib.import_module("echo_pb2")
services = importlib.import_module("echo_pb2_grpc")
Message = messages.Message

BIG = [("grpc.max_receive_message_length", 80 << 20), ("grpc.max_send_message_length", 80 << 20)]
