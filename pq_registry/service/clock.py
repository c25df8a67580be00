# SPDX-License-Identifier: Apache-2.0
"""The clock as an argument: use cases never read the real one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

Clock = Callable[[], datetime]
"""Answers the present instant, aware and in whole seconds (``format.instant.utc_now``)."""
