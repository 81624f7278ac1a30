"""Shared by the scripts in this directory: builds the programs, runs a server and a client with load between them, and
writes the result with commit, date and machine."""

import json
import os
import platform
import re
import signal
import statistics
import subprocess
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def add_options(parser):
    """Adds the options that `programs_of` and `write` read."""
    parser.add_argument("--programs", type=Path, help="where the programs are; without it, they are built")
    parser.add_argument("--md", type=Path)
    parser.add_argument("--json", type=Path)


def programs_of(args):
    """The directory of adit-server, adit and adit-loadtest. Builds them unless `--programs` names a directory."""
    if args.programs:
        return args.programs
    command = ["cargo", "build", "--profile", "dist", "-p", "adit", "-p", "adit-loadtest"]
    subprocess.run(command, cwd=ROOT, check=True)
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "dist"


def provenance():
    """Commit, date and machine of a measurement."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return {
        "commit": commit.stdout.strip(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}",
    }


def heading(provenance):
    """The provenance as the first sentence of a page."""
    return f"Commit {provenance['commit']}, {provenance['date']}, {provenance['machine']}."


def ratios(here, there):
    """The median of the ratios of two series, round by round, with the smallest and the largest."""
    each = [one / other for one, other in zip(here, there)]
    return {"ratio": round(statistics.median(each), 3), "ratio_range": [round(min(each), 3), round(max(each), 3)]}


def table(rows):
    """Rows of cells as a Markdown table; the second row has the alignment of the columns."""
    return ["| " + " | ".join(row) + " |" for row in rows]


def write(args, page, result):
    """Prints the page, and writes page and result to the files given by `--md` and `--json`."""
    print(page)
    if args.md:
        args.md.write_text(page)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


class Service:
    """A small HTTP service, until its `with` ends."""

    def __init__(self, programs):
        command = [str(programs / "adit-loadtest"), "serve", "--json"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.http = json.loads(self.process.stdout.readline())["http"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


class Tunnel:
    """A server and a client, beside a service that runs already. They end with the `with` that began them."""

    server = client = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in (self.client, self.server):
            if process and process.poll() is None:
                process.kill()
                process.wait()

    def __init__(self, programs, service, server_keys="", client_keys="", valgrind=False):
        """With further keys of both files: lines with two blanks before each."""
        self.programs = programs
        self.dir = tempfile.TemporaryDirectory()
        home = Path(self.dir.name)
        self.out = {name: home / f"{name}.callgrind" for name in ("server", "client")}
        (home / "server.yaml").write_text(
            "server:\n  bind_port: 0\n  http: { bind_port: 0 }\n  admin: { bind: off }\n"
            f"  threads: 1\n{server_keys}"
        )
        port = service.rsplit(":", 1)[1]
        (home / "client.yaml").write_text(
            f"client:\n{client_keys}  tunnels: [{{ name: web, type: http, local_port: {port} }}]\n"
        )

        def start(name, program, *more):
            command = [str(programs / program), *more, "--state-dir", str(home / "state")]
            if valgrind:
                profile = f"--callgrind-out-file={self.out[name]}"
                command = ["valgrind", "-q", "--tool=callgrind", profile, *command]
            log = open(home / f"{name}.log", "w")
            return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)

        self.server = start("server", "adit-server", "--config", str(home / "server.yaml"))
        first = re.search(r"http://\S+", self.server.stdout.readline())
        if not first:
            raise SystemExit("the server does not start: " + (home / "server.log").read_text())
        self.entry = first.group(0)
        deadline = time.monotonic() + 60
        while not (home / "state" / "server.json").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        self.client = start("client", "adit", "start", "--config", str(home / "client.yaml"))
        # The public URL: it is connected.
        if "http" not in self.client.stdout.readline():
            self.server.kill()
            raise SystemExit("no tunnel: " + (home / "client.log").read_text())

    def load(self, rate, seconds, connections=16):
        """Open loop at this rate; without one, a closed loop. Returns the number of completed requests."""
        output = subprocess.run(
            [str(self.programs / "adit-loadtest"), "http", "--target", self.entry, "--host", "web.localhost"]
            + (["--rate", str(rate)] if rate else [])
            + ["--duration", str(seconds), "--warm-up", "0", "--connections", str(connections)],
            capture_output=True,
            text=True,
        )
        result = json.loads(output.stdout.strip().splitlines()[-1])
        if output.returncode != 0:
            raise SystemExit(f"requests failed: {result['failures']}")
        return result["requests"]

    def cpu_seconds(self):
        """Of both processes so far."""
        total = 0
        for process in (self.server, self.client):
            # The thread group's own counters: the system does not round them to ticks.
            for task in Path(f"/proc/{process.pid}/task").iterdir():
                total += int((task / "schedstat").read_text().split()[0])
        return total / 1e9

    def end(self):
        for process in (self.client, self.server):
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=120)

    def instructions(self):
        total = 0
        for out in self.out.values():
            total += int(re.search(r"^totals: (\d+)", out.read_text(), re.M).group(1))
        return total
