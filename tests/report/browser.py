"""A headless Chromium without a network: load a page from the disk, run a probe in it, hand back what it found."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
"""Software rendering, nothing of the browser's own traffic, and no name that could be resolved."""

_MARK = "m2unet-probe"
_LISTEN = """<script>window.refused = [];
document.addEventListener("securitypolicyviolation", (event) => window.refused.push(event.blockedURI));</script>"""


def find_chromium() -> str:
    """The browser; the test is skipped where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        found = shutil.which(name)
        if found:
            return found
    pytest.skip("no Chromium is installed, so pages cannot be opened (Debian: chromium)")


def probe(page: Path, script: str, profile: Path, size: tuple[int, int] = (700, 480)) -> dict[str, Any]:
    """Open a copy of a page beside it, run the body of an async function in it, and return the object it returns.

    Args:
        page: the page.
        script: JavaScript; ``wait(test)`` waits until ``test()`` is true. To what it returns are added ``refused``,
            what the page's own policy forbade, and ``requested``, what it asked a network for.
        profile: an empty folder for the browser.
        size: of the window.
    """
    run = f"""<script>(async () => {{
      const wait = async (test) => {{ while (!test()) await new Promise((go) => setTimeout(go, 25)); }};
      let found;
      try {{ found = await (async () => {{ {script} }})(); }} catch (error) {{ found = {{ error: String(error) }}; }}
      await new Promise((go) => setTimeout(go, 200));  // refusals are told a moment later
      found.refused = window.refused;
      const note = document.createElement("pre");
      note.id = "{_MARK}";
      note.textContent = JSON.stringify(found);
      document.body.append(note);
    }})()</script></body>"""
    copy = page.with_name(f"probe-{page.name}")
    text = page.read_text(encoding="utf-8").replace("<head>", "<head>" + _LISTEN).replace("</body>", run)
    copy.write_text(text, encoding="utf-8")
    command = [find_chromium(), *FLAGS, f"--window-size={size[0]},{size[1]}", f"--user-data-dir={profile}"]
    log = profile.with_name(f"{profile.name}-net.json")
    command += [f"--log-net-log={log}", "--virtual-time-budget=60000", "--dump-dom", copy.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    copy.unlink()
    found = re.search(rf'<pre id="{_MARK}">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, f"the page did not answer: {done.stderr[-600:]}"
    answer = json.loads(html.unescape(found[1]))
    assert "error" not in answer, answer
    answer["requested"] = requested(log)
    return answer


def printed_pages(page: Path, pdf: Path) -> int:
    """Print a page to PDF as a reader would, and count its sheets."""
    command = [find_chromium(), *FLAGS, f"--user-data-dir={pdf.with_suffix('')}", "--no-pdf-header-footer"]
    subprocess.run([*command, f"--print-to-pdf={pdf}", page.as_uri()], capture_output=True, timeout=280, check=False)
    return len(re.findall(rb"/Type\s*/Page\b", pdf.read_bytes()))


def requested(log: Path) -> list[str]:
    """What pages asked a network for, from Chromium's log of its network; the browser's own requests have no origin."""
    found = json.loads(log.read_text(encoding="utf-8"))
    start = found["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    jobs = [event["params"] for event in found["events"] if event["type"] == start and "url" in event.get("params", {})]
    return [job["url"] for job in jobs if job.get("initiator") != "not an origin"]
