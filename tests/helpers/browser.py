"""A headless Chromium, driven by its own protocol: a page as people see it, with its errors and requests."""

import base64
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

__all__ = ["Page", "browser"]

NAMES = ("chromium", "chromium-browser", "google-chrome")


class Page:
    """One tab. `errors`: what the console and the page's scripts complained of; `requests`: whatever it asked for."""

    def __init__(self, socket: Any) -> None:
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._socket, self._number = socket, 0
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> Any:
        """A command of the protocol and its result; events that come meanwhile are kept."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            self._heard(message)
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]

    def _heard(self, message: dict[str, Any]) -> None:
        match message:
            case {"method": "Network.requestWillBeSent", "params": {"request": {"url": str(url)}}}:
                self.requests.append(url)
            case {"method": "Runtime.exceptionThrown" | "Log.entryAdded", "params": dict(what)}:
                self.errors.append(json.dumps(what)[:500])
            case {"method": "Runtime.consoleAPICalled", "params": {"type": "error" | "warning" | "assert"}}:
                self.errors.append(json.dumps(message)[:500])

    def open(self, file: Path, width: int, *, dark: bool = False) -> None:
        """Load a file at a width in pixels; errors and requests begin anew."""
        self.errors, self.requests = [], []
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.ask("Emulation.setEmulatedMedia", media="", features=scheme)
        self.ask("Page.navigate", url=file.resolve().as_uri())
        for _ in range(200):
            if self.value("document.readyState") == "complete":
                break
            time.sleep(0.05)
        time.sleep(0.2)
        self.value("1")

    def value(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        result = self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """One key, as from a keyboard."""
        own = {"key": key, "code": key, "windowsVirtualKeyCode": code, "text": "\r" if key == "Enter" else ""}
        for kind in ("keyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, **own)

    def picture(self, file: Path, *, top: int = 0, height: int | None = None) -> None:
        """A PNG of the page, or of a strip of it."""
        width, whole = self.value("innerWidth"), self.value("document.documentElement.scrollHeight")
        clip = {"x": 0, "y": top, "width": width, "height": height or whole, "scale": 1}
        data = self.ask("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
        file.write_bytes(base64.b64decode(data))


@contextmanager
def browser() -> Iterator[Page]:
    """A page of a browser; the test is skipped where there is none, or no client of its protocol."""
    websocket = pytest.importorskip("websocket")
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("no Chromium is installed")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        own = ["--remote-debugging-port=0", f"--user-data-dir={folder}", "--remote-allow-origins=*", "about:blank"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen([program, *options, *own], **quiet)
        try:
            socket = websocket.create_connection(_address(Path(folder)), timeout=60)
            try:
                yield Page(socket)
            finally:
                socket.close()
        finally:
            process.terminate()
            process.wait(20)


def _address(folder: Path) -> str:
    """Of the first tab: the browser writes its port into its folder once it listens."""
    import urllib.request

    port = folder / "DevToolsActivePort"
    for _ in range(400):
        if port.exists() and len(port.read_text().split()) == 2:
            break
        time.sleep(0.05)
    number = port.read_text().split()[0]
    with urllib.request.urlopen(f"http://127.0.0.1:{number}/json/list", timeout=20) as answer:
        tabs = json.loads(answer.read())
    return next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
