"""Calls the API for as long as it runs, with the function that docs/consumers.md shows."""

import time

from companies import companies  # type: ignore[import-not-found]  # made of the page by the rig

while True:
    companies()
    time.sleep(0.2)
