"""A headless Chromium, driven by its own protocol over a WebSocket: as much of both as the page's tests need."""

import base64
import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """One page of one browser, with a profile of its own."""

    def __init__(self, width: int = 900, height: int = 700, dark: bool = False):
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--remote-debugging-port=0"]
        flags += ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
        where = [f"--user-data-dir={self._folder.name}", f"--window-size={width},{height}", "about:blank"]
        assert CHROMIUM is not None
        self._process = subprocess.Popen([CHROMIUM, *flags, *where], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        port_file, until = Path(self._folder.name) / "DevToolsActivePort", time.monotonic() + 30
        while not port_file.is_file() or len(port_file.read_text().split()) < 2:
            assert time.monotonic() < until
            time.sleep(0.05)
        port, path = port_file.read_text().split()
        self._socket = _open(int(port), path)
        self._number, self._session = 0, None
        self.log: list[dict] = []
        """Errors that the page raised, or that the browser noted."""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        if dark:
            self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])

    def open(self, url: str) -> None:
        self._call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str):
        """The value of a JavaScript expression."""
        found = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, condition: str, seconds: float = 30.0) -> None:
        end = time.monotonic() + seconds
        while not self.run(condition):
            assert time.monotonic() < end, condition
            time.sleep(0.05)

    def type(self, text: str) -> None:
        self._call("Input.insertText", text=text)

    def press(self, key: str, **more) -> None:
        for kind in ("rawKeyDown", "keyUp"):
            self._call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode={"Enter": 13, "Escape": 27}.get(key, 0),
                **more,
            )

    def picture(self, path: str | Path) -> None:
        Path(path).write_bytes(base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        self._socket.close()
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()

    def _call(self, method: str, **params):
        self._number += 1
        session = {"sessionId": self._session} if self._session else {}
        _send(self._socket, json.dumps({"id": self._number, "method": method, "params": params} | session))
        while True:
            message = json.loads(_receive(self._socket))
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]
            if message.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.log.append(message["params"])


def _open(port: int, path: str) -> socket.socket:
    found = socket.create_connection(("127.0.0.1", port), timeout=60)
    key = base64.b64encode(os.urandom(16)).decode()
    head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    found.sendall(f"{head}Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += found.recv(1)
    assert b" 101 " in answer
    return found


def _send(to: socket.socket, text: str) -> None:
    raw, mask = text.encode(), os.urandom(4)
    size = (
        bytes([0x80 | len(raw)])
        if len(raw) < 126
        else b"\xfe" + struct.pack(">H", len(raw))
        if len(raw) < 1 << 16
        else b"\xff" + struct.pack(">Q", len(raw))
    )
    to.sendall(b"\x81" + size + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(raw)))


def _receive(of: socket.socket) -> str:
    def exactly(count: int) -> bytes:
        found = b""
        while len(found) < count:
            found += of.recv(count - len(found)) or b""
        return found

    whole, last = b"", False
    while not last:
        first, size = exactly(2)
        last = bool(first & 0x80)
        if size == 126:
            (size,) = struct.unpack(">H", exactly(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", exactly(8))
        whole += exactly(size)
    return whole.decode()
