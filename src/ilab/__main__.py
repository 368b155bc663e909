"""``python -m ilab`` is ``ilab``."""

from ilab.cli.app import run

if __name__ == "__main__":
    run()
