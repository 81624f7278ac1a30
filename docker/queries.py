#!/usr/bin/env python3
"""The queries of a Grafana dashboard as a rule file for Prometheus, which `promtool check rules` can parse.

Fails when a query names a metric that no page of ours lists: a panel that stays empty without a word.

Usage: queries.py DASHBOARD.json METRICS.md [RULES.yml]...      (rule files: their metrics are looked up, nothing else)
"""
import json
import re
import sys

# What Prometheus itself adds to each target.
OF_PROMETHEUS = {"up"}
# What a histogram of the page is called in a query.
SUFFIXES = ("", "_bucket", "_sum", "_count")
# A variable of Grafana stands for a duration.
VARIABLE = re.compile(r"\$__(rate_interval|interval|range)\b")
NAME = re.compile(r"\b(?:adit|process)_\w+|\bup\b")


def listed(page):
    """The names in the first column of the page's tables; those of histograms with their suffixes."""
    names = set(OF_PROMETHEUS)
    with open(page, encoding="utf-8") as lines:
        for line in lines:
            row = re.match(r"\| `(\w+)` \| (\w+) \|", line)
            if row:
                names.update(row[1] + suffix for suffix in (SUFFIXES if row[2] == "histogram" else ("",)))
    return names


def queries(panels):
    for panel in panels:
        yield from ((panel["title"], target["expr"]) for target in panel.get("targets", []))
        yield from queries(panel.get("panels", []))


def metrics(query):
    """Names outside of label values and label lists."""
    bare = re.sub(r'"(?:\\.|[^"\\])*"', '""', query)
    return NAME.findall(re.sub(r"\b(by|without|on|ignoring)\s*\([^)]*\)", "", bare))


def main(dashboard, page, *rule_files):
    known = listed(page)
    with open(dashboard, encoding="utf-8") as definition:
        asked = list(queries(json.load(definition)["panels"]))
    if not asked or len(known) < 10:
        sys.exit(f"{dashboard} asks {len(asked)} queries, {page} lists {len(known)} names")
    unknown = [f"{title}: {name}" for title, query in asked for name in metrics(query) if name not in known]
    for file in rule_files:
        with open(file, encoding="utf-8") as text:
            expressions = "".join(line for line in text if not line.lstrip().startswith(("#", "summary:")))
        unknown += [f"{file}: {name}" for name in metrics(expressions) if name not in known]
    if unknown:
        sys.exit(f"not in {page}: " + ", ".join(unknown))
    rules = [{"record": f"query:{i}", "expr": VARIABLE.sub("1m", query)} for i, (_, query) in enumerate(asked)]
    print(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}, indent=1))


if len(sys.argv) < 3:
    sys.exit(__doc__)
main(*sys.argv[1:])
