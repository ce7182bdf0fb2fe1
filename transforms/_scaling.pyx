# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Kernels of `transforms.scaling`: fitting to a matrix's rows, and functions of its values.

Each does what the NumPy code beside its caller does, to the last bit, without Python's lock: nothing here is
summed in an order, or raised to a power in a way, that depends on the machine.

Shapes are the callers' to see to. Parameters are of each row, shape (rows, 1), or of each column, (1, columns).
"""

from libc.stdlib cimport free, malloc

cdef extern from *:
    """
    #include <math.h>
    #include <stdint.h>
    #include <stdlib.h>
    
    #include <string.h>

    /* Loops are compiled for several processors, and the one at hand chooses when the module is loaded. */
    #if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__)
    #define FOR_EACH_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default")))
    #else
    #define FOR_EACH_PROCESSOR
    #endif

    #if defined(__GNUC__)
    #define AHBA_SOON(address) __builtin_prefetch(address)
    #else
    #define AHBA_SOON(address)
    #endif

    #define LANES 8

    /* transforms.exponential.exponential, one value. */
    static inline double ahba_exp(double x)
    {
        double inside = x < -708.0 ? -708.0 : x;
        inside = inside > 709.0 ? 709.0 : inside;
        double shifted = inside * 1.4426950408889634 + 6755399441055744.0;
        double whole = shifted - 6755399441055744.0;
        double rest = inside - whole * 0.6931471803691238;
        rest = rest - whole * 1.9082149292705877e-10;
        double sum = 1.0 / 479001600.0;
        sum = sum * rest + 1.0 / 39916800.0;
        sum = sum * rest + 1.0 / 3628800.0;
        sum = sum * rest + 1.0 / 362880.0;
        sum = sum * rest + 1.0 / 40320.0;
        sum = sum * rest + 1.0 / 5040.0;
        sum = sum * rest + 1.0 / 720.0;
        sum = sum * rest + 1.0 / 120.0;
        sum = sum * rest + 1.0 / 24.0;
        sum = sum * rest + 1.0 / 6.0;
        sum = sum * rest + 0.5;
        sum = sum * rest + 1.0;
        sum = sum * rest + 1.0;
        uint64_t bits;
        double power;
        memcpy(&bits, &shifted, sizeof bits);
        bits = (bits + 1023) << 52;
        memcpy(&power, &bits, sizeof power);
        double result = sum * power;
        return x > 709.0 ? INFINITY : result;
    }

    FOR_EACH_PROCESSOR static void ahba_logistic_of_row(
        const double *restrict x, double *restrict out, Py_ssize_t n, double centre, double per_scale)
    {
        for (Py_ssize_t i = 0; i < n; i++)
            out[i] = 1.0 / (ahba_exp((centre - x[i]) * per_scale) + 1.0);
    }

    FOR_EACH_PROCESSOR static void ahba_scaled_logistic_of_row(
        const double *restrict x, double *restrict out, Py_ssize_t n,
        double centre, double per_scale, double low, double width)
    {
        for (Py_ssize_t i = 0; i < n; i++)
            out[i] = (1.0 / (ahba_exp((centre - x[i]) * per_scale) + 1.0) - low) / width;
    }

    FOR_EACH_PROCESSOR static void ahba_logistic_by_column(
        const double *restrict x, double *restrict out, Py_ssize_t n,
        const double *restrict centre, const double *restrict per_scale)
    {
        for (Py_ssize_t i = 0; i < n; i++)
            out[i] = 1.0 / (ahba_exp((centre[i] - x[i]) * per_scale[i]) + 1.0);
    }

    FOR_EACH_PROCESSOR static void ahba_scaled_logistic_by_column(
        const double *restrict x, double *restrict out, Py_ssize_t n, const double *restrict centre,
        const double *restrict per_scale, const double *restrict low, const double *restrict width)
    {
        for (Py_ssize_t i = 0; i < n; i++)
            out[i] = (1.0 / (ahba_exp((centre[i] - x[i]) * per_scale[i]) + 1.0) - low[i]) / width[i];
    }

    FOR_EACH_PROCESSOR static void ahba_linear_of_row(
        const double *restrict x, double *restrict out, Py_ssize_t n, double centre, double scale)
    {
        for (Py_ssize_t i = 0; i < n; i++)
            out[i] = (x[i] - centre) / scale;
    }

    FOR_EACH_PROCESSOR static void ahba_linear_by_column(
        const double *restrict x, double *restrict out, Py_ssize_t n,
        const double *restrict centre, const double *restrict scale)
    {
        for (Py_ssize_t i = 0; i < n; i++)
            out[i] = (x[i] - centre[i]) / scale[i];
    }

    static double ahba_logistic(double x, double centre, double per_scale)
    {
        return 1.0 / (ahba_exp((centre - x) * per_scale) + 1.0);
    }

    /* transforms.scaling.quantile, between two sorted values. */
    static double ahba_between(double low, double high, double share)
    {
        return share < 0.5 ? low + (high - low) * share : high - (high - low) * (1.0 - share);
    }

    /* transforms.scaling.scaled_robust_sigmoid_of: median, scale, low and width of a sorted row. */
    static void ahba_robust_sigmoid(
        const double *ordered, const Py_ssize_t *places, const double *shares, double normal_iqr, double *numbers)
    {
        double first = ahba_between(ordered[places[4]], ordered[places[5]], shares[0]);
        double third = ahba_between(ordered[places[6]], ordered[places[7]], shares[1]);
        double centre = (ordered[places[2]] + ordered[places[3]]) / 2.0 + 0.0;
        double scale = (third - first + 0.0) / normal_iqr;
        numbers[0] = centre;
        numbers[1] = scale;
        numbers[2] = scale != 0.0 ? ahba_logistic(ordered[places[0]], centre, 1.0 / scale) : NAN;
        numbers[3] = ahba_logistic(ordered[places[1]], centre, 1.0 / scale) - numbers[2];
    }

    /* transforms.lanes.lane_sum. */
    static inline double ahba_of_lanes(const double *lanes)
    {
        return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
    }

    FOR_EACH_PROCESSOR static double ahba_sum(const double *x, Py_ssize_t n)
    {
        double lanes[LANES] = {0.0};
        Py_ssize_t i = 0;
        for (; i + LANES <= n; i += LANES)
            for (int lane = 0; lane < LANES; lane++)
                lanes[lane] += x[i + lane];
        for (int lane = 0; i + lane < n; lane++)
            lanes[lane] += x[i + lane];
        return ahba_of_lanes(lanes);
    }

    FOR_EACH_PROCESSOR static double ahba_sum_of_squares(const double *x, Py_ssize_t n, double mean)
    {
        double lanes[LANES] = {0.0};
        Py_ssize_t i = 0;
        for (; i + LANES <= n; i += LANES)
            for (int lane = 0; lane < LANES; lane++)
                lanes[lane] += (x[i + lane] - mean) * (x[i + lane] - mean);
        for (int lane = 0; i + lane < n; lane++)
            lanes[lane] += (x[i + lane] - mean) * (x[i + lane] - mean);
        return ahba_of_lanes(lanes);
    }

    typedef double ahba_lanes __attribute__((vector_size(8 * LANES), aligned(8), may_alias));
    typedef int64_t ahba_masks __attribute__((vector_size(8 * LANES), aligned(8), may_alias));

    static inline __attribute__((always_inline)) void ahba_exchange(double *one, double *other)
    {
        ahba_lanes a = *(ahba_lanes *)one, b = *(ahba_lanes *)other;
        ahba_masks less = a < b, of_a = (ahba_masks)a, of_b = (ahba_masks)b;
        *(ahba_lanes *)one = (ahba_lanes)((less & of_a) | (~less & of_b));
        *(ahba_lanes *)other = (ahba_lanes)((less & of_b) | (~less & of_a));
    }

    /* Sort each of 8 columns: Batcher's merge exchange (Knuth 5.2.2, algorithm M), which compares the same places
       whatever the values are. */
    FOR_EACH_PROCESSOR static void ahba_sort_lanes(double *lanes, Py_ssize_t n)
    {
        Py_ssize_t top = 1;
        while (2 * top < n)
            top *= 2;
        for (Py_ssize_t p = n > 1 ? top : 0; p > 0; p /= 2) {
            Py_ssize_t r = 0, d = p;
            for (Py_ssize_t q = top;; q /= 2) {
                for (Py_ssize_t i = 0; i < n - d; i++)
                    if ((i & p) == r)
                        ahba_exchange(lanes + LANES * i, lanes + LANES * (i + d));
                if (q == p)
                    break;
                d = q - p;
                r = p;
            }
        }
    }

    #define FEW 16  /* measured: 8 and 32 take longer */

    /* Values at some places of the order of a row's members: how many members are among the next few in the order of
       all is counted first, and only where a place is among them is it looked for, without branches. */
    static void ahba_pick(
        const double *x, const uint16_t *order, int n, const uint8_t *is_member,
        const Py_ssize_t *places, Py_ssize_t n_places, double *picked)
    {
        int before = 0;
        Py_ssize_t at = 0;
        for (int i = 0; i < n; i += 8)
            AHBA_SOON(x + i);
        for (int first = 0; first < n && at < n_places; first += FEW) {
            int end = first + FEW < n ? first + FEW : n, inside = 0;
            for (int i = first; i < end; i++)
                inside += is_member[order[i]];
            for (; at < n_places && places[at] < before + inside; at++) {
                int seen = before, place = first;
                for (int i = first; i < end; i++) {
                    seen += is_member[order[i]];
                    place += seen <= places[at];
                }
                picked[at] = x[order[place]];
            }
            before += inside;
        }
    }

    static int ahba_compare(const void *one, const void *other)
    {
        double a = *(const double *)one, b = *(const double *)other;
        return (a > b) - (a < b);
    }

    static double ahba_middle(const double *sorted, Py_ssize_t n, Py_ssize_t step)
    {
        return n ? (sorted[(n - 1) / 2 * step] + sorted[n / 2 * step]) / 2.0 + 0.0 : NAN;
    }

    /* Median of what is a number. */
    static double ahba_median_of_present(const double *x, Py_ssize_t n, double *copy)
    {
        Py_ssize_t present = 0;
        for (Py_ssize_t i = 0; i < n; i++)
            if (x[i] == x[i])
                copy[present++] = x[i];
        qsort(copy, (size_t)present, sizeof *copy, ahba_compare);
        return ahba_middle(copy, present, 1);
    }
    """
    ctypedef unsigned short uint16_t
    ctypedef unsigned char uint8_t
    void ahba_pick(
        const double *, const uint16_t *, int, const uint8_t *, const Py_ssize_t *, Py_ssize_t, double *) nogil
    void ahba_sort_lanes(double *, Py_ssize_t) nogil
    double ahba_middle(const double *, Py_ssize_t, Py_ssize_t) nogil
    double ahba_median_of_present(const double *, Py_ssize_t, double *) nogil
    void ahba_logistic_of_row(const double *, double *, Py_ssize_t, double, double) nogil
    void ahba_scaled_logistic_of_row(const double *, double *, Py_ssize_t, double, double, double, double) nogil
    void ahba_logistic_by_column(const double *, double *, Py_ssize_t, const double *, const double *) nogil
    void ahba_scaled_logistic_by_column(
        const double *, double *, Py_ssize_t, const double *, const double *, const double *, const double *) nogil
    void ahba_linear_of_row(const double *, double *, Py_ssize_t, double, double) nogil
    void ahba_linear_by_column(const double *, double *, Py_ssize_t, const double *, const double *) nogil
    void ahba_robust_sigmoid(const double *, const Py_ssize_t *, const double *, double, double *) nogil
    double ahba_sum(const double *, Py_ssize_t) nogil
    double ahba_sum_of_squares(const double *, Py_ssize_t, double) nogil
    double sqrt(double) nogil
    double NAN


# Functions of a value -----------------------------------------------------------------------------------------


def logistic(
    const double[:, ::1] values, const double[:, ::1] centre, const double[:, ::1] per_scale, double[:, ::1] out
):
    """1 / (exp((centre - x) * per_scale) + 1)."""
    cdef Py_ssize_t row, n = values.shape[1]
    cdef bint by_column = _is_by_column(values, centre)
    if n == 0:
        return
    with nogil:
        for row in range(values.shape[0]):
            if by_column:
                ahba_logistic_by_column(&values[row, 0], &out[row, 0], n, &centre[0, 0], &per_scale[0, 0])
            else:
                ahba_logistic_of_row(&values[row, 0], &out[row, 0], n, centre[row, 0], per_scale[row, 0])


def scaled_logistic(
    const double[:, ::1] values,
    const double[:, ::1] centre,
    const double[:, ::1] per_scale,
    const double[:, ::1] low,
    const double[:, ::1] width,
    double[:, ::1] out,
):
    """(1 / (exp((centre - x) * per_scale) + 1) - low) / width."""
    cdef Py_ssize_t row, n = values.shape[1]
    cdef bint by_column = _is_by_column(values, centre)
    if n == 0:
        return
    with nogil:
        for row in range(values.shape[0]):
            if by_column:
                ahba_scaled_logistic_by_column(
                    &values[row, 0], &out[row, 0], n, &centre[0, 0], &per_scale[0, 0], &low[0, 0], &width[0, 0]
                )
            else:
                ahba_scaled_logistic_of_row(
                    &values[row, 0], &out[row, 0], n, centre[row, 0], per_scale[row, 0], low[row, 0], width[row, 0]
                )


def linear(
    const double[:, ::1] values, const double[:, ::1] centre, const double[:, ::1] scale, double[:, ::1] out
):
    """(x - centre) / scale."""
    cdef Py_ssize_t row, n = values.shape[1]
    cdef bint by_column = _is_by_column(values, centre)
    if n == 0:
        return
    with nogil:
        for row in range(values.shape[0]):
            if by_column:
                ahba_linear_by_column(&values[row, 0], &out[row, 0], n, &centre[0, 0], &scale[0, 0])
            else:
                ahba_linear_of_row(&values[row, 0], &out[row, 0], n, centre[row, 0], scale[row, 0])


cdef bint _is_by_column(const double[:, ::1] values, const double[:, ::1] parameter):
    return parameter.shape[0] == 1 and parameter.shape[1] == values.shape[1]


# What is known of a row ---------------------------------------------------------------------------------------


def mean_and_std(const double[:, ::1] values, double[:, ::1] mean, double[:, ::1] std):
    """Mean and standard deviation (ddof 1) of each row, NaN where all are equal."""
    cdef Py_ssize_t row, n_equal, n = values.shape[1]
    with nogil:
        for row in range(values.shape[0]):
            mean[row, 0] = ahba_sum(&values[row, 0], n) / n
            std[row, 0] = sqrt(ahba_sum_of_squares(&values[row, 0], n, mean[row, 0]) / (n - 1))
            n_equal = 1
            while n_equal < n and values[row, n_equal] == values[row, 0]:
                n_equal += 1
            if n_equal == n:
                std[row, 0] = NAN


def pick(
    const double[:, ::1] values,
    const unsigned short[:, ::1] order,
    const unsigned char[::1] is_member,
    const Py_ssize_t[::1] places,
    double[:, ::1] picked,
):
    """Values at places, ascending, of each row's members once they are sorted; `order` is that of all its values."""
    cdef Py_ssize_t row, n = values.shape[1], n_places = places.shape[0]
    if n == 0 or n_places == 0:
        return
    with nogil:
        for row in range(values.shape[0]):
            ahba_pick(&values[row, 0], &order[row, 0], n, &is_member[0], &places[0], n_places, &picked[row, 0])


def robust_sigmoid(
    const double[:, ::1] ordered,
    const Py_ssize_t[::1] places,
    const double[::1] shares,
    double normal_iqr,
    double[:, :, ::1] fitted,
):
    """Median and scale of each sorted row, and where `fitted` has room what its ends become: low and width.

    `places` are the columns of the ends, of the two values around the median and of those around either quartile, and
    `shares` how far from the lower to the higher one the quartiles are.
    """
    cdef Py_ssize_t row, number
    cdef double numbers[4]
    if ordered.shape[1] == 0:
        return
    with nogil:
        for row in range(ordered.shape[0]):
            ahba_robust_sigmoid(&ordered[row, 0], &places[0], &shares[0], normal_iqr, numbers)
            for number in range(fitted.shape[0]):
                fitted[number, row, 0] = numbers[number]


# Columns scaled on their way --------------------------------------------------------------------------------


cdef enum:
    LINEAR = 0
    LOGISTIC = 1
    SCALED_LOGISTIC = 2
    AS_THEY_ARE = 3
    ROWS = 8  # at once


cdef struct Part:
    const double *values
    Py_ssize_t width  # of the values
    int function
    const double *parameters
    Py_ssize_t n_parameters
    Py_ssize_t group_step  # from the parameters of a group to those of the next
    const Py_ssize_t *columns
    const Py_ssize_t *places
    Py_ssize_t n_columns
    const Py_ssize_t *groups
    Py_ssize_t n_groups
    bint in_place  # places follow each other


cdef Part _part_of(
    const double[:, ::1] values,
    int function,
    const double[:, :, ::1] parameters,
    const Py_ssize_t[::1] columns,
    const Py_ssize_t[::1] places,
    const Py_ssize_t[::1] groups,
):
    """Where the arrays lie, which the caller holds."""
    cdef Part part
    cdef Py_ssize_t n = columns.shape[0]
    part.values = &values[0, 0] if values.shape[0] and values.shape[1] else NULL
    part.width = values.shape[1]
    part.function = function
    part.parameters = &parameters[0, 0, 0] if parameters.shape[0] and parameters.shape[1] else NULL
    part.n_parameters = parameters.shape[2]
    part.group_step = parameters.shape[1] * parameters.shape[2]
    part.columns = &columns[0] if n else NULL
    part.places = &places[0] if n else NULL
    part.n_columns = n
    part.groups = &groups[0]
    part.n_groups = groups.shape[0] - 1
    part.in_place = part.n_groups == 1 and n > 0 and places[n - 1] - places[0] == n - 1
    return part


def scaled_columns(
    const double[:, ::1] values,
    int function,
    const double[:, :, ::1] parameters,
    const Py_ssize_t[::1] columns,
    const Py_ssize_t[::1] places,
    const Py_ssize_t[::1] groups,
    double[:, ::1] out,
):
    """Columns of a matrix, each row of each group of them scaled in its own way.

    `columns` has the groups one after the other, from `groups[g]` to `groups[g + 1]`, and `places` where they go in
    `out`, ascending in each group; nothing is written anywhere else. `parameters` has, for each group, those of
    `function` for each row.
    """
    cdef Part part = _part_of(values, function, parameters, columns, places, groups)
    cdef Py_ssize_t row, n_rows = values.shape[0] if columns.shape[0] else 0
    cdef double *few = _numbers(2 * part.n_columns)
    with nogil:
        for row in range(n_rows):
            _scaled_row(&part, row, row, few, &out[row, 0])
    free(few)


def regions_of_scaled(list parts, const Py_ssize_t[::1] starts, bint medians, double[:, ::1] table):
    """Mean or median of each row over each region: what is in `places` from `starts[r]` to `starts[r + 1]`.

    Each of `parts` is what `scaled_columns` takes, all of as many rows; they share the places among them. NaN are left
    out, as are places where nothing goes.
    """
    cdef Py_ssize_t n_places = starts[starts.shape[0] - 1], n_parts = len(parts), most = 0
    cdef Py_ssize_t batch, first, row, n_rows, number
    cdef Part *several = <Part *>malloc((n_parts + 1) * sizeof(Part))
    if several == NULL:
        raise MemoryError
    try:
        for number, (values, function, parameters, columns, places, groups) in enumerate(parts):
            several[number] = _part_of(values, function, parameters, columns, places, groups)
            most = max(most, several[number].n_columns)
    except BaseException:
        free(several)
        raise
    cdef double *few = _numbers_and_nan(2 * most, 2 * ROWS * n_places)
    cdef double *scaled = few + 2 * most
    with nogil:
        for batch in range((table.shape[0] + ROWS - 1) // ROWS):
            first = batch * ROWS
            n_rows = min(<Py_ssize_t>ROWS, table.shape[0] - first)
            for row in range(n_rows):
                for number in range(n_parts):
                    _scaled_row(&several[number], first + row, first + row, few, scaled + row * n_places)
            _averages_of_rows(scaled, n_rows, n_places, starts, medians, table, first)
    free(few)
    free(several)


def regions_by_order(
    const double[:, ::1] values,
    const unsigned short[:, ::1] order,
    const unsigned char[:, ::1] is_member,
    const Py_ssize_t[:, ::1] wanted,
    const Py_ssize_t[:, ::1] roles,
    const double[:, ::1] shares,
    double normal_iqr,
    int function,
    double[:, :, ::1] fitted,
    const Py_ssize_t[::1] columns,
    const Py_ssize_t[::1] places,
    const Py_ssize_t[::1] groups,
    const Py_ssize_t[::1] starts,
    bint medians,
    double[:, ::1] table,
):
    """`pick`, `robust_sigmoid` and `regions_of_scaled` in one: a few rows at a time, which stay in the cache.

    Of each group, `is_member` tells its columns, `wanted` the places to pick (ascending, the last one among them), and
    `roles` which of these are the `places` of `robust_sigmoid`. `fitted`, (group, 1, number), is written over.
    """
    cdef Py_ssize_t batch, first, row, n_rows, group, n = values.shape[1], n_places = starts[starts.shape[0] - 1]
    cdef Py_ssize_t number, n_wanted = wanted.shape[1]
    cdef double numbers[4]
    cdef double *picked = _numbers_and_nan(n_wanted + 2 * columns.shape[0], 2 * ROWS * n_places)
    cdef double *few = picked + n_wanted
    cdef double *scaled = few + 2 * columns.shape[0]
    cdef Part part = _part_of(values, function, fitted, columns, places, groups)
    with nogil:
        for batch in range((values.shape[0] + ROWS - 1) // ROWS):
            first = batch * ROWS
            n_rows = min(<Py_ssize_t>ROWS, values.shape[0] - first)
            for row in range(n_rows):
                for group in range(wanted.shape[0]):
                    ahba_pick(
                        &values[first + row, 0], &order[first + row, 0], n, &is_member[group, 0],
                        &wanted[group, 0], n_wanted, picked,
                    )
                    if picked[n_wanted - 1] != picked[n_wanted - 1]:
                        for number in range(n_wanted):
                            picked[number] = NAN
                    ahba_robust_sigmoid(picked, &roles[group, 0], &shares[group, 0], normal_iqr, numbers)
                    numbers[1] = 1.0 / numbers[1]
                    for number in range(fitted.shape[2]):
                        fitted[group, 0, number] = numbers[number]
                _scaled_row(&part, first + row, 0, few, scaled + row * n_places)
            _averages_of_rows(scaled, n_rows, n_places, starts, medians, table, first)
    free(picked)


cdef void _averages_of_rows(
    double *scaled,
    Py_ssize_t n_rows,
    Py_ssize_t n_places,
    const Py_ssize_t[::1] starts,
    bint medians,
    double[:, ::1] table,
    Py_ssize_t first,
) noexcept nogil:
    if medians:
        _medians_of_rows(scaled, n_rows, n_places, starts, scaled + ROWS * n_places, table, first)
    else:
        _means_of_rows(scaled, n_rows, n_places, starts, table, first)


cdef void _medians_of_rows(
    const double *scaled,
    Py_ssize_t n_rows,
    Py_ssize_t n_places,
    const Py_ssize_t[::1] starts,
    double *lanes,
    double[:, ::1] table,
    Py_ssize_t first,
) noexcept nogil:
    """Of several rows side by side, sorted by the same comparisons."""
    cdef Py_ssize_t region, place, row, n
    cdef double totals[ROWS]
    for region in range(table.shape[1]):
        n = starts[region + 1] - starts[region]
        for row in range(ROWS):
            totals[row] = 0.0
        for place in range(n):
            for row in range(ROWS):
                lanes[place * ROWS + row] = scaled[row * n_places + starts[region] + place]
                totals[row] += lanes[place * ROWS + row]
        ahba_sort_lanes(lanes, n)
        for row in range(n_rows):
            if totals[row] == totals[row]:
                table[first + row, region] = ahba_middle(lanes + row, n, ROWS)
        for row in range(n_rows):
            if totals[row] != totals[row]:  # a NaN, or infinities of both signs: where they went, nobody knows
                table[first + row, region] = ahba_median_of_present(
                    scaled + row * n_places + starts[region], n, lanes
                )


cdef void _means_of_rows(
    const double *scaled,
    Py_ssize_t n_rows,
    Py_ssize_t n_places,
    const Py_ssize_t[::1] starts,
    double[:, ::1] table,
    Py_ssize_t first,
) noexcept nogil:
    """Of several rows side by side, as each sum waits for its last addition."""
    cdef Py_ssize_t region, place, row, present
    cdef double totals[ROWS]
    for region in range(table.shape[1]):
        for row in range(ROWS):
            totals[row] = 0.0
        for place in range(starts[region], starts[region + 1]):
            for row in range(ROWS):
                totals[row] += scaled[row * n_places + place]
        for row in range(n_rows):
            present = starts[region + 1] - starts[region]
            if totals[row] != totals[row]:
                present = _add_present(
                    scaled + row * n_places, starts[region], starts[region + 1], &totals[row]
                )
            table[first + row, region] = totals[row] / present


cdef Py_ssize_t _add_present(
    const double *scaled, Py_ssize_t start, Py_ssize_t stop, double *total
) noexcept nogil:
    """Sum, and count, what is a number."""
    cdef Py_ssize_t place, present = 0
    total[0] = 0.0
    for place in range(start, stop):
        if scaled[place] == scaled[place]:
            total[0] += scaled[place]
            present += 1
    return present


cdef double *_numbers_and_nan(Py_ssize_t count, Py_ssize_t n_nan) except NULL:
    """Room for some numbers, and behind it some that are NaN until they are written."""
    cdef Py_ssize_t place
    cdef double *found = _numbers(count + n_nan)
    for place in range(count, count + n_nan):
        found[place] = NAN
    return found


cdef double *_numbers(Py_ssize_t count) except NULL:
    cdef double *found = <double *>malloc((count + 1) * sizeof(double))
    if found == NULL:
        raise MemoryError
    return found


cdef void _scaled_row(
    const Part *part, Py_ssize_t row, Py_ssize_t parameters_row, double *few, double *out
) noexcept nogil:
    """`few` has room for each column twice."""
    cdef Py_ssize_t i, group, start, n
    cdef const double *values = part.values + row * part.width
    cdef const double *of_row
    cdef double *scaled = out + part.places[0] if part.in_place else few + part.n_columns
    if part.function == AS_THEY_ARE:
        for i in range(part.n_columns):
            out[part.places[i]] = values[part.columns[i]]
        return
    for i in range(part.n_columns):
        few[i] = values[part.columns[i]]
    for group in range(part.n_groups):
        start, n = part.groups[group], part.groups[group + 1] - part.groups[group]
        of_row = part.parameters + group * part.group_step + parameters_row * part.n_parameters
        if part.function == LINEAR:
            ahba_linear_of_row(few + start, scaled + start, n, of_row[0], of_row[1])
        elif part.function == LOGISTIC:
            ahba_logistic_of_row(few + start, scaled + start, n, of_row[0], of_row[1])
        else:
            ahba_scaled_logistic_of_row(
                few + start, scaled + start, n, of_row[0], of_row[1], of_row[2], of_row[3]
            )
    if not part.in_place:
        for i in range(part.n_columns):
            out[part.places[i]] = scaled[i]


# Matrices -----------------------------------------------------------------------------------------------------


def turn(const double[:, ::1] block, Py_ssize_t first, double[:, ::1] rows, Py_ssize_t place):
    """Copy columns of a block, from `first` on, to as many rows: its rows become columns, from `place` on."""
    cdef Py_ssize_t row, column
    with nogil:
        for row in range(block.shape[0]):
            for column in range(rows.shape[0]):
                rows[column, place + row] = block[row, first + column]
