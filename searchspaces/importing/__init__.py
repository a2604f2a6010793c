"""Reading published benchmark tables in the formats in which their authors give them out."""

from searchspaces.importing.source import Source, content_digest

__all__ = ["Source", "content_digest"]
