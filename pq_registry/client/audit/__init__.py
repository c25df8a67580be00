# SPDX-License-Identifier: Apache-2.0
"""The auditor: every leaf of a log held against a trust file, and what is found kept, reported and exported.

``audit.run`` does one audit: it follows the log (``log.monitor``), fetches the statement of every new leaf, judges it
(``audit.judging``, pure), records what it says (``audit.index``) and compares it with what came before and after
(``audit.chains``). ``audit.report`` says per namespace who signed what, when, with which keys, and what was found.
``audit.follow`` repeats that; ``audit.export`` and ``audit.check`` write and verify evidence bundles.

An audit never stops at the first thing that is wrong: findings are collected. Only a log that contradicts itself, or
a registry that cannot be asked, ends it.
"""
