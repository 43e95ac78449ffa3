"""The versions of the CNI specification that we speak, and the answer to VERSION. Loaded at every start."""

from __future__ import annotations

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
NEWEST = VERSIONS[-1]
IMPLIED = "0.1.0"  # what libcni assumes for a configuration without one (pkg/version/conf.go)
SINCE = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}


def version_document(version: str) -> dict[str, object]:
    return {"cniVersion": version, "supportedVersions": list(VERSIONS)}
