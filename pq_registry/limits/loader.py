# SPDX-License-Identifier: Apache-2.0
"""Bounds of the loader."""

from __future__ import annotations

from typing import Final

from pq_registry.limits.units import KIB, MIB

LOADER_RING_BYTES: Final = 128 * MIB
"""Read ahead of what the caller of iter_tensors has taken: keeps every thread busy while a few tensors wait."""
LOADER_ARENA_BYTES: Final = 512 * MIB
"""Memory that iter_tensors uses again: the ring, and the tensors held and being read of all but the largest models."""
LOADER_THREADS: Final = 16
"""Threads that read a local release; a few saturate memory on every machine seen."""
DIRECT_THREADS: Final = 8
"""Threads that read past the page cache: each waits for its own 2 MiB, and fast disks want several of these at once."""
DIRECT_ALIGNMENT: Final = 4 * KIB
"""Of offset, length and memory of a read past the page cache; the largest sector in use."""
DIRECT_PIECE_BYTES: Final = 4 * MIB
"""Most that is read past the page cache at once where the caller's memory is not aligned: a stored shard and more."""
RESIDENT_PROBES: Final = 16
"""Places of a file that are looked at to see whether it is in the page cache."""
LOADER_KEPT_SHARDS: Final = 16
"""Verified shards that open_verified keeps (32 MiB): neighbours of what was read are asked for next."""
READ_FILE_BYTES: Final = 256 * MIB
"""Largest file that is read whole into memory by its path: configurations and tokenizers; larger ones by range."""
LOADER_WORLD: Final = 65536
"""Processes among which a model is cut."""
LOADER_GROUP: Final = 128
"""Processes that share reading: each reads one shard of a window at least, and every process holds a window."""
LOADER_WINDOW_BYTES: Final = 64 * MIB
"""What processes that share reading exchange at once, if that is a shard for each; every process holds as much."""
LOADER_SHARE_SHARDS: Final = 4
"""Most shards of a window that one process reads: 8 MiB, from which on an exchange costs little besides its bytes."""
LOADER_GROUP_SECONDS: Final = 1800
"""Longest wait of one process of a group for the slowest: its consumer may be busy for as long with one tensor."""
LOADER_WORD_BYTES: Final = KIB
"""What each process of a group says before a window is exchanged: nothing, or why it stops."""
LOADER_SPARE_SLOTS: Final = 4
"""Page-locked buffers beyond one for each thread: being copied to a device while the threads fill the others."""
LOADER_DEVICE_SHARDS: Final = 16
"""Most shards a device is given at once (32 MiB): at 50 GB/s that takes longer than the calls that start the work."""
LOADER_CIPHER_BYTES: Final = 255 * MIB
"""Longest shard a device decrypts: the kernel takes the block counter's highest byte for zero."""
LOADER_STAGE_BYTES: Final = 512 * MIB
"""Page-locked memory of a load that a device checks; the device needs as much, and again for the plaintext."""
