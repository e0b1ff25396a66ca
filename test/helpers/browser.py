# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium that a page is opened in, where there is one."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FLAGS = (
    *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "window-size=1400,1000"),
    *("disable-background-networking", "disable-component-update", "disable-sync", "disable-dev-shm-usage"),
)


@contextmanager
def chromium(profile: Path) -> Iterator[Any]:
    """A driver with a fresh profile; LookupError, with the reason, where Chromium, its driver or selenium is not."""
    try:
        from selenium import webdriver
    except ModuleNotFoundError as error:
        raise LookupError("selenium is not installed") from error
    found = [shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")]
    if None in found:
        raise LookupError("no Chromium with its driver here (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    for flag in (*FLAGS, f"user-data-dir={profile}"):
        options.add_argument(f"--{flag}")
    options.binary_location = found[0]
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(found[1]))
    try:
        yield driver
    finally:
        driver.quit()


def open_page(driver: Any, path: Path, fragment: str = "") -> int:
    """Open a report and wait until its figures are drawn; how many there are."""
    driver.get("about:blank")
    driver.get(path.resolve().as_uri() + fragment)
    for _ in range(2400):
        drawn = driver.execute_script("return document.body.dataset.drawn")
        if drawn is not None:
            return int(drawn)
        time.sleep(0.1)
    raise TimeoutError(f"{path} was not drawn within four minutes: {driver.get_log('browser')}")
