# SPDX-License-Identifier: Apache-2.0
"""The audit page: HTML for people, made on the server, in German and English (docs/operations/page.md).

What a page says is the service's own account. Proofs of the log, and the halves of signatures, are checked by the
visitor's browser (``static/proof.js``), as far as that can be asked of a script which the same service sends.
"""
