# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Kernels in C for choosing probes: taking their rows out of chunks, and what ranks a gene's probes.

Each does what the NumPy code beside its caller does, to the last bit, without Python's lock. Sums over samples are
eight, each of every eighth value, added up at the end: a processor makes several of them at once.

Matrices may be parts of larger ones, but a row's values lie side by side. Shapes are the callers' to see to; what an
index array holds is not looked at here.
"""

from libc.math cimport sqrt
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

ctypedef fused number:
    double
    unsigned char


# Blocks -------------------------------------------------------------------------------------------------------


cdef struct Run:  # columns that lie side by side in a chunk and in the block
    Py_ssize_t chunk  # its number in its row of chunks
    Py_ssize_t first  # column in it
    Py_ssize_t place  # column of the block
    Py_ssize_t size


cdef Py_ssize_t find_runs(
    const Py_ssize_t[::1] chunks, const Py_ssize_t[::1] columns, Run *runs
) noexcept nogil:
    cdef Py_ssize_t column, n_runs = 0
    for column in range(columns.shape[0]):
        if column and chunks[column] == chunks[column - 1] and columns[column] == columns[column - 1] + 1:
            runs[n_runs - 1].size += 1
        else:
            runs[n_runs].chunk = chunks[column]
            runs[n_runs].first = columns[column]
            runs[n_runs].place = column
            runs[n_runs].size = 1
            n_runs += 1
    return n_runs


def copy_cells(
    list chunks,
    Py_ssize_t across,
    const Py_ssize_t[::1] row_chunks,
    const Py_ssize_t[::1] rows,
    const Py_ssize_t[::1] column_chunks,
    const Py_ssize_t[::1] columns,
    number[:, ::1] block,
):
    """Copy some rows and columns of several chunks into a block.

    `chunks` are those of the first row of chunks, `across` of them, then of the second, ...; of each of the block's
    rows and columns: which row or column of chunks it comes from, and where in it.
    """
    cdef Py_ssize_t row, run, chunk, n_runs, n_chunks = len(chunks)
    cdef const number[:, ::1] values
    cdef const number *source
    cdef const number **starts = <const number **>malloc(n_chunks * sizeof(void *))
    cdef Py_ssize_t *widths = <Py_ssize_t *>malloc(n_chunks * sizeof(Py_ssize_t))
    cdef Run *runs = <Run *>malloc(columns.shape[0] * sizeof(Run))
    try:
        if starts == NULL or widths == NULL or runs == NULL:
            raise MemoryError
        for chunk in range(n_chunks):
            values = chunks[chunk]
            starts[chunk] = &values[0, 0]
            widths[chunk] = values.shape[1]
        with nogil:
            n_runs = find_runs(column_chunks, columns, runs)
            for row in range(rows.shape[0]):
                for run in range(n_runs):
                    chunk = row_chunks[row] * across + runs[run].chunk
                    source = starts[chunk] + rows[row] * widths[chunk] + runs[run].first
                    if runs[run].size == 1:
                        block[row, runs[run].place] = source[0]
                    else:
                        memcpy(&block[row, runs[run].place], source, runs[run].size * sizeof(number))
    finally:
        free(starts)
        free(widths)
        free(runs)


def gene_means(const double[:, ::1] block, const Py_ssize_t[::1] starts, double[:, ::1] means):
    """Mean of each gene's rows, from `starts[g]` to `starts[g + 1]`."""
    cdef Py_ssize_t gene, row, column
    cdef double size
    with nogil:
        for gene in range(means.shape[0]):
            size = starts[gene + 1] - starts[gene]
            for column in range(means.shape[1]):
                means[gene, column] = block[starts[gene], column]
            for row in range(starts[gene] + 1, starts[gene + 1]):
                for column in range(means.shape[1]):
                    means[gene, column] += block[row, column]
            if size > 1:
                for column in range(means.shape[1]):
                    means[gene, column] /= size


# Scores -------------------------------------------------------------------------------------------------------


cdef inline double together(const double *parts) noexcept nogil:
    return ((parts[0] + parts[4]) + (parts[2] + parts[6])) + ((parts[1] + parts[5]) + (parts[3] + parts[7]))


cdef inline double added(const double *values, Py_ssize_t size) noexcept nogil:
    cdef double parts[8]
    cdef Py_ssize_t first, k
    for k in range(8):
        parts[k] = 0.0
    for first in range(0, size - 7, 8):
        for k in range(8):
            parts[k] += values[first + k]
    for k in range(size % 8):
        parts[k] += values[size - size % 8 + k]
    return together(parts)


cdef inline double product(const double *one, const double *other, Py_ssize_t size) noexcept nogil:
    cdef double parts[8]
    cdef Py_ssize_t first, k
    for k in range(8):
        parts[k] = 0.0
    for first in range(0, size - 7, 8):
        for k in range(8):
            parts[k] += one[first + k] * other[first + k]
    for k in range(size % 8):
        parts[k] += one[size - size % 8 + k] * other[size - size % 8 + k]
    return together(parts)


cdef inline void centre(const double *values, Py_ssize_t size, double *centred) noexcept nogil:
    cdef Py_ssize_t k
    cdef double mean = added(values, size) / size
    for k in range(size):
        centred[k] = values[k] - mean


def row_means(const double[:, :] values, double[::1] means):
    """Mean of each row."""
    cdef Py_ssize_t row
    with nogil:
        for row in range(values.shape[0]):
            means[row] = added(&values[row, 0], values.shape[1]) / values.shape[1]


def row_squares(const double[:, :] values, double[::1] scratch, double[::1] squares):
    """Sum of the squares of each row's deviations from its mean; `scratch` is as long as a row."""
    cdef Py_ssize_t row, size = values.shape[1]
    with nogil:
        for row in range(values.shape[0]):
            centre(&values[row, 0], size, &scratch[0])
            squares[row] = product(&scratch[0], &scratch[0], size)


def agreements(
    const double[:, :] values, const Py_ssize_t[::1] starts, double[:, ::1] scratch, double[::1] scores
):
    """Mean of (r + 1) / 2 over a gene's rows, for genes of three and more; other rows' scores are left as they are.

    `scratch` has rows for the largest gene, and its last column is for their lengths.
    """
    cdef Py_ssize_t gene, first, n_rows, one, other, size = values.shape[1]
    cdef double correlation, agreement
    with nogil:
        for gene in range(starts.shape[0] - 1):
            first, n_rows = starts[gene], starts[gene + 1] - starts[gene]
            if n_rows < 3:
                continue
            for one in range(n_rows):
                centre(&values[first + one, 0], size, &scratch[one, 0])
                scratch[one, size] = sqrt(product(&scratch[one, 0], &scratch[one, 0], size))
                scores[first + one] = 0.0
            for one in range(n_rows):
                for other in range(one, n_rows):
                    correlation = product(&scratch[one, 0], &scratch[other, 0], size)
                    correlation = correlation / (scratch[one, size] * scratch[other, size])
                    if correlation > 1.0:
                        correlation = 1.0
                    if correlation < -1.0:
                        correlation = -1.0
                    agreement = (correlation + 1.0) / 2.0
                    scores[first + one] += agreement
                    if other != one:
                        scores[first + other] += agreement
            for one in range(n_rows):
                scores[first + one] /= n_rows


# Ranks --------------------------------------------------------------------------------------------------------


cdef inline long long ranked(
    const unsigned long long *order,
    const unsigned char *same,
    bint tied,
    const int *shared,
    Py_ssize_t n_columns,
    int n_shared,
    int *ranks,
) noexcept nogil:
    """Twice the ranks (from 1, the mean at ties) of the shared columns among these, and the sum of their squares."""
    cdef Py_ssize_t place, start, stop
    cdef int member, rank = 0, count
    cdef long long squares = 0
    if not tied:
        for place in range(n_columns):
            member = shared[order[place]]
            rank += 2 * (member != n_shared)
            ranks[member] = rank
        return <long long>rank * (rank // 2 + 1) * (rank + 1) // 3  # rank is twice the last one
    start = 0
    while start < n_columns:
        stop = start + 1
        while stop < n_columns and same[stop] != 0:
            stop += 1
        count = 0
        for place in range(start, stop):
            count += shared[order[place]] != n_shared
        for place in range(start, stop):
            ranks[shared[order[place]]] = 2 * rank + count + 1
        squares += <long long>count * (2 * rank + count + 1) * (2 * rank + count + 1)
        rank += count
        start = stop
    return squares


cdef inline void ranks_multiplied(
    const unsigned long long *order,
    const unsigned char *same,
    bint tied,
    const int *shared,
    Py_ssize_t n_columns,
    int n_shared,
    const int *others,
    long long *product,
    long long *squares,
) noexcept nogil:
    """Sums of the products of such ranks with `others`, of which the last is 0, and of their squares."""
    cdef Py_ssize_t place, start, stop
    cdef int member, rank = 0, count
    cdef long long total = 0, of_group
    squares[0] = 0
    if not tied:
        for place in range(n_columns):
            member = shared[order[place]]
            rank += 2 * (member != n_shared)
            total += <long long>rank * others[member]
        squares[0] = <long long>rank * (rank // 2 + 1) * (rank + 1) // 3
    else:
        start = 0
        while start < n_columns:
            count = 0
            of_group = 0
            stop = start
            while stop < n_columns and (stop == start or same[stop] != 0):
                member = shared[order[stop]]
                count += member != n_shared
                of_group += others[member]
                stop += 1
            total += of_group * (2 * rank + count + 1)
            squares[0] += <long long>count * (2 * rank + count + 1) * (2 * rank + count + 1)
            rank += count
            start = stop
    product[0] = total


def rank_products(
    list orders,
    list sames,
    list tieds,
    const Py_ssize_t[:, ::1] pairs,
    const int[:, :, ::1] shared,
    const int[::1] sizes,
    int[::1] ranks,
    long long[:, :, ::1] sums,
):
    """Of each row and pair of matrices: sums of products of twice the ranks, and of the squares of one's and other's.

    Of each matrix: the columns in the order of each row's values, which of them equal the one before, and rows where
    one does. `shared` tells for each pair, one and other, and column which of the shared ones it is, or their number
    (`sizes`) if it is none; `ranks` is there to be written to, one longer than the largest of these.
    """
    cdef Py_ssize_t matrix, row, pair, one, other, n_rows = sums.shape[0], n_matrices = len(orders)
    cdef const unsigned long long[:, ::1] order
    cdef const unsigned char[:, ::1] same
    cdef const unsigned char[::1] tied
    cdef const unsigned long long **columns = <const unsigned long long **>malloc(n_matrices * sizeof(void *))
    cdef const unsigned char **equal = <const unsigned char **>malloc(n_matrices * sizeof(void *))
    cdef const unsigned char **ties = <const unsigned char **>malloc(n_matrices * sizeof(void *))
    cdef Py_ssize_t *widths = <Py_ssize_t *>malloc(n_matrices * sizeof(Py_ssize_t))
    try:
        if columns == NULL or equal == NULL or ties == NULL or widths == NULL:
            raise MemoryError
        for matrix in range(n_matrices):
            order, same, tied = orders[matrix], sames[matrix], tieds[matrix]
            columns[matrix], equal[matrix], ties[matrix] = &order[0, 0], &same[0, 0], &tied[0]
            widths[matrix] = order.shape[1]
        with nogil:
            for row in range(n_rows):
                for pair in range(pairs.shape[0]):
                    one, other = pairs[pair, 0], pairs[pair, 1]
                    sums[row, pair, 1] = ranked(
                        columns[one] + row * widths[one],
                        equal[one] + row * widths[one],
                        ties[one][row],
                        &shared[pair, 0, 0],
                        widths[one],
                        sizes[pair],
                        &ranks[0],
                    )
                    ranks[sizes[pair]] = 0
                    ranks_multiplied(
                        columns[other] + row * widths[other],
                        equal[other] + row * widths[other],
                        ties[other][row],
                        &shared[pair, 1, 0],
                        widths[other],
                        sizes[pair],
                        &ranks[0],
                        &sums[row, pair, 0],
                        &sums[row, pair, 2],
                    )
    finally:
        free(columns)
        free(equal)
        free(ties)
        free(widths)
