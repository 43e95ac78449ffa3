"""etcd on the LAN's switch, asked by its JSON gateway (api/v3 of etcd's documentation), so that no client is needed."""

from __future__ import annotations

import http.client
import json
from base64 import b64decode, b64encode
from typing import Any

import programs
from lan import Lan, wait_for
from services import Services

ADDRESS = "192.0.2.1"
URL = f"http://{ADDRESS}:2379"


class Etcd:
    def __init__(self, lan: Lan, services: Services) -> None:
        self.lan = lan
        lan.switch.run("ip", "address", "add", f"{ADDRESS}/24", "dev", "br0")
        lan.switch.run("ip", "address", "add", "2001:db8::1/64", "dev", "br0", "nodad")
        words = ("--data-dir", str(services.path("etcd")), "--listen-client-urls", URL, "--advertise-client-urls", URL)
        peers = ("--listen-peer-urls", "http://127.0.0.1:2380", "--unsafe-no-fsync")
        services.start("etcd", lan.switch, str(programs.BIN / "etcd"), *words, *peers)
        wait_for(self._answers, "etcd")

    def put(self, key: str, value: Any) -> None:
        self._ask("put", {"key": key, "value": json.dumps(value)})

    def keys(self, prefix: str) -> list[str]:
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        found = self._ask("range", {"key": prefix, "range_end": end}).get("kvs", [])
        return [b64decode(item["key"]).decode() for item in found]

    def delete(self, key: str) -> None:
        self._ask("deleterange", {"key": key})

    def _answers(self) -> bool:
        try:
            self._ask("range", {"key": "x"})
        except OSError:
            return False
        return True

    def _ask(self, what: str, document: dict[str, str]) -> Any:
        packed = {name: b64encode(text.encode()).decode() for name, text in document.items()}
        with self.lan.switch.entered():
            connection = http.client.HTTPConnection(ADDRESS, 2379, timeout=10)
            connection.connect()
        connection.request("POST", f"/v3/kv/{what}", json.dumps(packed), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        body = json.loads(answer.read())
        connection.close()
        assert answer.status == 200, body
        return body
