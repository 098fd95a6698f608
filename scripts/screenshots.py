"""The pictures behind scripts/screenshots: starts the demo, logs in as a person would, takes every page, writes small PNGs."""

from __future__ import annotations

import argparse
import base64
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import redis
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
SHOWN = ROOT / "docs" / "dashboard"
WIDTH, HEIGHT = 1280, 780
MOST_BYTES = 1_500_000
#: file -> address, height. A name in braces is filled in by what is found on a page.
PAGES: dict[str, tuple[str, int]] = {
    "queues": ("/queues", 560),
    "topic": ("/topics/payouts/bank?back=300", 1250),
    "edit": ("/queues/invoices/edit", 1150),
    "import": ("/queues/files", 620),
    "jobs": ("/topics/payouts/bank/jobs?state=dead", 620),
    "job": ("{job}", 1000),
    "search": ("/search?q=order%3D100", 620),
    "errors": ("/errors", 640),
    "alarms": ("/alarms", 900),
    "replays": ("/replays", 480),
    "schedules": ("/schedules", 480),
    "console": ("/console?topic=payouts/bank&job={id}", 800),
    "storage": ("/storage", 560),
    "consumers": ("/consumers", 620),
    "nodes": ("/nodes", 700),
    "users": ("/users", 620),
    "audit": ("/audit", 820),
    "me": ("/me", 900),
}
#: The 255 commonest colours of the picture, a small green dot before many greys; every other takes the nearest of them.
_TO_PALETTE = """async (data) => {
  const image = await createImageBitmap(await (await fetch('data:image/png;base64,' + data)).blob());
  const canvas = new OffscreenCanvas(image.width, image.height), context = canvas.getContext('2d');
  context.drawImage(image, 0, 0);
  const pixels = new Uint32Array(context.getImageData(0, 0, image.width, image.height).data.buffer);
  const counts = new Map();
  for (const one of pixels) counts.set(one, (counts.get(one) || 0) + 1);
  const bytes = (colour) => [colour & 255, colour >> 8 & 255, colour >> 16 & 255];
  const worth = ([colour, n]) => n * (8 + Math.max(...bytes(colour)) - Math.min(...bytes(colour)));
  const palette = [...counts].sort((a, b) => worth(b) - worth(a)).slice(0, 255).map(([colour]) => colour);
  const known = new Map(palette.map((colour, i) => [colour, i]));
  const near = (colour) => {
    let best = 0, least = Infinity;
    palette.forEach((other, i) => {
      const r = (colour & 255) - (other & 255), g = (colour >> 8 & 255) - (other >> 8 & 255);
      const b = (colour >> 16 & 255) - (other >> 16 & 255), far = 2 * r * r + 4 * g * g + 3 * b * b;
      if (far < least) { least = far; best = i; }
    });
    known.set(colour, best);
    return best;
  };
  const found = new Uint8Array(pixels.length);
  pixels.forEach((colour, i) => { const at = known.get(colour); found[i] = at === undefined ? near(colour) : at; });
  let text = '';
  for (let i = 0; i < found.length; i += 32768) text += String.fromCharCode(...found.subarray(i, i + 32768));
  return [image.width, image.height, palette, btoa(text)];
}"""


def small_png(page: Any, picture: bytes) -> bytes:
    """The picture with a palette: a third of what a browser writes."""
    width, height, palette, data = page.evaluate(_TO_PALETTE, base64.b64encode(picture).decode())
    pixels = base64.b64decode(data)
    rows = b"".join(b"\0" + pixels[y * width : (y + 1) * width] for y in range(height))
    colours = b"".join(struct.pack("<I", colour)[:3] for colour in palette)
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", colours),
        (b"IDAT", zlib.compress(rows, 9)),
        (b"IEND", b""),
    ]
    packed = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


class Camera:
    """A browser at the demo's pages."""

    def __init__(self, browser: Any, base: str, password: str) -> None:
        self.browser, self.base = browser, base
        self.blank = browser.new_page()
        page = browser.new_context().new_page()
        page.goto(f"{base}/login")
        page.fill("[name=name]", "demo")
        page.fill("[name=password]", password)
        page.click("button.btn-primary")
        page.wait_for_url(f"{base}/")
        self.state = page.context.storage_state()

    def page(
        self, path: str, height: int = HEIGHT, theme: str = "light", language: str = "en", width: int = WIDTH
    ) -> Any:
        context = self.browser.new_context(viewport={"width": width, "height": height}, storage_state=self.state)
        for name, value in (("theme", theme), ("language", language)):
            context.add_cookies([{"name": f"pepperbus_{name}", "value": value, "url": self.base}])
        page = context.new_page()
        page.goto(self.base + path)
        return page

    def take(self, name: str, path: str, height: int = HEIGHT, **look: Any) -> None:
        page = self.page(path, height, **look)
        page.wait_for_timeout(2500)  # a turn of the live stream, the charts
        (SHOWN / f"{name}.png").write_bytes(small_png(self.blank, page.screenshot()))
        page.context.close()

    def replay(self) -> None:
        """A few dead jobs of payouts again, so that the page of replays has one that waits for a decision."""
        page = self.page("/topics/payouts/bank")
        page.click("[hx-post$='/ask/replay'] >> nth=0")
        page.fill("#gray", "2")
        page.click("#dialog button.go")
        page.wait_for_timeout(1500)
        page.context.close()

    def dead_job(self) -> str:
        page = self.page("/topics/payouts/bank/jobs?state=dead")
        found = page.get_attribute("tbody a.mono", "href")
        page.context.close()
        return str(found)


def start_demo(directory: str) -> tuple[subprocess.Popen[str], str, str, int]:
    """The demo's process, its page's address, the password it made, the gateway's port."""
    demo = subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "demo.py")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PEPPERBUS_DEMO_DIR": directory},
    )
    said = ""
    assert demo.stdout is not None
    for line in demo.stdout:
        said += line
        if line.startswith("kill -9"):
            break
    base, password = re.search(r"open (http://\S+)/", said), re.search(r"password ([\w-]+)\)", said)
    port = re.search(r"redis-cli -p (\d+)", said)
    if not (base and password and port):
        raise SystemExit(f"the demo did not come up:\n{said}")
    return demo, base[1], password[1], int(port[1])


def load(port: int, ended: threading.Event) -> None:
    """Orders, a few hundred a second."""
    client = redis.Redis(port=port, username="orders", password="demo")
    n = 20_001
    while not ended.wait(0.1):
        client.lpush("orders", *('{"order": %d, "item": "pepper"}' % (n + i) for i in range(30)))
        n += 30


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/screenshots")
    parser.add_argument(
        "--warm", type=float, default=60.0, help="seconds before the first picture: curves need a past (60)"
    )
    parser.add_argument("--only", default="", help="these pictures, with commas between; all of them without")
    given = parser.parse_args()
    directory = tempfile.mkdtemp(prefix="pepperbus-screenshots-")
    demo, base, password, port = start_demo(directory)
    try:
        with sync_playwright() as playwright:
            program = shutil.which("chromium") or shutil.which("google-chrome")
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
            camera = Camera(browser, base, password)
            time.sleep(given.warm)
            shoot(camera, port, set(filter(None, given.only.split(","))))
            browser.close()
    finally:
        demo.terminate()
        demo.wait(30)
        shutil.rmtree(directory, ignore_errors=True)
    size = sum(file.stat().st_size for file in SHOWN.glob("*.png"))
    print(f"{len(list(SHOWN.glob('*.png')))} pictures in {SHOWN}, {size / 1000:.0f} kB")
    if size > MOST_BYTES:
        raise SystemExit(f"more than {MOST_BYTES / 1000:.0f} kB: too much for a repository")


def shoot(camera: Camera, port: int, only: set[str]) -> None:
    SHOWN.mkdir(exist_ok=True)
    camera.replay()
    job = camera.dead_job()
    wanted = {name: page for name, page in PAGES.items() if not only or name in only}
    for name, (path, height) in wanted.items():
        camera.take(name, path.format(job=job, id=job.rpartition("/")[2]), height)
    if only and "overview" not in only:
        return
    ended = threading.Event()
    pusher = threading.Thread(target=load, args=(port, ended))
    pusher.start()
    try:
        time.sleep(15)
        camera.take("overview", "/")
        camera.take("overview-dark", "/", theme="dark")
        camera.take("overview-zh", "/", language="zh")
        camera.take("phone", "/queues", 844, theme="dark", language="zh", width=390)
    finally:
        ended.set()
        pusher.join()


if __name__ == "__main__":
    main()
