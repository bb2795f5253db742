"""Coverage-guided fuzzing of `decode`: any bytes are an answer, or an error of the library.

::

    python tests/fuzz/fuzz_decode.py tests/fuzz/corpus -max_total_time=600 \
        -dict=tests/fuzz/words.dict -artifact_prefix=tests/fuzz/findings/

The options are libFuzzer's. A file that it leaves in ``findings`` is minimised with
``-minimize_crash=1`` and replayed by ``test_corpus.py`` from then on. Needs ``atheris``, which not
every platform has, and so nothing else imports it.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

__all__ = ["main"]


def main() -> None:
    """Fuzz until the options say that it is enough."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(
        include=[
            *(f"ci_live_audit.wire.{name}" for name in ("results", "refusals", "documents")),
            *(f"ci_live_audit.wire.{name}" for name in ("nodes", "scalars")),
            "xmltodict",
        ]
    ):
        check = importlib.import_module("fuzz.checking").check
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
