"""`python -m aya_jax` is `aya`."""

import sys

from aya_jax.cli import main

sys.exit(main())
