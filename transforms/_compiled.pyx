# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Kernels in C: each does what the NumPy code beside its caller does, to the last bit, without Python's lock.

Shapes are the callers' to see to; what an index array holds is not looked at here.
"""


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
