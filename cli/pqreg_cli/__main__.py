# SPDX-License-Identifier: Apache-2.0
"""``python -m pqreg_cli`` is the ``pqreg`` command."""

from pqreg_cli.entry import main

if __name__ == "__main__":
    main()
