# SPDX-License-Identifier: Apache-2.0
"""The verifying gateway of a node: the Hub's protocol on loopback, with bytes that were verified before they are sent.

The only package that may know both the client's side and the service's.
"""
