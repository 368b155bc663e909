"""Pods that share nothing, as kfp runs them on this machine: each task finds an empty volume and an empty home."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

TAXONOMY = Path(__file__).resolve().parents[2] / "examples" / "quickstart" / "taxonomy"
# Into a program that runs a pipeline; its names `own` and `root` are the volume, and the folder with the home.
ALONE = """
import shutil
from kfp.local import subprocess_task_handler as handler
begin = handler.run_local_subprocess
def alone(*given, **named):
    for folder in (own, root + "/home"):
        shutil.rmtree(folder, ignore_errors=True)
    return begin(*given, **named)
handler.run_local_subprocess = alone
"""


def elsewhere(folder: Path, bucket: Any) -> dict[str, str]:
    """Parameters with a small base model in the bucket and the quickstart's taxonomy in a git repository."""
    from ilab.training.tiny import TinySpec, make_tiny

    make_tiny(folder / "base", TinySpec(width=32, heads=2, feed_forward=64, vocabulary=400))
    for file in (folder / "base").iterdir():
        bucket.upload_file(str(file), f"models/base/{file.name}")
    return {"sdg_base_model": "s3://runs/models/base", "sdg_repo_url": f"file://{repository(folder / 'tree')}"}


def repository(folder: Path) -> Path:
    """The quickstart's taxonomy, committed."""
    shutil.copytree(TAXONOMY, folder)
    identity = ("-c", "user.name=A Person", "-c", "user.email=person@example.org", "-c", "init.defaultBranch=main")
    for words in (("init", "--quiet"), ("add", "--all"), ("commit", "--quiet", "-m", "merged")):
        subprocess.run(["git", "-C", str(folder), *identity, *words], check=True)
    return folder
