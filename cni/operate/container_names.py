"""Containers' names as their runtimes know them: nerdctl's name store, podman's list, libcni's notes about pods.

It reads the files of whatever runtimes are there; a name that is not found is no error.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os

NERDCTL = "/var/lib/nerdctl/*/names/*/*"
PODMAN = ("/var/lib/containers/storage/*-containers/containers.json",)
LIBCNI = "/var/lib/cni/results/*"


def container_names() -> dict[str, str]:
    """The names by CNI_CONTAINERID."""
    found: dict[str, str] = {}
    for path in glob.glob(LIBCNI):
        found.update(_pod(path))
    for path in glob.glob(NERDCTL):
        with contextlib.suppress(OSError, UnicodeDecodeError), open(path, encoding="utf-8") as file:
            identity = file.read().strip()
            namespace = os.path.basename(os.path.dirname(path))
            found[f"{namespace}-{identity}"] = found[identity] = os.path.basename(path)
    for pattern in PODMAN:
        for path in glob.glob(pattern):
            with contextlib.suppress(OSError, ValueError, TypeError), open(path, encoding="utf-8") as file:
                for item in json.load(file):
                    if item.get("names"):
                        found[str(item["id"])] = str(item["names"][0])
    return found


def _pod(path: str) -> dict[str, str]:
    """K8S_POD_NAMESPACE/K8S_POD_NAME from libcni's cache (kind cniCacheV1)."""
    try:
        with open(path, encoding="utf-8") as file:
            entry = json.load(file)
        arguments = {str(key): str(value) for key, value in entry.get("cniArgs") or []}
        container = str(entry["containerId"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
    name = arguments.get("K8S_POD_NAME", "")
    namespace = arguments.get("K8S_POD_NAMESPACE", "")
    return {container: f"{namespace}/{name}".lstrip("/")} if name else {}
