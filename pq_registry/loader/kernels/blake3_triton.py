# SPDX-License-Identifier: Apache-2.0
"""The BLAKE3 kernels, in Triton: chunks, then trees. Imported only where they are launched, for triton must be there.

One lane compresses one chunk of 1 KiB, whichever shard it is of, so that a few shards already fill a device; the
chaining values go to a scratch area, and one program per shard merges them pairwise, level by level, an odd one out
carried up. That is BLAKE3's tree (the left subtree is the largest power of two of chunks: section 2.1 of the BLAKE3
paper), and the merge that leaves one node carries the ROOT flag. Every shard is a message of its own, its chunks
counted from 0.

The sixteen words of a block are read by neighbouring lanes (64 bytes on end per chunk) and handed to the lane that
compresses the chunk. Shards begin at multiples of 4 bytes, and what is beyond their end in the last word is zero.
Offsets are 64 bits wide. The plain version, 32-byte digest, no key.
"""

from __future__ import annotations

import triton
import triton.language as tl

CHUNK_BYTES = tl.constexpr(1024)
BLOCK_BYTES = tl.constexpr(64)
WORDS = tl.constexpr(16)
CV_WORDS = tl.constexpr(8)
IV = tl.constexpr((0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19))
SCHEDULE = tl.constexpr((2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8))
CHUNK_START = tl.constexpr(1)
CHUNK_END = tl.constexpr(2)
PARENT = tl.constexpr(4)
ROOT = tl.constexpr(8)


@triton.jit
def _mix(a, b, c, d, x, y):
    """The function G on four columns, or four diagonals, at once: all arguments are tuples of four."""
    ao, bo, co, do = (), (), (), ()
    for i in tl.static_range(4):
        p = a[i] + b[i] + x[i]
        s = d[i] ^ p
        s = (s >> 16) | (s << 16)
        r = c[i] + s
        q = b[i] ^ r
        q = (q >> 12) | (q << 20)
        p = p + q + y[i]
        s = s ^ p
        s = (s >> 8) | (s << 24)
        r = r + s
        q = q ^ r
        q = (q >> 7) | (q << 25)
        ao, bo, co, do = ao + (p,), bo + (q,), co + (r,), do + (s,)
    return ao, bo, co, do


@triton.jit
def compress(cv, m, counter, length, flags):
    """The chaining value after one block: ``cv`` of 8 words, ``m`` of 16, the rest one word per lane."""
    zero = counter * 0
    a, b = cv[:4], cv[4:]
    c = (zero + IV.value[0], zero + IV.value[1], zero + IV.value[2], zero + IV.value[3])
    # The counter's upper half is zero: a shard has fewer than 2^32 chunks.
    d = (counter, zero, zero + length, zero + flags)
    for _ in tl.static_range(7):
        a, b, c, d = _mix(a, b, c, d, (m[0], m[2], m[4], m[6]), (m[1], m[3], m[5], m[7]))
        b, c, d = b[1:] + b[:1], c[2:] + c[:2], d[3:] + d[:3]
        a, b, c, d = _mix(a, b, c, d, (m[8], m[10], m[12], m[14]), (m[9], m[11], m[13], m[15]))
        b, c, d = b[3:] + b[:3], c[2:] + c[:2], d[1:] + d[:1]
        turned = ()
        for word in tl.static_range(16):
            turned = turned + (m[SCHEDULE.value[word]],)
        m = turned
    out = ()
    for word in tl.static_range(8):
        out = out + ((a + b)[word] ^ (c + d)[word],)
    return out


@triton.jit
def _parted(words, LANES: tl.constexpr):
    """The sixteen columns of a block of ``LANES`` rows, each as words of one per lane."""
    parts = (words,)
    for level in tl.static_range(4):
        low = ()
        high = ()
        for part in tl.static_range(2**level):
            a, b = tl.split(tl.reshape(parts[part], (LANES, 8 // 2**level, 2)))
            low = low + (a,)
            high = high + (b,)
        parts = low + high
    out = ()
    for word in tl.static_range(16):
        out = out + (tl.reshape(parts[word], (LANES,)),)
    return out


@triton.jit
def _read(start, left, ragged, LANES: tl.constexpr):
    """The words of the 64 bytes at ``start``, those beyond ``left`` bytes zero."""
    word = tl.arange(0, 16)[None, :]
    # A whole block's mask is the same for all its words, so they are read 16 bytes at a time; the last block of a
    # shard, if there is one among the lanes, is read word by word.
    whole = left >= BLOCK_BYTES
    at = start.to(tl.pointer_type(tl.uint32), bitcast=True)[:, None] + word
    words = tl.load(at, mask=tl.broadcast_to(whole[:, None], (LANES, 16)), other=0)
    if ragged:
        words = words | tl.load(at, mask=(left < BLOCK_BYTES)[:, None] & (word * 4 < left[:, None]), other=0)
    return _parted(words, LANES)


@triton.jit(do_not_specialize=["size", "last", "count"])
def chunk_kernel(data, nodes, stride, size, last, count, LANES: tl.constexpr):
    """Chaining values of all chunks: node ``k * chunks + i`` for chunk ``i`` of shard ``k``."""
    chunks = (size + CHUNK_BYTES - 1) // CHUNK_BYTES
    lane = tl.program_id(0) * LANES + tl.arange(0, LANES)  # 32 bits: 2^31 chunks are 2 TiB
    shard = lane // chunks
    chunk = lane % chunks
    length = tl.where(shard == count - 1, last, size)
    left = tl.where(shard < count, tl.maximum(tl.minimum(length - chunk * CHUNK_BYTES, CHUNK_BYTES), 0), 0)
    only = tl.where(length <= CHUNK_BYTES, CHUNK_END + ROOT, CHUNK_END)
    blocks = (left + BLOCK_BYTES - 1) // BLOCK_BYTES
    start = data + shard.to(tl.int64) * stride + chunk.to(tl.int64) * CHUNK_BYTES
    counter = chunk.to(tl.uint32)
    ragged = tl.max(left % BLOCK_BYTES, axis=0) > 0
    cv = ()
    for word in tl.static_range(8):
        cv = cv + (counter * 0 + IV.value[word],)
    for block in range(tl.max(blocks, axis=0)):
        m = _read(start, left, ragged, LANES)
        flags = tl.where(block == 0, CHUNK_START, 0) + tl.where(block == blocks - 1, only, 0)
        filled = tl.minimum(left, BLOCK_BYTES)
        after = compress(cv, m, counter, filled.to(tl.uint32), flags.to(tl.uint32))
        kept = ()
        for word in tl.static_range(8):
            kept = kept + (tl.where(left > 0, after[word], cv[word]),)
        cv = kept
        start += BLOCK_BYTES
        left -= BLOCK_BYTES
    at = nodes + lane.to(tl.int64) * CV_WORDS
    for word in tl.static_range(8):
        tl.store(at + word, cv[word], mask=blocks > 0)


@triton.jit(do_not_specialize=["size", "last", "count"])
def tree_kernel(nodes, spare, out, size, last, count, LANES: tl.constexpr):
    """The digest of each shard from its chunks' chaining values, one program a shard.

    A level is read from one area and written to the other: in place, a fast warp would overwrite what a slow one has
    yet to read.
    """
    shard = tl.program_id(0).to(tl.int64)
    chunks = (size + CHUNK_BYTES - 1) // CHUNK_BYTES
    length = tl.where(shard == count - 1, last, size)
    width = (length + CHUNK_BYTES - 1) // CHUNK_BYTES
    here = nodes + shard * chunks * CV_WORDS
    there = spare + shard * ((chunks + 1) // 2) * CV_WORDS
    while width > 1:
        pairs = width // 2
        flags = tl.where(width == 2, PARENT + ROOT, PARENT)
        for first in range(0, pairs + width % 2, LANES):
            lane = first + tl.arange(0, LANES)
            merged = lane < pairs
            m = ()
            for word in tl.static_range(16):
                # The odd one out has no right half.
                there_is = merged | ((lane < pairs + width % 2) & (word < 8))
                m = m + (tl.load(here + lane * 2 * CV_WORDS + word, mask=there_is, other=0),)
            zero = lane.to(tl.uint32) * 0
            iv = ()
            for word in tl.static_range(8):
                iv = iv + (zero + IV.value[word],)
            node = compress(iv, m, zero, zero + BLOCK_BYTES, zero + flags.to(tl.uint32))
            for word in tl.static_range(8):
                value = tl.where(merged, node[word], m[word])
                tl.store(there + lane * CV_WORDS + word, value, mask=lane < pairs + width % 2)
        tl.debug_barrier()
        here, there = there, here
        width = pairs + width % 2
    word = tl.arange(0, 8)
    tl.store(out + shard * CV_WORDS + word, tl.load(here + word))
