"""The console: a page for people, its files from the package, nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

FILES = Path(__file__).parent / "console"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".md": "text/markdown"}
HEADERS = {
    # Titles and ids come from outside: whatever one of them holds, no browser runs it.
    "Content-Security-Policy": "default-src 'self'; img-src data:",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


class ConsoleApi:
    """`GET /console` and its files, read once at start."""

    def __init__(self) -> None:
        self.files = {
            path.relative_to(FILES).as_posix(): (path.read_bytes(), TYPES.get(path.suffix, "text/plain"))
            for path in FILES.rglob("*")
            if path.is_file()
        }

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/console", self.page)
        app.router.add_get("/console/{file:.+}", self.file)

    async def page(self, request: web.Request) -> web.Response:
        return self.respond("index.html")

    async def file(self, request: web.Request) -> web.Response:
        if (name := request.match_info["file"]) not in self.files:
            raise web.HTTPNotFound
        return self.respond(name)

    def respond(self, name: str) -> web.Response:
        content, kind = self.files[name]
        return web.Response(body=content, content_type=kind, charset="utf-8", headers=HEADERS)
