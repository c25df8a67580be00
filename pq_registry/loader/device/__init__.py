# SPDX-License-Identifier: Apache-2.0
"""Tensors on accelerators: bytes go through page-locked memory, and a buffer is used again only after its last reader.

``accelerator`` says what a device must offer, ``cuda`` offers it by torch. ``staging`` owns the buffers, ``layout``
the memory of the tensors, ``placement`` brings checked shards onto the device, and ``verified`` brings stored shards
there and has the device check and decrypt them. ``choice`` puts together what a caller asked for.
"""
