"""`python -m tfloader`: the `tfloader` command."""

from __future__ import annotations

from tfloader.cli import main

raise SystemExit(main())
