# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Kernels of `transforms.analyses` and of donors' medians in `transforms.aggregate`.

Each does what the NumPy code beside its caller does, to the last bit, without Python's lock. Shapes are the callers'
to see to.
"""

cdef extern from *:
    """
    #include <math.h>

    /* Loops are compiled for several processors, and the one at hand chooses when the module is loaded. */
    #if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__)
    #define FOR_EACH_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default")))
    #else
    #define FOR_EACH_PROCESSOR
    #endif

    #define LANES 8

    static inline double ahba_distance(double product, double square, double own)
    {
        double squared = (own + square) - 2.0 * product;
        return sqrt(squared < 0.0 ? 0.0 : squared);
    }

    /* Distances of a point to others, from `first` on: added to each of theirs; their sum by transforms.lanes. */
    FOR_EACH_PROCESSOR static double ahba_distances(
        const double *restrict products, const double *restrict squares, double own,
        double *restrict others, Py_ssize_t first, Py_ssize_t n)
    {
        double lanes[LANES] = {0.0}, found[LANES];
        Py_ssize_t i = first;
        for (; i < n && i % LANES; i++) {
            double distance = ahba_distance(products[i], squares[i], own);
            others[i] += distance;
            lanes[i % LANES] += distance;
        }
        for (; i + LANES <= n; i += LANES) {
            for (int lane = 0; lane < LANES; lane++)
                found[lane] = ahba_distance(products[i + lane], squares[i + lane], own);
            for (int lane = 0; lane < LANES; lane++)
                others[i + lane] += found[lane];
            for (int lane = 0; lane < LANES; lane++)
                lanes[lane] += found[lane];
        }
        for (; i < n; i++) {
            double distance = ahba_distance(products[i], squares[i], own);
            others[i] += distance;
            lanes[i % LANES] += distance;
        }
        return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
    }
    """
    double ahba_distances(const double *, const double *, double, double *, Py_ssize_t, Py_ssize_t) nogil


def add_distances(
    const double[:, ::1] products,
    const double[::1] squares,
    Py_ssize_t start,
    const Py_ssize_t[::1] starts,
    double[:, ::1] sums,
):
    """Add distances between points, `start` and those after it, and all points after each to sums (group, point).

    Points are in order of their groups, `starts[g]` to `starts[g + 1]`; `products` are those of the former with all
    from `start` on, `squares` those of all points.
    """
    cdef Py_ssize_t row, point, group, own = 0, first, base, n_groups = sums.shape[0]
    with nogil:
        for row in range(products.shape[0]):
            point = start + row
            while starts[own + 1] <= point:
                own += 1
            for group in range(own, n_groups):
                base = max(starts[group], start)
                first = max(starts[group], point + 1)
                sums[group, point] += ahba_distances(
                    &products[row, 0] + (base - start),
                    &squares[0] + base,
                    squares[point],
                    &sums[own, 0] + base,
                    first - base,
                    starts[group + 1] - base,
                )
