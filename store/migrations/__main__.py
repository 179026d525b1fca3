"""Writes the next revision: the difference between the newest revision and store/schema/.

Reads both from a temporary SQLite log; writes one file under store/migrations/versions.
"""

import sys
import tempfile
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from store.database import open_log


def write_revision(message: str) -> Path:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    number = len(list(ScriptDirectory.from_config(config).walk_revisions())) + 1
    with tempfile.TemporaryDirectory() as folder:
        log = open_log(f"sqlite:///{folder}/log.db")
        with log.engine.connect() as connection:
            config.attributes["connection"] = connection
            script = command.revision(config, message, autogenerate=True, rev_id=f"{number:04d}")
        log.close()
    if script is None or isinstance(script, list):
        raise RuntimeError(f"Alembic wrote no single revision: {script!r}")
    return Path(script.path)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit('usage: python -m store.migrations "what changes"')
    print(write_revision(sys.argv[1]))
