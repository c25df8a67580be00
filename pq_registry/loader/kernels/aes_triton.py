# SPDX-License-Identifier: Apache-2.0
"""The AES-256-CTR kernels, in Triton. Imported only where they are launched, for triton must be there.

Bitsliced: a lane works on 32 blocks at once, in 128 words, one for each bit of the state: bit ``i`` of byte ``p`` is
plane ``8 p + i``, and bit ``j`` of a plane belongs to the ``j``-th block. No value is ever an address or decides a
branch, so neither time nor memory traffic says anything about keys or keystream. ShiftRows is a renaming. Block
``32 j + l`` of a program's run is bit ``j`` of lane ``l``, so that what a warp reads and writes lies side by side.

SubBytes is the circuit of Boyar and Peralta (ePrint 2009/191) without its four complements: they add 0x63 to every
byte, which ShiftRows and MixColumns leave alone (2 + 3 + 1 + 1 = 1 in each row), so it is added to the round keys.

In counter mode only the last 3 of 16 bytes differ between the blocks of a shard. ``schedule_kernel``, one program a
shard, runs the key schedule of FIPS 197 section 5.2 and the first round as far as it is the same for the whole shard,
and writes what ``ctr_kernel`` needs as masks of all zeros or all ones, 32 for each word of (``KEY_WORDS`` in all):

    1    the counter's part of the first AddRoundKey, lowest bit of the counter first
    4    the state after round 1, without the contributions of the counter's last three bytes
    52   the round keys 2 to 14
    7    nothing; the words themselves stand in what would be their masks, until the masks are made

Loads and stores of tensors are few on purpose: Triton's compiler looks at everything that is connected with each of
them, which for some thousand gates takes seconds a piece. Single values (the masks here) are not looked at.
"""

from __future__ import annotations

import triton
import triton.language as tl

MATERIAL_BYTES = tl.constexpr(44)
FIRST_STATE = tl.constexpr(32)
ROUND_KEYS = tl.constexpr(5 * 32)
MASKS = tl.constexpr(57 * 32)
KEY_WORDS = tl.constexpr(64 * 32)
# Bits 0 to 4 of j for j = 0 to 31.
PLACES = tl.constexpr((0xAAAAAAAA, 0xCCCCCCCC, 0xF0F0F0F0, 0xFF00FF00, 0xFFFF0000))


@triton.jit
def substitute(b):
    """SubBytes of one byte, without adding 0x63: planes from the lowest bit to the highest, of any integers."""
    # The change of basis into GF((2^4)^2), with the sums that both multiplications need.
    u0, u1, u2, u3, u4, u5, u6, u7 = b[7], b[6], b[5], b[4], b[3], b[2], b[1], b[0]
    e03 = u0 ^ u3
    e05 = u0 ^ u5
    e06 = u0 ^ u6
    e35 = u3 ^ u5
    e12 = u1 ^ u2
    h1 = e12 ^ u7
    h4 = h1 ^ u3
    h12 = e06 ^ e35
    h2 = h1 ^ u0
    h5 = h1 ^ u6
    h3 = h5 ^ e05
    k = u4 ^ h12
    h15 = k ^ u5
    h20 = k ^ u1
    h6 = h15 ^ u7
    h10 = h15 ^ e12
    h11 = h20 ^ e03
    h7 = u7 ^ h11
    h17 = h10 ^ h11
    h19 = h10 ^ e05
    h16 = e12 ^ h11
    h21 = e06 ^ h16
    h18 = u0 ^ h16
    # What is to be inverted in GF(2^4): four bits.
    p = h12 & h15
    q = e06 & h16
    r = e03 & h11
    n1 = (h3 & h6) ^ p ^ ((e35 & h17) ^ r) ^ h20
    n2 = (h4 & u7) ^ p ^ ((e05 & h10) ^ r) ^ h19
    n3 = (h5 & h1) ^ q ^ ((e35 & h17) ^ r) ^ h21
    n4 = (h2 & h7) ^ q ^ ((e05 & h10) ^ r) ^ h18
    # The inverse.
    v = n1 & n3
    w = n4 ^ v
    n12 = n1 ^ n2
    i2 = (n12 & w) ^ n2
    i4 = ((n2 ^ v) & (n3 ^ n4)) ^ n4
    x = n4 & (w ^ i4)
    i3 = x ^ n3 ^ i4
    i1 = n12 ^ (i2 & (w ^ x))
    # Its products with both halves, and back to the basis of FIPS 197 through the affine map.
    s13 = i1 ^ i3
    s24 = i2 ^ i4
    s12 = i2 ^ i1
    s34 = i4 ^ i3
    all4 = s24 ^ s13
    z0 = s34 & h15
    z1 = i3 & h6
    z2 = i4 & u7
    z3 = s12 & h16
    z4 = i1 & h1
    z5 = i2 & h7
    z6 = s24 & h11
    z7 = all4 & h17
    z8 = s13 & h10
    z9 = s34 & h12
    z10 = i3 & h3
    z11 = i4 & h4
    z12 = s12 & e06
    z13 = i1 & h5
    z14 = i2 & h2
    z15 = s24 & e03
    z16 = all4 & e35
    z17 = s13 & e05
    c0 = z15 ^ z16
    c1 = z5 ^ z13
    c2 = z0 ^ z3
    c3 = z2 ^ z12 ^ c2
    c4 = z4 ^ c0
    c5 = z6 ^ z7 ^ z3
    c6 = z7 ^ z8 ^ c4
    c7 = z9 ^ z10 ^ c4
    c8 = z14 ^ c3 ^ c6
    c9 = z4 ^ c5
    c10 = z1 ^ c7
    o3 = c2 ^ c10
    return (
        c1 ^ c0 ^ c3,
        z12 ^ c1 ^ c6,
        z10 ^ z11 ^ c8,
        z2 ^ z5 ^ c10,
        o3,
        z16 ^ z17 ^ c9 ^ c8,
        c9 ^ o3,
        c5 ^ c7,
    )


@triton.jit
def _column(a, key):
    """MixColumns and AddRoundKey of one column: ``a`` its four bytes' 32 planes, ``key`` where its 32 masks stand."""
    # a_r + a_(r+1) for every row: both the factor of 2 and, from two rows on, half of the rest.
    pair = ()
    for i in tl.static_range(32):
        pair = pair + (a[i] ^ a[(i + 8) % 32],)
    out = ()
    for i in tl.static_range(32):
        plane = a[(i + 8) % 32] ^ pair[(i + 16) % 32] ^ tl.load(key + i)
        if i % 8 > 0:
            plane = plane ^ pair[i - 1]
        if (i % 8 == 0) or (i % 8 == 1) or (i % 8 == 3) or (i % 8 == 4):
            plane = plane ^ pair[i // 8 * 8 + 7]
        out = out + (plane,)
    return out


@triton.jit
def _shifted(state, column: tl.constexpr):
    """SubBytes and ShiftRows: the four bytes of one column after both."""
    out = ()
    for row in tl.static_range(4):
        byte = ()
        for bit in tl.static_range(8):
            byte = byte + (state[8 * (row + 4 * ((column + row) % 4)) + bit],)
        out = out + substitute(byte)
    return out


@triton.jit
def _doubled(b):
    """Twice a byte in GF(2^8)."""
    return b[7], b[0] ^ b[7], b[1], b[2] ^ b[7], b[3] ^ b[7], b[4], b[5], b[6]


@triton.jit
def _mask(word, bit):
    """All ones or all zeros, as that bit of ``word`` is."""
    return (0 - ((word >> bit) & 1)).to(tl.uint32)


@triton.jit
def _after_first_round(key, first, LANES: tl.constexpr):
    """The state after round 1 of blocks ``first + 32 j + l``; their counters are 2 more."""
    lane = tl.arange(0, LANES)
    low = lane % 32 + 2
    carried = low >= 32  # then j counts from 1 to 32 instead of from 0 to 31
    high = first // 1024 + lane // 32
    every = tl.zeros((LANES,), tl.uint32)
    ones = every + 0xFFFFFFFF  # the bits of j below the one at hand, all set
    counter = ()
    for bit in tl.static_range(24):
        if bit < 5:
            plane = _mask(low, bit)
        elif bit < 10:
            place = every + PLACES.value[bit - 5]
            plane = tl.where(carried, place ^ ones, place)
            ones = ones & place
        else:
            plane = _mask(high, bit - 10)
            plane = tl.where(carried, (plane & 0x7FFFFFFF) | (_mask(high + 1, bit - 10) & 0x80000000), plane)
        counter = counter + (plane ^ tl.load(key + bit),)
    state = ()
    for column in tl.static_range(4):
        if column < 3:
            # The last column's byte in row 3 - column is what ShiftRows brings here.
            byte = ()
            for bit in tl.static_range(8):
                byte = byte + (counter[8 * column + bit],)
            once = substitute(byte)
            twice = _doubled(once)
        for row in tl.static_range(4):
            for bit in tl.static_range(8):
                plane = every + tl.load(key + FIRST_STATE + 32 * column + 8 * row + bit)
                if column < 3:
                    if row == 3 - column:
                        plane = plane ^ twice[bit]
                    elif row == 2 - column:
                        plane = plane ^ twice[bit] ^ once[bit]
                    else:
                        plane = plane ^ once[bit]
                state = state + (plane,)
    return state


@triton.jit
def _exchanged(rows, step: tl.constexpr, upper: tl.constexpr):
    """Rows ``i`` and ``i + step``: upper halves of groups of bits in the one, for lower halves in the other."""
    out = ()
    for i in tl.static_range(32):
        if i % (2 * step) < step:
            out = out + (rows[i] ^ ((rows[i] ^ (rows[i + step] << step)) & upper),)
        else:
            out = out + (rows[i] ^ ((rows[i] ^ (rows[i - step] >> step)) & (upper >> step)),)
    return out


@triton.jit
def _transposed(rows):
    """The 32 by 32 bits in ``rows``, transposed."""
    for level in tl.static_range(5):
        rows = _exchanged(rows, 16 >> level, PLACES.value[4 - level])
    return rows


@triton.jit(do_not_specialize=["size", "last", "count"])
def ctr_kernel(data, out, keys, stride, out_stride, size, last, count, LANES: tl.constexpr):
    """``out`` = ``data`` XOR the keystream of its shard; a program does ``32 LANES`` blocks of one shard.

    Everything is aligned to words, sizes too.
    """
    shard = tl.program_id(1).to(tl.int64)
    first = tl.program_id(0) * (32 * LANES)
    length = tl.where(shard == count - 1, last, size)
    if first * 16 < length:
        key = keys + shard * KEY_WORDS
        state = _after_first_round(key, first, LANES)
        key += ROUND_KEYS
        for _ in range(12):
            turned = ()
            for column in tl.static_range(4):
                turned = turned + _column(_shifted(state, column), key + 32 * column)
            state = turned
            key += 128
        words = ()
        for column in tl.static_range(4):
            mixed = _shifted(state, column)
            planes = ()
            for i in tl.static_range(32):
                planes = planes + (mixed[i] ^ tl.load(key + 32 * column + i),)
            words = words + _transposed(planes)
        # All 32 blocks of a lane as one tensor. The joins put what a lane has beside what the same lane has, so none
        # of them moves anything; and the four words of a block are written at once.
        blocks = ()
        for j in tl.static_range(32):
            blocks = blocks + (tl.join(tl.join(words[j], words[64 + j]), tl.join(words[32 + j], words[96 + j])),)
        for level in tl.static_range(5):
            pairs = ()
            for j in tl.static_range(16 >> level):
                pairs = pairs + (tl.join(blocks[j], blocks[j + (16 >> level)]),)
            blocks = pairs
        stream = tl.permute(blocks[0], (3, 4, 5, 6, 7, 0, 1, 2))
        stream = tl.reshape(stream, (32, LANES, 4))
        lane = tl.arange(0, LANES)
        block = (first + lane // 32 * 1024 + lane % 32)[None, :] + 32 * tl.arange(0, 32)[:, None]
        _apply(data + shard * stride, out + shard * out_stride, stream, block, length)


@triton.jit
def _apply(source, target, stream, block, length):
    """Words of ``block`` from ``source`` to ``target`` through the keystream's four words."""
    at = block[:, :, None] * 4 + tl.arange(0, 4)[None, None, :]
    inside = at * 4 < length
    data = tl.load(source.to(tl.pointer_type(tl.uint32), bitcast=True) + at, mask=inside, other=0)
    tl.store(target.to(tl.pointer_type(tl.uint32), bitcast=True) + at, data ^ stream, mask=inside)


@triton.jit
def _substituted(word):
    """SubBytes of the four bytes of one word, without adding 0x63."""
    planes = ()
    for bit in tl.static_range(8):
        at = (word >> bit) & 0x01010101
        planes = planes + ((at | (at >> 7) | (at >> 14) | (at >> 21)) & 0xF,)
    after = substitute(planes)
    out = word & 0
    for bit in tl.static_range(8):
        # Bit k goes to place 8 k: no two of the sixteen products meet.
        out = out | (((after[bit] * 0x00204081) & 0x01010101) << bit)
    return out


@triton.jit
def _doubled_bytes(word):
    """Twice each byte of a word, in GF(2^8)."""
    return ((word & 0x7F7F7F7F) << 1) ^ (((word >> 7) & 0x01010101) * 0x1B)


@triton.jit
def schedule_kernel(material, keys):
    """What ``ctr_kernel`` needs of each shard, from its key and nonce; one program a shard."""
    shard = tl.program_id(0).to(tl.int64)
    given = material + shard * (MATERIAL_BYTES // 4)
    masks = keys + shard * KEY_WORDS
    out = masks + MASKS
    w = ()
    for i in tl.static_range(8):
        w = w + (tl.load(given + i),)
    # The first AddRoundKey, and SubBytes of all but the counter's last three bytes.
    sub = ()
    for i in tl.static_range(3):
        sub = sub + (_substituted(w[i] ^ tl.load(given + 8 + i)),)
    sub = sub + (_substituted(w[3]) & 0xFF,)
    tl.store(out, (w[3] >> 24) | ((w[3] >> 8) & 0xFF00) | ((w[3] << 8) & 0xFF0000) | (w[3] << 24))
    for i in tl.static_range(4):
        x = sub[i] & 0xFF
        x = x | (sub[(i + 1) % 4] & 0xFF00) | (sub[(i + 2) % 4] & 0xFF0000) | (sub[(i + 3) % 4] & 0xFF000000)
        y = (x >> 8) | (x << 24)
        z = _doubled_bytes(x ^ y) ^ y ^ ((x >> 16) | (x << 16)) ^ ((x >> 24) | (x << 8))
        tl.store(out + 1 + i, z ^ w[4 + i] ^ 0x63636363)
    for i in tl.static_range(52):
        # w[0] is word i of the schedule, the new word is number i + 8.
        new = w[7]
        if i % 8 == 0:
            new = _substituted((new >> 8) | (new << 24)) ^ (0x63636363 ^ (1 << (i // 8)))
        elif i % 8 == 4:
            new = _substituted(new) ^ 0x63636363
        new = new ^ w[0]
        w = w[1:] + (new,)
        tl.store(out + 5 + i, new ^ 0x63636363)
    tl.debug_barrier()
    at = tl.arange(0, KEY_WORDS)
    word = tl.load(out + at // 32, mask=at < MASKS, other=0)
    tl.store(masks + at, _mask(word, at % 32), mask=at < MASKS)
    # The words are as secret as the masks, which the caller overwrites as a whole.
