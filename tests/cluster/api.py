"""As much of Kubernetes' API as kube-proxy asks for: fixed objects, listed and watched, over plain HTTP on the switch.

Whatever else is asked for is an empty list; what is posted (events) is taken and forgotten.
"""

from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from support.scratch import Host

Json = Any
NAMESPACED = ("services", "endpointslices")
KINDS = {"services": "Service", "endpointslices": "EndpointSlice", "nodes": "Node"}


class Api:
    """`objects` by the last part of their collection's path: services, endpointslices, nodes."""

    def __init__(self, place: Host, address: str, objects: dict[str, list[Json]]) -> None:
        self.url = f"http://{address}:8080"
        self._stopped = threading.Event()

        class Handler(Answers):
            known = objects
            stopped = self._stopped

        self._server = ThreadingHTTPServer((address, 8080), Handler, bind_and_activate=False)
        self._server.daemon_threads = True
        with place.entered():
            self._server.socket.close()
            self._server.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._server.server_bind()
        self._server.server_activate()
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    known: dict[str, list[Json]] = {}
    stopped = threading.Event()

    def log_message(self, *_: object) -> None:
        """Nothing: kube-proxy has a log of its own."""

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        query = dict(parse_qsl(address.query))
        if address.path == "/version":
            self._say({"major": "1", "minor": "37", "gitVersion": "v1.37.2"})
            return
        parts = address.path.strip("/").split("/")
        version = "/".join(parts[1:2] if parts[0] == "api" else parts[1:3])
        names = list(self.known)
        resource = next((part for part in parts if part in names), parts[-1])
        items = self.known.get(resource, [])
        wanted = query.get("fieldSelector", "").partition("metadata.name=")[2]
        if parts[-1] != resource:
            wanted = parts[-1]
        items = [self._typed(item, resource, version) for item in items if wanted in ("", item["metadata"]["name"])]
        if parts[-1] != resource:
            self._say(
                items[0] if items else {"kind": "Status", "status": "Failure", "code": 404}, 200 if items else 404
            )
        elif query.get("watch") in ("1", "true"):
            self._watch(resource, version, items if query.get("sendInitialEvents") == "true" else None)
        else:
            kind = f"{KINDS.get(resource, resource)}List"
            self._say({"kind": kind, "apiVersion": version, "metadata": {"resourceVersion": "1"}, "items": items})

    def do_POST(self) -> None:
        self._say(json.loads(self.rfile.read(int(self.headers["Content-Length"]))), 201)

    do_PATCH = do_PUT = do_POST

    def _typed(self, item: Json, resource: str, version: str) -> Json:
        metadata = {"uid": item["metadata"]["name"], "resourceVersion": "1", **item["metadata"]}
        if resource in NAMESPACED:
            metadata["namespace"] = "default"
        return {"kind": KINDS[resource], "apiVersion": version, **item, "metadata": metadata}

    def _say(self, document: Json, code: int = 200) -> None:
        body = json.dumps(document).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _watch(self, resource: str, version: str, items: list[Json] | None) -> None:
        """What there is, if that is asked for, and then silence until the end."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for item in items or ():
            self._event("ADDED", item)
        if items is not None:
            end = {"resourceVersion": "1", "annotations": {"k8s.io/initial-events-end": "true"}}
            self._event("BOOKMARK", {"kind": KINDS.get(resource, resource), "apiVersion": version, "metadata": end})
        self.stopped.wait()

    def _event(self, kind: str, item: Json) -> None:
        line = json.dumps({"type": kind, "object": item}).encode() + b"\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        self.wfile.flush()
