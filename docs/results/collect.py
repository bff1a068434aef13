"""Writes the runs of a comparison as JSON: `python docs/results/collect.py COMPARISON OUT.json "command" [commit]`.

COMPARISON is compare.py's folder `out=`; the commit is the template's that made the project.
"""

import json
import sys
from pathlib import Path

METRICS = ("test/acc", "test/loss", "val/acc", "val/loss", "test/fd_500", "test/asked_class", "steps")


def main(folder: str, out: str, command: str, commit: str) -> None:
    runs, versions = [], {}
    for file in sorted(Path(folder).glob("runs/*/summary.json")):
        summary = json.loads(file.read_text())
        versions = summary["versions"]
        name = file.parent.name.rpartition("-")[0]  # without the digest
        runs.append({"run": name, "seed": summary["seed"]} | {key: summary[key] for key in METRICS if key in summary})
    record = {"command": command, "commit": commit, "versions": versions, "runs": runs}
    Path(out).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
