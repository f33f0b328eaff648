# cython: allow_none_for_extension_args=False
"""Where the entries of sparse rows are, in the order of the product kernels (see tiles.h)."""

import numpy as np

from libc.stdint cimport int32_t, int64_t, uint16_t, uint64_t
from libc.string cimport memset

cdef extern from "select.h" nogil:
    uint64_t subquad_active_f32(const float *z, int64_t n, float threshold)
    uint64_t subquad_active_f64(const double *z, int64_t n, double threshold)
    int subquad_count(uint64_t bits)
    int subquad_lowest(uint64_t bits)

LANES = SUBQUAD_LANES
CHUNK_ROWS = SUBQUAD_CHUNK_ROWS
# Positions within a block are 16-bit numbers.
MAX_BLOCK = 1 << 15

cdef Py_ssize_t n_blocks(int64_t n_columns, int64_t block) noexcept nogil:
    """With no columns at all there is still one block, an empty one."""
    return (n_columns - 1) // block + 1 if n_columns else 1


cdef Py_ssize_t n_chunks(int64_t n_rows) noexcept nogil:
    return (n_rows + SUBQUAD_CHUNK_ROWS - 1) // SUBQUAD_CHUNK_ROWS


def serial(work, n):
    """Call ``work(i)`` for i in range(n)."""
    for i in range(n):
        work(i)


def all_once(for_each, work, n):
    """Call ``for_each(work, n)``; raise ValueError unless that works on every number in range(n), and only once.

    Entries are counted first and written then: a block that is done twice would be written beyond the end.
    """
    missing = set(range(n))

    def checked(i):
        try:
            # Of two threads with the same number, one comes too late.
            missing.remove(i)
        except KeyError:
            raise ValueError(f"for_each must call its work once for every number in range({n}), not with {i!r}.") from None
        work(i)

    for_each(checked, n)
    if missing:
        raise ValueError(f"for_each must call its work once for every number in range({n}); {sorted(missing)} are missing.")


cdef class Pattern:
    """Positions of the entries of a sparse matrix (n_rows x n_columns), block of columns by block of columns.

    Made by `Pattern.from_csr`, `select`, `concatenate` or `transposed`, never changed. Functions on values take
    one number per entry, in the pattern's own order.

    Parameters
    ----------
    n_rows, n_columns : int
    block : int
        Columns per block, a multiple of `LANES`.
    """

    def __cinit__(self, Py_ssize_t n_rows, Py_ssize_t n_columns, Py_ssize_t block):
        if n_rows < 0 or n_columns < 0:
            raise ValueError(f"a pattern cannot have shape ({n_rows}, {n_columns}).")
        if not 0 < block <= MAX_BLOCK or block % SUBQUAD_LANES:
            raise ValueError(f"block must be a multiple of {SUBQUAD_LANES} up to {MAX_BLOCK}, got {block}.")
        self.c.n_rows, self.c.n_columns, self.c.block = n_rows, n_columns, block
        # A Python number, which cannot overflow.
        places = <object>n_blocks(n_columns, block) * n_rows
        self.start = np.zeros(places + 1, dtype=np.int64)
        self.row = np.zeros(places, dtype=np.uint16)
        self.c.start = &self.start[0]
        self.c.row = &self.row[0] if places else NULL
        # Without entries the rows of every chunk stay in their own order.
        cdef Py_ssize_t q
        with nogil:
            for q in range(self.row.shape[0]):
                self.row[q] = <uint16_t>(q % n_rows % SUBQUAD_CHUNK_ROWS)
        self.allocate_entries(0)

    cdef allocate_entries(self, int64_t n_entries):
        self.local = np.empty(n_entries, dtype=np.uint16)
        self.c.local = &self.local[0] if n_entries else NULL

    cdef lay_out(self, int64_t[::1] count):
        """Order the rows of every block and chunk by their number of entries, and give every entry its place.

        `count` has the entries of row i in block b at ``b * n_rows + i``; it is replaced by the place of the first.
        """
        cdef Py_ssize_t n_rows = self.c.n_rows, block = self.c.block, b, c, n, q, i
        cdef int64_t size, total = 0
        # Rows with fewer entries than `size`, then the position of the next row of that size.
        cdef int64_t[::1] rank = np.empty(block + 2, dtype=np.int64)
        with nogil:
            for b in range(n_blocks(self.c.n_columns, block)):
                for c in range(n_chunks(n_rows)):
                    n = min(SUBQUAD_CHUNK_ROWS, n_rows - c * SUBQUAD_CHUNK_ROWS)
                    q = b * n_rows + c * SUBQUAD_CHUNK_ROWS
                    memset(&rank[0], 0, (block + 2) * sizeof(int64_t))
                    for i in range(n):
                        rank[count[q + i] + 1] += 1
                    for size in range(block):
                        rank[size + 1] += rank[size]
                    for i in range(n):
                        self.row[q + rank[count[q + i]]] = <uint16_t>i
                        rank[count[q + i]] += 1
                    for i in range(n):
                        self.start[q + i] = total
                        total += count[q + self.row[q + i]]
                        count[q + self.row[q + i]] = self.start[q + i]
            self.start[self.start.shape[0] - 1] = total

    @property
    def shape(self):
        return self.c.n_rows, self.c.n_columns

    @property
    def block(self):
        return self.c.block

    @property
    def nnz(self):
        return self.start[self.start.shape[0] - 1]

    cdef check_values(self, Py_ssize_t n_values):
        if n_values != self.nnz:
            raise ValueError(f"values must have one item per entry ({self.nnz}), got {n_values}.")

    cdef check_panel(self, Py_ssize_t first_row):
        if first_row % SUBQUAD_LANES or not 0 <= first_row < self.c.n_rows:
            raise ValueError(
                f"first_row must be a multiple of {SUBQUAD_LANES} in [0, {self.c.n_rows}), got {first_row}."
            )

    cdef check_block_range(self, Py_ssize_t first_block, Py_ssize_t n_asked):
        cdef Py_ssize_t blocks = n_blocks(self.c.n_columns, self.c.block)
        # The sum of the two may leave the range of the type.
        if not 0 <= first_block <= blocks or n_asked > blocks - first_block:
            raise ValueError(f"{n_asked} blocks from block {first_block} on lie outside [0, {blocks}).")

    @staticmethod
    def from_csr(const int32_t[::1] indptr, const int32_t[::1] indices, Py_ssize_t n_columns, Py_ssize_t block):
        """The pattern of CSR rows with strictly increasing indices, and the order of its entries.

        Returns
        -------
        pattern : Pattern
        order : ndarray of shape (nnz,), int64
            Entry p of the pattern is entry ``order[p]`` of the CSR rows.
        """
        check_csr(indptr, indices, n_columns)
        cdef Py_ssize_t n_rows = indptr.shape[0] - 1
        cdef Pattern pattern = Pattern(n_rows, n_columns, block)
        pattern.allocate_entries(indices.shape[0])
        order = np.empty(indices.shape[0], dtype=np.int64)
        cdef int64_t[::1] positions = order
        cdef int64_t[::1] cursor = np.zeros(pattern.row.shape[0], dtype=np.int64)
        cdef Py_ssize_t i, b
        cdef int64_t p, w
        with nogil:
            for i in range(n_rows):
                for p in range(indptr[i], indptr[i + 1]):
                    cursor[(indices[p] // block) * n_rows + i] += 1
        pattern.lay_out(cursor)
        with nogil:
            for i in range(n_rows):
                for p in range(indptr[i], indptr[i + 1]):
                    b = indices[p] // block
                    w = cursor[b * n_rows + i]
                    cursor[b * n_rows + i] += 1
                    pattern.local[w] = <uint16_t>(indices[p] - b * block)
                    positions[w] = p
        return pattern, order

    def to_csr(self):
        """indptr (int64), sorted indices (int64), and the order: CSR entry p is entry ``order[p]`` here."""
        cdef Py_ssize_t n_rows = self.c.n_rows, q
        cdef int64_t p
        indptr, indices = np.zeros(n_rows + 1, dtype=np.int64), np.empty(self.nnz, dtype=np.int64)
        order = np.empty(self.nnz, dtype=np.int64)
        cdef int64_t[::1] ends = indptr, columns = indices, positions = order
        cdef Py_ssize_t b, i
        with nogil:
            for q in range(self.row.shape[0]):
                i = self.row_of(q)
                ends[i + 1] += self.start[q + 1] - self.start[q]
            for i in range(n_rows):
                ends[i + 1] += ends[i]
            # Blocks in order, so that the columns of a row come out in order; `ends` is moved and moved back.
            for q in range(self.row.shape[0]):
                i, b = self.row_of(q), q // n_rows
                for p in range(self.start[q], self.start[q + 1]):
                    columns[ends[i]] = b * self.c.block + self.local[p]
                    positions[ends[i]] = p
                    ends[i] += 1
            for i in range(n_rows, 0, -1):
                ends[i] = ends[i - 1]
            ends[0] = 0
        return indptr, indices, order

    cdef Py_ssize_t row_of(self, Py_ssize_t q) noexcept nogil:
        """The row at place q, see tiles.h."""
        cdef Py_ssize_t place = q % self.c.n_rows
        return place - place % SUBQUAD_CHUNK_ROWS + self.row[q]

    def transposed(self, Py_ssize_t block, for_each=serial):
        """The pattern of the transposed matrix, in blocks of that many of its columns, and the order of its entries.

        Parameters
        ----------
        block : int
        for_each : callable
            ``for_each(work, n)`` calls ``work(i)`` for i in range(n), perhaps in parallel, each once.

        Returns
        -------
        pattern : Pattern
        order : ndarray of shape (nnz,), int64
            Entry p of the transposed pattern is entry ``order[p]`` of this one.

        Raises
        ------
        ValueError
            If `for_each` leaves out a number, repeats one, or calls `work` with another.
        """
        cdef Py_ssize_t n_rows = self.c.n_rows, n_columns = self.c.n_columns
        cdef Pattern turned = Pattern(n_columns, n_rows, block)
        turned.allocate_entries(self.nnz)
        order = np.empty(self.nnz, dtype=np.int64)
        # Entries of column j in block b of rows, at b * n_columns + j; then the place of the next one to be written.
        cursor = np.zeros(n_blocks(n_rows, block) * n_columns, dtype=np.int64)
        # Blocks of this pattern have their own columns, hence their own cursors.
        all_once(for_each, lambda i: self.count_columns(i, block, cursor), n_blocks(n_columns, self.c.block))
        turned.lay_out(cursor)
        all_once(for_each, lambda i: self.place_entries(i, turned, cursor, order), n_blocks(n_columns, self.c.block))
        return turned, order

    cdef count_columns(self, Py_ssize_t own_block, Py_ssize_t block, int64_t[::1] count):
        """Count the entries of one block by column and block of rows (a step of `transposed`)."""
        cdef Py_ssize_t n_rows = self.c.n_rows, q
        cdef int64_t p, place
        with nogil:
            for q in range(own_block * n_rows, (own_block + 1) * n_rows):
                place = (self.row_of(q) // block) * self.c.n_columns + own_block * self.c.block
                for p in range(self.start[q], self.start[q + 1]):
                    count[place + self.local[p]] += 1

    cdef place_entries(self, Py_ssize_t own_block, Pattern turned, int64_t[::1] cursor, int64_t[::1] order):
        """Write the entries of one block to the transposed pattern (a step of `transposed`)."""
        cdef Py_ssize_t n_rows = self.c.n_rows, block = turned.c.block, q, i
        cdef int64_t p, w, place
        # Rows in their own order, so that the entries of a transposed row come in the order of its columns.
        cdef int64_t[::1] place_of_row = np.empty(n_rows, dtype=np.int64)
        with nogil:
            for q in range(own_block * n_rows, (own_block + 1) * n_rows):
                place_of_row[self.row_of(q)] = q
            for i in range(n_rows):
                q = place_of_row[i]
                place = (i // block) * self.c.n_columns + own_block * self.c.block
                for p in range(self.start[q], self.start[q + 1]):
                    w = cursor[place + self.local[p]]
                    cursor[place + self.local[p]] += 1
                    turned.local[w] = <uint16_t>(i % block)
                    order[w] = p


cdef check_csr(const int32_t[::1] indptr, const int32_t[::1] indices, Py_ssize_t n_columns):
    """Raise ValueError unless the kernels can trust these CSR rows."""
    cdef Py_ssize_t i, p, n_rows = indptr.shape[0] - 1, n_entries = indices.shape[0]
    cdef int64_t previous
    cdef bint good = n_rows >= 0
    if good:
        with nogil:
            good = indptr[0] == 0 and indptr[n_rows] == n_entries
            for i in range(n_rows):
                good = good and indptr[i] <= indptr[i + 1] <= n_entries
            if good:
                for i in range(n_rows):
                    previous = -1
                    for p in range(indptr[i], indptr[i + 1]):
                        good = good and indices[p] > previous
                        previous = indices[p]
                    good = good and previous < n_columns
    if not good:
        raise ValueError(
            "malformed sparse rows: indptr must rise from 0 to the number of values, and the indices of "
            f"each row must increase strictly and lie in [0, {n_columns})."
        )


def concatenate(list patterns):
    """Side by side: patterns of the same rows and blocks; all but the last have whole blocks only."""
    if not patterns or None in patterns:
        raise ValueError("there must be patterns to put side by side.")
    cdef Pattern first = patterns[0], part
    cdef int64_t n_columns = 0
    for part in patterns:
        if part.c.n_rows != first.c.n_rows or part.c.block != first.c.block or n_columns % first.c.block:
            raise ValueError("patterns side by side need the same rows, the same blocks, and whole blocks between.")
        n_columns += part.c.n_columns
    if len(patterns) == 1:
        return first
    cdef Pattern whole = Pattern(first.c.n_rows, n_columns, first.c.block)
    whole.allocate_entries(sum(part.nnz for part in patterns))
    cdef Py_ssize_t places = 0, entries = 0, n_places
    starts, rows, locals_ = np.asarray(whole.start), np.asarray(whole.row), np.asarray(whole.local)
    for part in patterns:
        n_places = part.row.shape[0]
        starts[places : places + n_places + 1] = np.asarray(part.start) + entries
        rows[places : places + n_places] = part.row
        locals_[entries : entries + part.nnz] = part.local
        places += n_places
        entries += part.nnz
    return whole


def select(const real[:, ::1] z, real threshold, Py_ssize_t block, real gain):
    """The pattern of ``z > threshold`` and the values ``gain * (z - threshold)`` there."""
    cdef Py_ssize_t n_rows = z.shape[0], n_columns = z.shape[1]
    cdef Pattern pattern = Pattern(n_rows, n_columns, block)
    cdef int64_t[::1] cursor = np.zeros(pattern.row.shape[0], dtype=np.int64)
    # The active columns as bits, 64 to a word: the numbers themselves are then read only where active.
    cdef Py_ssize_t words = (n_columns + 63) // 64
    cdef uint64_t[:, ::1] active = np.empty((n_rows, words), dtype=np.uint64)
    cdef Py_ssize_t i, j, b, word
    cdef int64_t w
    cdef uint64_t bits
    with nogil:
        for i in range(n_rows):
            for word in range(words):
                j = 64 * word
                if real is float:
                    bits = subquad_active_f32(&z[i, j], min(64, n_columns - j), threshold)
                else:
                    bits = subquad_active_f64(&z[i, j], min(64, n_columns - j), threshold)
                active[i, word] = bits
                cursor[j // block * n_rows + i] += subquad_count(bits)
    pattern.lay_out(cursor)
    pattern.allocate_entries(pattern.nnz)
    values = np.empty(pattern.nnz, dtype=np.float32 if real is float else np.float64)
    cdef real[::1] out = values
    with nogil:
        for i in range(n_rows):
            for word in range(words):
                b = 64 * word // block
                w = cursor[b * n_rows + i]
                bits = active[i, word]
                while bits:
                    j = 64 * word + subquad_lowest(bits)
                    bits &= bits - 1
                    pattern.local[w] = <uint16_t>(j - b * block)
                    out[w] = gain * (z[i, j] - threshold)
                    w += 1
                cursor[b * n_rows + i] = w
    return pattern, values


def gather(Pattern pattern, const real[:, ::1] z, Py_ssize_t first_block, real scale, real[::1] values):
    """Write ``scale * z`` to the values of the blocks that z covers, from `first_block` on."""
    cdef int64_t block = pattern.c.block
    cdef Py_ssize_t n_asked = n_blocks(z.shape[1], block), last_block, q, p
    pattern.check_values(values.shape[0])
    pattern.check_block_range(first_block, n_asked)
    last_block = first_block + n_asked
    width = min(last_block * block, pattern.c.n_columns) - first_block * block
    if z.shape[0] != pattern.c.n_rows or z.shape[1] != width:
        raise ValueError(f"z must have shape ({pattern.c.n_rows}, {width}), got ({z.shape[0]}, {z.shape[1]}).")
    cdef Py_ssize_t n_rows = pattern.c.n_rows
    cdef const real *source
    with nogil:
        for q in range(first_block * n_rows, last_block * n_rows if z.shape[1] else 0):
            source = &z[pattern.row_of(q), (q // n_rows - first_block) * block]
            for p in range(pattern.start[q], pattern.start[q + 1]):
                values[p] = scale * source[pattern.local[p]]


def scatter_rows(Pattern pattern, const real[::1] values, Py_ssize_t first_row, real[:, ::1] tile):
    """``tile[j, lane] = matrix[first_row + lane, j]`` for one panel of rows, zero elsewhere."""
    pattern.check_values(values.shape[0])
    pattern.check_panel(first_row)
    if tile.shape[0] != pattern.c.n_columns or tile.shape[1] != SUBQUAD_LANES:
        raise ValueError(f"tile must have shape ({pattern.c.n_columns}, {SUBQUAD_LANES}).")
    if pattern.c.n_columns:
        with nogil:
            fill_tile(&pattern.c, &values[0] if values.shape[0] else NULL, first_row, &tile[0, 0])


cdef void fill_tile(const subquad_pattern *pattern, const real *values, Py_ssize_t first_row, real *tile) noexcept nogil:
    """`scatter_rows` of checked arguments."""
    cdef Py_ssize_t n_rows = pattern.n_rows, chunk = first_row - first_row % SUBQUAD_CHUNK_ROWS
    cdef Py_ssize_t n = min(SUBQUAD_CHUNK_ROWS, n_rows - chunk), q, b, lane, low = first_row - chunk
    cdef int64_t p
    cdef real *target
    memset(tile, 0, pattern.n_columns * SUBQUAD_LANES * sizeof(real))
    for b in range(n_blocks(pattern.n_columns, pattern.block)):
        target = tile + b * pattern.block * SUBQUAD_LANES
        for q in range(b * n_rows + chunk, b * n_rows + chunk + n):
            lane = pattern.row[q] - low
            if 0 <= lane < SUBQUAD_LANES:
                for p in range(pattern.start[q], pattern.start[q + 1]):
                    target[pattern.local[p] * SUBQUAD_LANES + lane] = values[p]


def scatter_columns(Pattern pattern, const real[::1] values, Py_ssize_t first_block, real[:, :, ::1] tiles):
    """``tiles[panel, i, lane] = matrix[i, first_block * block + 64 panel + lane]``, zero elsewhere."""
    cdef Py_ssize_t n_rows = pattern.c.n_rows, q, lanes, i
    cdef int64_t p, block = pattern.c.block
    cdef Py_ssize_t n_asked = (tiles.shape[0] * SUBQUAD_LANES + block - 1) // block, last_block
    cdef Py_ssize_t panels = (pattern.c.n_columns + SUBQUAD_LANES - 1) // SUBQUAD_LANES
    pattern.check_values(values.shape[0])
    pattern.check_block_range(first_block, n_asked)
    last_block = first_block + n_asked
    expected = min(last_block * (block // SUBQUAD_LANES), panels) - first_block * (block // SUBQUAD_LANES)
    if tiles.shape[0] != expected or tiles.shape[1] != n_rows or tiles.shape[2] != SUBQUAD_LANES:
        raise ValueError(f"tiles must have shape ({expected}, {n_rows}, {SUBQUAD_LANES}).")
    if not tiles.shape[0] or not n_rows:
        return
    with nogil:
        memset(&tiles[0, 0, 0], 0, tiles.shape[0] * n_rows * SUBQUAD_LANES * sizeof(real))
        for q in range(first_block * n_rows, last_block * n_rows):
            i = pattern.row_of(q)
            lanes = (q // n_rows - first_block) * block
            for p in range(pattern.start[q], pattern.start[q + 1]):
                tiles[(lanes + pattern.local[p]) // SUBQUAD_LANES, i, pattern.local[p] % SUBQUAD_LANES] = values[p]


def scale_rows(Pattern pattern, const real[::1] values, const real[::1] factors, real[::1] out):
    """``out = values * factors[row]``."""
    cdef Py_ssize_t q, p
    cdef real factor
    pattern.check_values(values.shape[0])
    pattern.check_values(out.shape[0])
    if factors.shape[0] != pattern.c.n_rows:
        raise ValueError(f"factors must have one item per row ({pattern.c.n_rows}), got {factors.shape[0]}.")
    with nogil:
        for q in range(pattern.row.shape[0]):
            factor = factors[pattern.row_of(q)]
            for p in range(pattern.start[q], pattern.start[q + 1]):
                out[p] = values[p] * factor


def row_dots(Pattern pattern, const real[::1] left, const real[::1] right):
    """Inner products of the rows of two sparse matrices of one pattern, float64."""
    cdef Py_ssize_t q, p
    cdef double total
    pattern.check_values(left.shape[0])
    pattern.check_values(right.shape[0])
    dots = np.zeros(pattern.c.n_rows)
    cdef double[::1] out = dots
    with nogil:
        for q in range(pattern.row.shape[0]):
            total = 0
            for p in range(pattern.start[q], pattern.start[q + 1]):
                total += <double>left[p] * right[p]
            out[pattern.row_of(q)] += total
    return dots
