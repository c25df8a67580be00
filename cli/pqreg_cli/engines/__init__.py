# SPDX-License-Identifier: Apache-2.0
"""Real servers for trying a registry at full size on one machine: SeaweedFS as object store, PostgreSQL as database.

They listen on loopback, with credentials drawn here, keep what they hold below a directory, send no telemetry, and end
with the process that started them. They are for development and tests; nothing of a registry in service starts them.
"""
