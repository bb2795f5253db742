"""Coverage-guided fuzzing of `decode`: any bytes are a result or an error of the library.

::

    python tests/fuzz/fuzz_decode.py tests/fuzz/corpus -max_total_time=600 \
        -dict=tests/fuzz/words.dict -artifact_prefix=tests/fuzz/findings/

The options are libFuzzer's. Minimise a file that it leaves in ``findings`` with
``-minimize_crash=1``; ``test_corpus.py`` replays it from then on. Needs ``atheris``, which is not
available on every platform, so nothing else imports this module.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

__all__ = ["main"]


def main() -> None:
    """Fuzz until a limit of the options is reached."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(
        include=[
            *(f"ci_live_audit.wire.{name}" for name in ("results", "refusals", "documents")),
            *(f"ci_live_audit.wire.{name}" for name in ("nodes", "repair", "scalars")),
            "xmltodict",
        ]
    ):
        check = importlib.import_module("fuzz.checking").check
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
