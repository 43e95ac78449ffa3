"""How the forms of configurations compare with the reference plugins, for the summary."""

FORMS: dict[str, list[int]] = {}  # kind: how many forms, in how many public places
REASONS: dict[str, str] = {}  # why one is not equal: its kind
