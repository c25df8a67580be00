# SPDX-License-Identifier: Apache-2.0
"""The registry's use cases, without HTTP."""
