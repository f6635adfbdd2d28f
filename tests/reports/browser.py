"""A headless Chromium, driven through its debugging port."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
SECONDS = 60.0
"""How long to wait for what a page does."""
TROUBLE = ("Runtime.exceptionThrown", "Log.entryAdded")


class Browser:
    """One tab of a browser.

    Args:
        folder: Where the browser keeps its profile.
    """

    def __init__(self, folder: Path):
        self.folder, self.trouble = folder, list[str]()
        self._loop, self._count = asyncio.new_event_loop(), 0

    def __enter__(self) -> Browser:
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
        profile = f"--user-data-dir={self.folder}"
        command = [str(CHROMIUM), *options, profile, "about:blank"]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._loop.run_until_complete(self._connect())
        for domain in ("Runtime", "Log", "Page"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.run_until_complete(self._session.close())
        self._process.terminate()
        self._process.wait()
        self._loop.close()

    async def _connect(self) -> None:
        port = self.folder / "DevToolsActivePort"
        end = time.monotonic() + SECONDS
        while not (port.is_file() and port.read_text().strip()):
            assert time.monotonic() < end, "the browser does not start"
            await asyncio.sleep(0.05)
        address = f"http://127.0.0.1:{port.read_text().split()[0]}/json"
        self._session = aiohttp.ClientSession()
        async with self._session.get(address) as answer:
            tabs = await answer.json(content_type=None)
        tab = next(tab for tab in tabs if tab["type"] == "page")
        self._socket = await self._session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol, and collect the trouble that is told meanwhile."""
        return self._loop.run_until_complete(self._call(method, params))

    async def _call(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self._count += 1
        await self._socket.send_json({"id": self._count, "method": method, "params": params})
        while True:
            message = json.loads((await self._socket.receive()).data)
            if message.get("method") in TROUBLE:
                self.trouble.append(json.dumps(message["params"])[:500])
            if message.get("id") == self._count:
                assert "error" not in message, message
                return message["result"]

    def run(self, script: str) -> Any:
        """Return the value of an expression on the page."""
        result = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, script: str) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + SECONDS
        while not self.run(script):
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.05)

    def open(self, page: Path, width: int = 1280, theme: str = "light") -> None:
        """Open a page in a window of a width, as a reader who prefers a theme."""
        self.call(
            "Page.navigate", url="about:blank"
        )  # of the page before, nothing is told any more
        self.trouble.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=False,
        )
        preference = {"name": "prefers-color-scheme", "value": theme}
        self.call("Emulation.setEmulatedMedia", features=[preference])
        self.call("Page.navigate", url=page.resolve().as_uri())
        self.wait(
            "document.readyState === 'complete' && !!document.querySelector('#trial-list tr')"
        )

    def press(self, key: str) -> None:
        """Press a key by its name, such as `Enter` or `ArrowDown`, and let it go."""
        codes = {
            "Enter": 13,
            "Escape": 27,
            "ArrowLeft": 37,
            "ArrowUp": 38,
            "ArrowRight": 39,
            "ArrowDown": 40,
        }
        sent = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
        text = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **sent, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **sent)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Press the mouse in one place and let go in another; a click where both are the same."""
        places = (("mousePressed", start), ("mouseMoved", end), ("mouseReleased", end))
        for kind, (x, y) in places:
            buttons = {"button": "left", "buttons": 1, "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **buttons)
