# SPDX-License-Identifier: Apache-2.0
"""The routes of the API, by subject. Handlers translate between HTTP and the use cases and decide nothing."""
