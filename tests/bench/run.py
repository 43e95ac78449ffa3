#!/usr/bin/env python3
"""Measures the plugin against a bare interpreter, against its peers and against itself on a large host.

    tests/bench/run.py [--full] [--rounds N] [--json FILE] [--chart FILE]

Needs root, nft and the system's Python; makes a scratch host and touches nothing outside of it. A figure that is not
reached does not fail the run, a call that fails does. Peers: Debian's containernetworking-plugins in /usr/lib/cni;
newer ones and netavark where NFTCNI_BENCH_CNI (a folder) and NFTCNI_BENCH_NETAVARK (an executable) say so.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from chart import draw  # noqa: E402
from report import machine, table  # noqa: E402
from support.scratch import CHECKOUT, Host  # noqa: E402


def install(folder: Path) -> None:
    """As it is on a host: the code's archive and the executable."""
    words = ["--prefix", str(folder), "--bin-dir", str(folder / "bin"), "--conflist", "none"]
    words += ["--drop-in", "--no-packages", "--no-units"]
    subprocess.run(["sh", str(CHECKOUT / "conf" / "install"), *words], check=True, stdout=subprocess.DEVNULL)
    shutil.copy(HERE / "fill.py", folder / "lib" / "nftcni" / "fill.py")  # beside `current`


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="more samples, and peers with more containers and ports")
    parser.add_argument("--rounds", type=int, default=0, help="samples of each thing (50, with --full 200)")
    parser.add_argument("--json", type=Path, help="write everything that was measured here")
    parser.add_argument("--chart", type=Path, help="write the charts here, as SVG")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="nftcni-bench-"))
    folder.chmod(0o755)
    host = Host()
    try:
        install(folder)
        words = [sys.executable, str(HERE / "worker.py"), "--install", str(folder)]
        words += ["--rounds", str(options.rounds or (200 if options.full else 50))]
        words += ["--full"] if options.full else []
        with host.popen(*words, env={"PYTHONDONTWRITEBYTECODE": "1"}) as worker:
            status = worker.wait()
        if status:
            sys.exit(status)
        results = json.loads((folder / "found.json").read_text())
    finally:
        host.close()
        shutil.rmtree(folder)
    results["machine"] = machine()
    print(table(results), flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + os.linesep)
    if options.chart:
        options.chart.write_text(draw(results["figures"]))


if __name__ == "__main__":
    main()
