"""Our version, and the reference plugins' version whose keys the drop-in names know."""

VERSION = "0.2.0"
REFERENCE = "1.9.0"
