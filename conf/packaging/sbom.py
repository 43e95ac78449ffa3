"""The bill of materials of a release, as SPDX 2.3: our files with their checksums, and what a host needs beside them.

python3 -IB conf/packaging/sbom.py VERSION      # in a checkout; needs git and SOURCE_DATE_EPOCH
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

NEEDED = {"python3": "PSF-2.0", "nftables": "GPL-2.0-only", "python3-nftables": "GPL-2.0-only"}
WANTED = {"python3-pyroute2": "GPL-2.0-or-later OR Apache-2.0"}


def document(version: str) -> dict[str, Any]:
    listed = subprocess.run(["git", "ls-files", "-z", "cni", "nft", "conf"], stdout=subprocess.PIPE, check=True)
    paths = sorted(listed.stdout.decode().split("\0")[:-1])
    sums = {
        path: {name: hashlib.new(name, Path(path).read_bytes()).hexdigest() for name in ("sha1", "sha256")}
        for path in paths
    }
    made = datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), timezone.utc)
    code = hashlib.sha1("".join(sorted(entry["sha1"] for entry in sums.values())).encode()).hexdigest()
    packages = [package("nftcni", "Apache-2.0", version, filesAnalyzed=True)]
    packages[0]["packageVerificationCode"] = {"packageVerificationCodeValue": code}
    packages[0]["hasFiles"] = [f"SPDXRef-file-{number}" for number in range(len(paths))]
    packages += [package(name, license) for name, license in {**NEEDED, **WANTED}.items()]
    related = [("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-nftcni")]
    related += [("SPDXRef-nftcni", "DEPENDS_ON", f"SPDXRef-{name}") for name in NEEDED]
    related += [(f"SPDXRef-{name}", "OPTIONAL_DEPENDENCY_OF", "SPDXRef-nftcni") for name in WANTED]
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"nftcni-{version}",
        "documentNamespace": f"https://spdx.org/spdxdocs/nftcni-{version}-{code}",
        "creationInfo": {"created": made.strftime("%Y-%m-%dT%H:%M:%SZ"), "creators": ["Tool: conf/packaging/sbom.py"]},
        "packages": packages,
        "files": [
            {
                "SPDXID": f"SPDXRef-file-{number}",
                "fileName": f"./{path}",
                "checksums": [{"algorithm": name.upper(), "checksumValue": sums[path][name]} for name in sums[path]],
                "licenseConcluded": "Apache-2.0",
                "copyrightText": "NOASSERTION",
            }
            for number, path in enumerate(paths)
        ],
        "relationships": [
            {"spdxElementId": subject, "relationshipType": relation, "relatedSpdxElement": other}
            for subject, relation, other in related
        ],
    }


def package(name: str, license: str, version: str = "", **more: Any) -> dict[str, Any]:
    known = {"versionInfo": version} if version else {}
    return {
        **{"SPDXID": f"SPDXRef-{name}", "name": name, "downloadLocation": "NOASSERTION", "filesAnalyzed": False},
        **{"licenseConcluded": license, "licenseDeclared": license, "copyrightText": "NOASSERTION"},
        **known,
        **more,
    }


if __name__ == "__main__":
    json.dump(document(sys.argv[1]), sys.stdout, indent=1)
