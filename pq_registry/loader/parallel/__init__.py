# SPDX-License-Identifier: Apache-2.0
"""Several processes load one model: each gets its part of it, or all of it while it reads only a share.

``plan`` says what of each tensor a rank gets, ``place`` which rank this process is, ``shares`` what it therefore reads
and makes. With a group (``joint``), what every rank needs is read and verified once among them: ``windows`` are
exchanged (``exchange``) in ``turns``, after ``words`` that say whether all can go on.
"""
