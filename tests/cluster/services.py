"""Programs that run on a scratch host until its tests are over, each with its log in a folder of the test's."""

from __future__ import annotations

import subprocess
from pathlib import Path

from support.scratch import Host


class Services:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: dict[str, subprocess.Popen[str]] = {}

    def start(self, name: str, host: Host, *words: str) -> None:
        log = self.path(f"{name}.log").open("a")
        self._running[name] = host.popen(*words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def path(self, name: str) -> Path:
        return self.folder / name

    def write(self, name: str, text: str) -> str:
        self.path(name).write_text(text)
        return str(self.path(name))

    def log(self, name: str) -> str:
        return self.path(f"{name}.log").read_text()

    def stop(self, name: str) -> None:
        process = self._running.pop(name)
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def stop_all(self) -> None:
        for name in reversed(list(self._running)):
            self.stop(name)
