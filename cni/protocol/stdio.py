"""Reads all of stdin, and writes the one document to stdout. `request` and `spec` know what they mean."""

from __future__ import annotations

import posix

STDIN_LIMIT = 8 << 20  # bytes; 1000 port mappings are 0.1 MiB


def read_stdin() -> bytes:
    """All of stdin. Raises CniError 5 and 6."""
    try:
        chunks: list[bytes] = []
        size = 0
        while True:
            chunk = posix.read(0, 1 << 16)
            if not chunk:
                return b"".join(chunks)
            size += len(chunk)
            if size > STDIN_LIMIT:
                from cni.protocol.errors import DECODING_FAILURE, CniError

                raise CniError(DECODING_FAILURE, f"stdin holds more than {STDIN_LIMIT >> 20} MiB")
            chunks.append(chunk)
    except OSError as error:
        from cni.protocol.errors import kernel_refused

        raise kernel_refused("reading the configuration from stdin", error) from None


def write_document(text: str) -> int:
    """Writes to stdout. Returns the exit status: 1 if nobody could read it, as silence must not look like success."""
    data = (text + "\n").encode()
    try:
        while data:
            data = data[posix.write(1, data) :]
    except OSError as error:
        from cni.protocol.log import say

        say(f"the answer could not be written to stdout: {error}")
        return 1
    return 0
