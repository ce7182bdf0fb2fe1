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


cdef unsigned long long _low_bits(Py_ssize_t size) noexcept nogil:
    """As many ones as the numbers 0..size need."""
    cdef unsigned long long low = 0
    while low < <unsigned long long>size:
        low = 2 * low + 1
    return low


# Averages -----------------------------------------------------------------------------------------------------


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
