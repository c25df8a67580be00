# SPDX-License-Identifier: Apache-2.0
"""Replication: from one registry to another, everything verified by the trust file before it is sent.

``run`` goes through a source; ``deliver`` gives the destination what it lacks; ``report`` says what became of what;
``fromdisk`` delivers the release of a bundle. Neither registry is trusted: the source supplies bytes, the destination
checks them again by its own rules, and what is believed is in the trust file of whoever runs this.
"""
