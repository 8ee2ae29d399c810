"""Webhooks: which addresses may be told of the end of a job, and how they are told."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import requests

from nonlocal_video.errors import UsageError

WEBHOOK_SECONDS = 10
"""Maximum seconds for a webhook to answer."""
_ADDRESS = re.compile(
    r"https?://(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>\d{1,5}))?(?:[/?][!-\[\]-~]*)?", re.IGNORECASE
)
"""The only form that is taken: readers of addresses differ about user names, backslashes, spaces and other letters, and
one could then allow another host than the one that is asked."""


def check_webhook(webhook: str, hosts: Collection[str]) -> None:
    """Check that an address is on an allowed host.

    Raises:
        UsageError: It is not, or not written plainly enough to be sure.
    """
    found = _ADDRESS.fullmatch(webhook)
    allowed = {host.lower() for host in hosts}
    if found is None or found["host"].lower().strip("[]") not in allowed or not 0 < int(found["port"] or 1) <= 65535:
        names = ", ".join(hosts) or "none"
        raise UsageError(
            f"webhook = {webhook!r} should be an http or https address, without user name, of a host that the server "
            f"allows (--allow-webhook HOST): {names}."
        )


def post_json(url: str, value: Any) -> None:
    """Post an object as JSON; a redirect is not followed, as it would lead to a host that nobody allowed.

    The body of the answer is not read: it could have no end.

    Raises:
        requests.RequestException: The host cannot be reached, or does not answer in time.
    """
    requests.post(url, json=value, timeout=WEBHOOK_SECONDS, allow_redirects=False, stream=True).close()
