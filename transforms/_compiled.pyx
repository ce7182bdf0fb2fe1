# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Kernels in C: each does what the NumPy code beside its caller does, to the last bit, without Python's lock.

Several threads run them side by side, where NumPy's short steps would have them wait for each other.

Shapes are the callers' to see to; what an index array holds is not looked at here.
"""

from libc.string cimport memcpy


def structure_means(
    const double[:, ::1] expression,
    const Py_ssize_t[::1] members,
    const Py_ssize_t[::1] starts,
    double[:, ::1] means,
):
    """Mean of each structure's samples: `members` from `starts[s]` to `starts[s + 1]`; Kahan's sums."""
    cdef Py_ssize_t row, structure, place
    cdef double total, lost, term, summed
    with nogil:
        for row in range(expression.shape[0]):
            for structure in range(means.shape[1]):
                place = starts[structure]
                total = expression[row, members[place]]
                lost = 0.0
                for place in range(place + 1, starts[structure + 1]):
                    term = expression[row, members[place]] - lost
                    summed = total + term
                    lost = (summed - total) - term
                    total = summed
                means[row, structure] = total / (starts[structure + 1] - starts[structure])


def sortable(const double[:, ::1] values, unsigned long long[:, ::1] keys, unsigned char[::1] untrusted):
    """Keys that sort as the values do, with the column in the lowest bits; marks rows not finite."""
    cdef Py_ssize_t row, column, n_columns = values.shape[1]
    cdef unsigned long long low = _low_bits(n_columns), bits
    cdef double value
    cdef bint finite
    with nogil:
        for row in range(values.shape[0]):
            finite = True
            for column in range(n_columns):
                value = values[row, column] + 0.0  # turns -0 into 0
                memcpy(&bits, &value, sizeof(double))
                finite &= value - value == 0.0
                keys[row, column] = (bits & ~low) | <unsigned long long>column
            untrusted[row] = not finite


def sorted_columns(
    const double[:, ::1] values,
    unsigned long long[:, ::1] keys,
    unsigned char[:, ::1] same,
    unsigned char[::1] tied,
):
    """Columns by ascending value, written over the sorted keys of `sortable`.

    `same` marks, in rows that are `tied`, where a value equals the one before it; other rows of it are left as
    they are. Keys that differ in their lowest bits only are put in order by their values.
    """
    cdef Py_ssize_t row, place, hole, n_columns = keys.shape[1]
    cdef unsigned long long low = _low_bits(n_columns), column
    cdef double value
    cdef bint close
    with nogil:
        for row in range(keys.shape[0]):
            close = False
            for place in range(1, n_columns):
                close |= (keys[row, place] ^ keys[row, place - 1]) <= low
            for place in range(n_columns):
                keys[row, place] &= low
            tied[row] = False
            if not close:
                continue
            for place in range(1, n_columns):
                column = keys[row, place]
                value = values[row, column]
                hole = place
                while hole > 0 and values[row, keys[row, hole - 1]] > value:
                    keys[row, hole] = keys[row, hole - 1]
                    hole -= 1
                keys[row, hole] = column
            for place in range(1, n_columns):
                same[row, place] = values[row, keys[row, place]] == values[row, keys[row, place - 1]]
                tied[row] |= same[row, place]


def shared_ranks(
    const unsigned long long[:, ::1] order,
    const unsigned char[:, ::1] same,
    const unsigned char[::1] tied,
    const int[::1] shared,
    long long[:, ::1] ranks,
    long long[::1] squares,
):
    """Twice the ranks (from 1, the mean at ties) of some columns among these, and the sum of their squares.

    `shared` tells for each column which of the shared ones it is, or their number if it is none; `ranks` has a
    column for each of these and one more, for which there is no use.
    """
    cdef Py_ssize_t row, place, member
    cdef int n_shared = ranks.shape[1] - 1
    cdef long long rank, first
    with nogil:
        for row in range(order.shape[0]):
            rank = 0
            if not tied[row]:
                for place in range(order.shape[1]):
                    member = shared[order[row, place]]
                    rank += 2 * (member != n_shared)
                    ranks[row, member] = rank
                squares[row] = rank * (rank // 2 + 1) * (rank + 1) // 3  # rank is twice the last one
                continue
            first = squares[row] = 0
            member = 0  # where the group of equal values begins
            for place in range(order.shape[1] + 1):
                if place == order.shape[1] or place == 0 or not same[row, place]:
                    squares[row] += _share(order, shared, ranks, row, member, place, first + rank + 1)
                    member, first = place, rank
                if place < order.shape[1]:
                    rank += shared[order[row, place]] != n_shared


cdef inline long long _share(
    const unsigned long long[:, ::1] order,
    const int[::1] shared,
    long long[:, ::1] ranks,
    Py_ssize_t row,
    Py_ssize_t start,
    Py_ssize_t stop,
    long long rank,
) noexcept nogil:
    """Give the columns of a group of equal values their rank; the sum of its squares."""
    cdef Py_ssize_t place
    cdef int n_shared = ranks.shape[1] - 1
    cdef long long squares = 0
    for place in range(start, stop):
        ranks[row, shared[order[row, place]]] = rank
        squares += rank * rank * (shared[order[row, place]] != n_shared)
    return squares


cdef unsigned long long _low_bits(Py_ssize_t size) noexcept nogil:
    """As many ones as the numbers 0..size need."""
    cdef unsigned long long low = 0
    while low < <unsigned long long>size:
        low = 2 * low + 1
    return low


# Scaling: parameters are of each row, shape (rows, 1), or of each column, (1, columns) ------------------------


def centred(
    const double[:, ::1] values, const double[:, ::1] centre, const double[:, ::1] scale, double[:, ::1] out
):
    """(centre - x) / scale."""
    cdef Py_ssize_t row, column
    cdef bint by_column = centre.shape[0] == 1 and centre.shape[1] == values.shape[1]
    cdef double middle, width
    with nogil:
        for row in range(values.shape[0]):
            if by_column:
                for column in range(values.shape[1]):
                    out[row, column] = (centre[0, column] - values[row, column]) / scale[0, column]
            else:
                middle, width = centre[row, 0], scale[row, 0]
                for column in range(values.shape[1]):
                    out[row, column] = (middle - values[row, column]) / width


def logistic(double[:, ::1] exponentials):
    """1 / (1 + e), written over e."""
    cdef Py_ssize_t row, column
    with nogil:
        for row in range(exponentials.shape[0]):
            for column in range(exponentials.shape[1]):
                exponentials[row, column] = 1.0 / (exponentials[row, column] + 1.0)


def scaled_logistic(double[:, ::1] exponentials, const double[:, ::1] low, const double[:, ::1] width):
    """(1 / (1 + e) - low) / width, written over e."""
    cdef Py_ssize_t row, column
    cdef bint by_column = low.shape[0] == 1 and low.shape[1] == exponentials.shape[1]
    cdef double lowest, range_
    with nogil:
        for row in range(exponentials.shape[0]):
            if by_column:
                for column in range(exponentials.shape[1]):
                    exponentials[row, column] = (
                        1.0 / (exponentials[row, column] + 1.0) - low[0, column]
                    ) / width[0, column]
            else:
                lowest, range_ = low[row, 0], width[row, 0]
                for column in range(exponentials.shape[1]):
                    exponentials[row, column] = (1.0 / (exponentials[row, column] + 1.0) - lowest) / range_


# Averages -----------------------------------------------------------------------------------------------------


def region_means(
    const double[:, ::1] values,
    const Py_ssize_t[::1] members,
    const Py_ssize_t[::1] starts,
    double[:, ::1] means,
):
    """Mean of each row over each region's samples, NaN left out: `members` from `starts[r]` to `starts[r + 1]`."""
    cdef Py_ssize_t row, region, place, present
    cdef double total, value
    with nogil:
        for row in range(values.shape[0]):
            for region in range(means.shape[1]):
                total = 0.0
                for place in range(starts[region], starts[region + 1]):
                    total += values[row, members[place]]
                present = starts[region + 1] - starts[region]
                if total != total:
                    total = 0.0
                    present = 0
                    for place in range(starts[region], starts[region + 1]):
                        value = values[row, members[place]]
                        if value == value:
                            total += value
                            present += 1
                means[row, region] = total / present


def add_present(const double[:, ::1] values, double[:, ::1] sums, double[:, ::1] counts):
    """Add the values that are no NaN to sums, and count them."""
    cdef Py_ssize_t row, column
    cdef double value
    with nogil:
        for row in range(values.shape[0]):
            for column in range(values.shape[1]):
                value = values[row, column]
                if value == value:
                    sums[row, column] += value
                    counts[row, column] += 1.0


def put_columns(const double[:, ::1] values, const Py_ssize_t[::1] columns, double[:, ::1] out):
    """Copy each column to its place in another matrix."""
    cdef Py_ssize_t row, column
    with nogil:
        for row in range(values.shape[0]):
            for column in range(columns.shape[0]):
                out[row, columns[column]] = values[row, column]


# Blocks -------------------------------------------------------------------------------------------------------

ctypedef fused number:
    double
    unsigned char


def copy_parts(
    const number[:, ::1] chunk,
    const Py_ssize_t[::1] rows,
    const Py_ssize_t[::1] columns,
    number[:, ::1] block,
    const Py_ssize_t[::1] row_places,
    const Py_ssize_t[::1] column_places,
):
    """Copy some rows and columns of a chunk to their places in a block."""
    cdef Py_ssize_t row, column, place
    with nogil:
        for row in range(rows.shape[0]):
            place = row_places[row]
            for column in range(columns.shape[0]):
                block[place, column_places[column]] = chunk[rows[row], columns[column]]
