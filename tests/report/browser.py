"""A real headless Chromium: opens a page in frames of given widths and reports what it finds."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")

# A window cannot be made as narrow as a phone, a frame can; media queries follow the frame.
HARNESS = """<!doctype html><meta name="color-scheme" content="light dark"><title>harness</title>
<iframe id="page" src="{page}" width="{width}" height="900" style="border:0"></iframe>
<script>
document.getElementById("page").addEventListener("load", (event) => {{
  const page = event.target.contentDocument;
  const column = (table, index) =>
    [...table.tBodies[0].rows].map((row) => row.cells[index].textContent);
  const sorted = [];
  const table = page.querySelector("section[aria-labelledby^=ablation] table");
  const heads = [...table.querySelectorAll("tr.heads th")];
  for (const index of {columns}) {{
    heads[index].querySelector("button").click();
    sorted.push(column(table, index));
    heads[index].querySelector("button").click();
    sorted.push(column(table, index));
  }}
  const choice = page.getElementById("by-method");
  const methods = [...choice.options].map((option) => option.textContent);
  choice.value = "dense";
  choice.dispatchEvent(new Event("change"));
  const dense = [...table.tBodies[0].rows].filter((row) => row.offsetParent !== null);
  choice.value = "";
  choice.dispatchEvent(new Event("change"));
  const link = table.querySelector("a");
  const trial = page.getElementById(link.hash.slice(1));
  event.target.contentWindow.location.hash = link.hash;
  setTimeout(() => {{
  const unfolded = trial.open;
  page.querySelectorAll("details").forEach((part) => {{ part.open = true; }});
  const wide = [...page.body.querySelectorAll("*")].filter((element) =>
    !element.closest(".scroll") && !element.closest("svg") && !element.closest("pre") &&
    element.getBoundingClientRect().right > {width} + 1).map((element) => element.outerHTML);
  const found = {{
    methods,
    dense: dense.map((row) => row.cells[0].textContent),
    unfolded,
    paper: getComputedStyle(page.body).backgroundColor,
    width: page.documentElement.scrollWidth,
    wide,
    pictures: [...page.querySelectorAll("figure svg")].map((picture) =>
      picture.getBoundingClientRect().width),
    sorted,
    pressed: heads.map((head) => head.getAttribute("aria-sort")),
    unnamed: page.querySelectorAll("[role=group]:not([aria-label])").length,
    unreached: [...page.querySelectorAll(".scroll")].filter((element) => {{
      element.focus();
      return page.activeElement !== element;
    }}).length,
    heading: page.querySelector("h1").textContent,
  }};
  const result = document.createElement("pre");
  result.id = "result";
  result.textContent = JSON.stringify(found);
  document.body.append(result);
  }}, 300);
}});
</script>
"""


def browser() -> str | None:
    """Return the path of a Chromium, if this machine has one."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


def run_chromium(*options: str) -> subprocess.CompletedProcess[str]:
    command = [str(browser()), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
               "--allow-file-access-from-files", "--enable-logging=stderr", *options]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def opened(
    page: Path, width: int, columns: list[int], dark: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """Open `page` at a width, sort and filter a table; return what was found, and the console.

    Args:
        page: an HTML file.
        width: of the frame, in CSS pixels.
        columns: indices of columns of its first ablation's first table, sorted up, then down.
        dark: whether the system's colours are dark.
    """
    harness = page.with_name(f"harness-{width}.html")
    harness.write_text(
        HARNESS.format(page=page.name, width=width, columns=json.dumps(columns)), encoding="utf-8"
    )
    options = (f"--window-size={width + 40},1000", "--virtual-time-budget=10000", "--dump-dom",
               f"--blink-settings=preferredColorScheme={0 if dark else 1}")  # fmt: skip
    done = run_chromium(*options, harness.as_uri())
    text = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.DOTALL)
    assert text is not None, done.stderr
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(unescape(text.group(1))), console
