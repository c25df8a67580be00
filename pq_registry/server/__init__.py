# SPDX-License-Identifier: Apache-2.0
"""The registry service over HTTP."""
