#!/usr/bin/env python3
"""Reads responses of Jaeger and Prometheus from standard input, and checks that they are complete.

Usage: seen.py trace SERVICE...           spans of all these services, in one trace
       seen.py targets COUNT              so many scrape targets, all up
       seen.py rules NAME...              these alert rules are loaded, and in order
       seen.py alert raised|over NAME TUNNEL   the alert fires for the tunnel, or is not there
       seen.py dashboard URL FILE         every query of the dashboard has a result in Prometheus
"""
import json
import sys
import urllib.error
import urllib.parse
import urllib.request


def read():
    text = sys.stdin.read()
    try:
        return json.loads(text)
    except ValueError:
        raise AssertionError(f"no JSON but {text[:200]!r}") from None


def trace(*services):
    data = read().get("data") or []
    assert data, "the trace is not there"
    spans, processes = data[0]["spans"], data[0]["processes"]
    counts = {}
    for span in spans:
        name = processes[span["processID"]]["serviceName"]
        counts[name] = counts.get(name, 0) + 1
    lacking = [service for service in services if service not in counts]
    assert not lacking, f"no span of {', '.join(lacking)} among {counts}"
    ids = {span["spanID"] for span in spans}
    parents = {r["spanID"] for span in spans for r in span["references"] or [] if r["refType"] == "CHILD_OF"}
    # One parent is not in the trace: the visitor's span, which the request named.
    assert len(parents - ids) == 1, f"the spans hang on {len(parents - ids)} parents outside of the trace"
    return ", ".join(f"{count} of {name}" for name, count in sorted(counts.items()))


def targets(count):
    active = read()["data"]["activeTargets"]
    down = [f"{t['labels'].get('instance')}: {t['health']} {t['lastError']}" for t in active if t["health"] != "up"]
    assert not down, "; ".join(down)
    assert len(active) == int(count), f"{len(active)} targets instead of {count}"
    return ", ".join(sorted(target["labels"]["instance"] for target in active))


def rules(*names):
    loaded = {rule["name"]: rule for group in read()["data"]["groups"] for rule in group["rules"]}
    for name in names:
        assert name in loaded, f"{name} is not among {', '.join(loaded) or 'no rules'}"
        assert loaded[name]["health"] != "err", f"{name}: {loaded[name]['lastError']}"
    return ", ".join(loaded)


def alert(state, name, tunnel):
    alerts = read()["data"]["alerts"]
    found = [a["state"] for a in alerts if (a["labels"]["alertname"], a["labels"].get("tunnel")) == (name, tunnel)]
    assert found == (["firing"] if state == "raised" else []), f"{name} of {tunnel}: {found or 'not there'}"
    return f"{tunnel}: {state}"


def dashboard(url, file):
    with open(file, encoding="utf-8") as definition:
        panels = json.load(definition)["panels"]
    queries = [(p["title"], t["expr"]) for p in panels for t in p.get("targets", [])]
    assert queries, "the dashboard asks nothing"
    for title, query in queries:
        query = query.replace("$__rate_interval", "1m")
        try:
            with urllib.request.urlopen(f"{url}/api/v1/query?{urllib.parse.urlencode({'query': query})}") as response:
                result = json.load(response)["data"]["result"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{title}: {query}: {error.read().decode()[:200]}") from None
        assert result, f"{title}: nothing for {query}"
    return f"{len(queries)} queries of {len(panels)} panels"


def main():
    ways = {"trace": trace, "targets": targets, "rules": rules, "alert": alert, "dashboard": dashboard}
    if len(sys.argv) < 2 or sys.argv[1] not in ways:
        sys.exit(__doc__)
    print(ways[sys.argv[1]](*sys.argv[2:]))


try:
    main()
except (AssertionError, KeyError, TypeError, OSError) as error:
    print(f"{error}" if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}", file=sys.stderr)
    sys.exit(1)
