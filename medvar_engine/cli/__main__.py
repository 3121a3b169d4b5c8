"""``python -m medvar_engine.cli``: the same as ``medvar``."""

from medvar_engine.cli.main import main

main()
