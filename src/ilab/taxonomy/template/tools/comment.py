"""Writes one comment under a pull or merge request, or brings the one it wrote before up to date.

    python3 tools/comment.py github|gitlab FILE NUMBER

The token is taken from API_TOKEN; without one nothing is posted. NUMBER and the contents of FILE may come from a
stranger: on GitHub the number must be that of an open request whose head is HEAD_SHA.
"""

import json
import os
import sys
import urllib.request
from pathlib import Path
from typing import Any

MARK = "<!-- ilab review -->"
MOST = 65_000


def main() -> int:
    forge, file, number = sys.argv[1:4]
    if not os.environ.get("API_TOKEN"):
        print("no API_TOKEN: the comment stays in", file)
        return 0
    if not Path(file).is_file():
        print("there is no comment to post")
        return 0
    body = Path(file).read_text(encoding="utf-8", errors="replace")[:MOST]
    if not body.startswith(MARK) or not number.strip().isdecimal():
        print("this is no comment of the review", file=sys.stderr)
        return 1
    return (github if forge == "github" else gitlab)(int(number), body)


def github(number: int, body: str) -> int:
    api = f"{os.environ['GITHUB_API_URL']}/repos/{os.environ['GITHUB_REPOSITORY']}"
    pull = call("GET", f"{api}/pulls/{number}")
    if pull["head"]["sha"] != os.environ["HEAD_SHA"] or pull["state"] != "open":
        print(f"#{number} is not the request that was reviewed", file=sys.stderr)
        return 1
    for comment in call("GET", f"{api}/issues/{number}/comments?per_page=100"):
        if comment["user"]["type"] == "Bot" and comment["body"].startswith(MARK):
            call("PATCH", f"{api}/issues/comments/{comment['id']}", body)
            return 0
    call("POST", f"{api}/issues/{number}/comments", body)
    return 0


def gitlab(number: int, body: str) -> int:
    project = os.environ["CI_MERGE_REQUEST_PROJECT_ID"]
    notes = f"{os.environ['CI_API_V4_URL']}/projects/{project}/merge_requests/{number}/notes"
    for note in call("GET", f"{notes}?per_page=100"):
        if note["body"].startswith(MARK):
            call("PUT", f"{notes}/{note['id']}", body)
            return 0
    call("POST", notes, body)
    return 0


def call(method: str, url: str, body: str | None = None) -> Any:
    token = os.environ["API_TOKEN"]
    headers = {"Content-Type": "application/json"}
    if "GITHUB_API_URL" in os.environ:
        headers |= {"Authorization": f"Bearer {token}", "Accept": "application/vnd.github+json"}
    else:
        headers["PRIVATE-TOKEN"] = token
    data = json.dumps({"body": body}).encode() if body is not None else None
    request = urllib.request.Request(url, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


if __name__ == "__main__":
    sys.exit(main())
