"""train.py and evaluate.py that take no time, for tests of what is made of many runs."""

from pathlib import Path

TRAIN = """
import json, math, pathlib, random, signal, sys, time
given = dict(argument.split("=", 1) for argument in sys.argv[1:])
run = pathlib.Path(given["resume"]) if "resume" in given else pathlib.Path(given["runs"], given["name"])
started = run / "argv.json"
if "resume" not in given:
    run.mkdir(parents=True)
    started.write_text(json.dumps(given))
given = {**json.loads(started.read_text()), **given}
(run / "checkpoints").mkdir(exist_ok=True)
what, last = given.get("save_every_n_steps", "0"), run / "checkpoints" / "last.ckpt"
print("epoch     1/2  step 10  train/loss 2.0000  val/acc 0.5000  0.1 s", flush=True)
if what == "1":
    print("Traceback", "RuntimeError: too large", sep="\\n", file=sys.stderr)
    sys.exit(1)
if what == "2" and not last.exists():
    def save(*_):
        last.write_text("half")
        sys.exit(130)
    signal.signal(signal.SIGINT, save)
    (run / "waits").write_text("")
    time.sleep(60)
norm, seed = given.get("norm", "dyt"), int(given.get("seed", 0))
rng = random.Random(f"{norm} {seed}")
skill = {"dyt": 0.02, "derf": 0.021, "ln": 0.0, "rmsnorm": -0.002, "bn": -0.03}.get(norm, -0.2)
alpha0, lr = float(given.get("norm.alpha0", 0.5)), float(given.get("optim.lr", 1e-3))
skill -= 0.01 * abs(math.log2(alpha0)) + 0.01 * abs(math.log10(lr) + 2.5) + rng.gauss(0, 0.004)
final = 0.95 + skill
rows = []
for step in range(0, 600, 5):
    at = step / 600
    rows.append((step, "train/loss", 0.5 + 1.8 * math.exp(-6 * at) - skill + rng.gauss(0, 0.05)))
    if step % 20 == 15:
        rows.append((step, "val/loss", 0.45 + 1.8 * math.exp(-6 * at) - 2 * skill + rng.gauss(0, 0.01)))
        rows.append((step, "val/acc", final - 0.8 * math.exp(-7 * at) + rng.gauss(0, 0.005)))
    for layer in range(9 if norm in ("dyt", "derf") else 0):
        name = f"alpha/{layer:02}_blocks.{layer // 2}.norm{layer % 2 + 1}"
        rows.append((step, name, alpha0 + at * (0.3 - 0.05 * layer) + rng.gauss(0, 0.01)))
lines = [f"{step},{tag},{value}" for step, tag, value in rows]
(run / "metrics.csv").write_text("\\n".join(["step,tag,value", *lines, ""]))
summary = {"test/acc": final, "test/loss": 1 - final, "val/acc": final, "seconds": 50 + rng.random()}
summary |= {"samples_per_second": 1200.0, "parameters": 450_000, "peak_memory_bytes": 600 * 2**20, "steps": 600}
summary |= {"versions": {"python": "3.11.4", "torch": "2.9"}, "git": {"commit": "0" * 40, "changed": False}}
(run / "summary.json").write_text(json.dumps(summary))
"""

EVALUATE = """
import json, pathlib, sys
given = dict(argument.split("=", 1) for argument in sys.argv[1:])
run = pathlib.Path(given["checkpoint"])
clean = json.loads((run / "summary.json").read_text())["test/acc"]
kinds = {kind: [clean - slope * s for s in range(1, 6)] for kind, slope in (("gaussian_noise", 0.06), ("blur", 0.02))}
content = {"metric": "test/acc", "mode": "max", "clean": clean, "strengths": [1, 2, 3, 4, 5], "kinds": kinds}
content["clean_by_kind"] = dict.fromkeys(kinds, clean)
(run / f"shift-{given['shift']}.json").write_text(json.dumps(content))
"""


def write_scripts(folder: Path) -> Path:
    """A folder with both, which `compare` takes as `scripts`.

    Under `save_every_n_steps` (a key that changes no number) 1 a run fails, and under 2 it waits to be interrupted.
    """
    folder.mkdir()
    (folder / "train.py").write_text(TRAIN, encoding="utf-8")
    (folder / "evaluate.py").write_text(EVALUATE, encoding="utf-8")
    return folder
