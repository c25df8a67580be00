# SPDX-License-Identifier: Apache-2.0
"""Where bytes and facts about them are kept: blob stores and the catalogue."""
