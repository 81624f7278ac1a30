#!/usr/bin/env python3
"""The parts of Grafana that the compose stack's checks use: reads the provisioning as Grafana does, rejects the logins
that Grafana would reject, shows the provisioned dashboards, and forwards queries to the provisioned data sources.

GET /api/health, /api/user, /api/dashboards/uid/UID, /api/datasources/proxy/uid/UID/...
"""
import json
import os
import pathlib
import signal
import sys
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml

PROVISIONING = pathlib.Path(os.environ["GF_PATHS_PROVISIONING"])


def provisioned(kind):
    for file in sorted((PROVISIONING / kind).glob("*.y*ml")):
        with open(file, encoding="utf-8") as text:
            yield yaml.safe_load(text)


def read_dashboards():
    found = {}
    for definition in provisioned("dashboards"):
        for provider in definition["providers"]:
            for file in sorted(pathlib.Path(provider["options"]["path"]).rglob("*.json")):
                dashboard = json.loads(file.read_text(encoding="utf-8"))
                found[dashboard["uid"]] = dashboard
    return found


SOURCES = {source["uid"]: source["url"] for d in provisioned("datasources") for source in d["datasources"]}
DASHBOARDS = read_dashboards()


def setting(name):
    return os.environ.get(name, "").lower() == "true"


class Visit(BaseHTTPRequestHandler):
    def respond(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def say(self, status, value):
        self.respond(status, json.dumps(value).encode())

    def do_GET(self):
        if self.path == "/api/health":
            return self.say(200, {"database": "ok"})
        if self.headers.get("Authorization", "").startswith("Basic "):
            # With password accounts switched off, no user matches.
            if setting("GF_AUTH_BASIC_ENABLED") or not setting("GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"):
                return self.say(200, {"login": "admin"})
            return self.say(401, {"message": "Unauthorized"})
        if not setting("GF_AUTH_ANONYMOUS_ENABLED") or self.path == "/api/user":
            return self.say(401, {"message": "Unauthorized"})
        if self.path.startswith("/api/dashboards/uid/"):
            dashboard = DASHBOARDS.get(self.path.rpartition("/")[2])
            return self.say(200, {"dashboard": dashboard}) if dashboard else self.say(404, {"message": "not found"})
        prefix = "/api/datasources/proxy/uid/"
        if self.path.startswith(prefix):
            uid, _, rest = self.path[len(prefix):].partition("/")
            if uid in SOURCES:
                return self.lead(f"{SOURCES[uid]}/{rest}")
        return self.say(404, {"message": "not found"})

    def lead(self, url):
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                return self.respond(response.status, response.read())
        except urllib.error.HTTPError as error:
            return self.respond(error.code, error.read())
        except OSError as error:
            return self.say(502, {"message": str(error)})

    def log_message(self, *_):
        pass


print(f"dashboards {', '.join(DASHBOARDS)}; data sources {', '.join(SOURCES)}")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
ThreadingHTTPServer(("", 3000), Visit).serve_forever()
