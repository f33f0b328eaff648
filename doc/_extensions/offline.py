"""A build fails where a page would load something from the network: scripts, style sheets, fonts, pictures."""

import re
from pathlib import Path

from sphinx.errors import ExtensionError

# An address that a browser loads by itself, in HTML and in style sheets. Links that a reader follows are none.
_LOADED = [
    re.compile(r"""<(?:script|img|iframe|source|video|audio|embed)\b[^>]*?\ssrc(?:set)?=["'](?:https?:)?//[^"']*"""),
    re.compile(r"""<link\b(?=[^>]*?\srel=["'](?:stylesheet|preload|icon)["'])[^>]*?\shref=["'](?:https?:)?//[^"']*"""),
    re.compile(r"""(?:url\(|@import\s)\s*["']?(?:https?:)?//[^"')]*"""),
]


def require_offline(app, exception):
    if exception is not None or app.builder.format != "html":
        return
    found = []
    for path in sorted(Path(app.outdir).rglob("*")):
        if path.suffix in {".html", ".css"}:
            text = path.read_text(encoding="utf-8")
            found += [
                f"{path.relative_to(app.outdir)}: {match}" for loaded in _LOADED for match in loaded.findall(text)
            ]
    if found:
        raise ExtensionError("Pages would load from the network:\n" + "\n".join(found))


def setup(app):
    app.connect("build-finished", require_offline)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
