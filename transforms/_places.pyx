# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Kernels in C for atlases: which voxels of an image are labelled, where they are, and which are near a point.

Each does what the NumPy code beside its caller does, to the last bit, without Python's lock. Shapes are the
callers' to see to; what an image holds is looked at here.
"""

from libc.math cimport fabs, isfinite, rint

ctypedef fused Voxel:
    unsigned char
    short
    unsigned short
    int
    long
    float
    double

ctypedef fused Chance:
    unsigned char
    short
    unsigned short
    int
    float
    double


cdef inline long label_of(Voxel value, long largest) noexcept nogil:
    """Region id that a voxel holds, 0 for none; -1 where NumPy's slower steps are to tell what it is."""
    cdef double rounded
    cdef long label
    if Voxel is double:
        rounded = rint(value)
        if not isfinite(value) or fabs(rounded - value) > 1e-8 + 1e-5 * fabs(value):  # numpy.isclose
            return -1
        return <long>rounded if 0 <= rounded <= largest else -1
    elif Voxel is float:
        if not 0 <= value <= largest:
            return -1
        label = <long>value
        return label if label <= largest and value == <float>label else -1
    else:
        return <long>value if 0 <= value <= largest else -1


cdef inline bint is_empty(const Voxel[:, :, ::1] values, Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    """Whether all are 0 along the axis that lies in memory: told for many voxels at once."""
    cdef Py_ssize_t c
    cdef int some = 0
    for c in range(values.shape[2]):
        some |= values[a, b, c] != 0
    return not some


cdef bint count_rows(
    const Voxel[:, :, ::1] values, const long[::1] row_steps, long largest, long[::1] counts
) noexcept nogil:
    cdef Py_ssize_t a, b, c
    cdef long label
    for a in range(values.shape[0]):
        for b in range(values.shape[1]):
            if is_empty(values, a, b):
                continue
            for c in range(values.shape[2]):
                if values[a, b, c] != 0:
                    label = label_of(values[a, b, c], largest)
                    if label < 0:
                        return False
                    if label > 0:
                        counts[a * row_steps[0] + b * row_steps[1] + c * row_steps[2]] += 1
    return True


def count_labelled(
    const Voxel[:, :, ::1] values, const long[::1] row_steps, long largest, long[::1] counts
):
    """Count the labelled voxels of each row along the image's last axis; False if a value is no plain id.

    `values` are in the order in which they lie in memory; `row_steps` tells how many rows on a step along each of
    its axes leads.
    """
    cdef bint plain
    with nogil:
        plain = count_rows(values, row_steps, largest, counts)
    return plain


def gather_labelled(
    const Voxel[:, :, ::1] values,
    const long[::1] row_steps,
    const long[::1] node_steps,
    long largest,
    long[::1] places,
    long[::1] nodes,
    long[::1] labels,
):
    """Put the flat index and the label of each labelled voxel to its row's next place, which moves on."""
    cdef Py_ssize_t a, b, c
    cdef long label, row, place
    with nogil:
        for a in range(values.shape[0]):
            for b in range(values.shape[1]):
                if is_empty(values, a, b):
                    continue
                for c in range(values.shape[2]):
                    if values[a, b, c] != 0:
                        label = label_of(values[a, b, c], largest)
                        row = a * row_steps[0] + b * row_steps[1] + c * row_steps[2]
                        place = places[row]
                        if label > 0 and place < nodes.shape[0]:  # a mapped file may change meanwhile
                            nodes[place] = a * node_steps[0] + b * node_steps[1] + c * node_steps[2]
                            labels[place] = label
                            places[row] = place + 1


def place_nodes(
    const long[::1] nodes,
    const double[::1] first,
    const double[::1] second,
    const double[::1] third,
    const long[::1] columns,
    double[:, ::1] coordinates,
):
    """Coordinates of voxels by flat index (C order), from those of the planes across each axis of the image.

    The index along an axis decides one coordinate: `columns` tells which.
    """
    cdef Py_ssize_t n
    cdef long size = third.shape[0], n_second = second.shape[0], start = -size, row = 0, i = 0, j = 0
    with nogil:
        for n in range(nodes.shape[0]):
            if not start <= nodes[n] < start + size:
                row = nodes[n] // size
                start = row * size
                i = row // n_second
                j = row % n_second
            coordinates[n, columns[0]] = first[i]
            coordinates[n, columns[1]] = second[j]
            coordinates[n, columns[2]] = third[nodes[n] - start]


def round_places(const double[:, ::1] places, double[:, ::1] rounded):
    """Coordinates to 1e-6 mm; no zero is below 0."""
    cdef Py_ssize_t n, axis
    with nogil:
        for n in range(places.shape[0]):
            for axis in range(places.shape[1]):
                rounded[n, axis] = rint(places[n, axis] * 1e6) / 1e6 + 0.0


def add_up(
    const long[::1] labels,
    const double[:, ::1] coordinates,
    const long[::1] rows,
    long[::1] sizes,
    double[:, ::1] sums,
):
    """Nodes of each region and the sums of their coordinates; `rows` are the regions' by id."""
    cdef Py_ssize_t n, row
    with nogil:
        for n in range(labels.shape[0]):
            row = rows[labels[n]]
            sizes[row] += 1
            sums[row, 0] += coordinates[n, 0]
            sums[row, 1] += coordinates[n, 1]
            sums[row, 2] += coordinates[n, 2]


def find_box(const long[::1] nodes, long n_second, long size, long[::1] low, long[::1] high):
    """First and last index, along each axis of the image, of voxels by flat index."""
    cdef Py_ssize_t n
    cdef long start = -size, row = 0, i = 0, j = 0, k
    with nogil:
        for n in range(nodes.shape[0]):
            if not start <= nodes[n] < start + size:
                row = nodes[n] // size
                start = row * size
                i = row // n_second
                j = row % n_second
                low[0] = min(low[0], i)
                high[0] = max(high[0], i)
                low[1] = min(low[1], j)
                high[1] = max(high[1], j)
            k = nodes[n] - start
            low[2] = min(low[2], k)
            high[2] = max(high[2], k)


def fill_box(
    const long[::1] nodes, long n_second, long size, const long[::1] low, int[:, :, ::1] lookup
):
    """Number the voxels in the box that `find_box` has found."""
    cdef Py_ssize_t n
    cdef long start = -size, row = 0, i = 0, j = 0
    with nogil:
        for n in range(nodes.shape[0]):
            if not start <= nodes[n] < start + size:
                row = nodes[n] // size
                start = row * size
                i = row // n_second - low[0]
                j = row % n_second - low[1]
            lookup[i, j, nodes[n] - start - low[2]] = n


def nodes_within(
    const double[:, ::1] points,
    const long[:, ::1] centres,
    const long[:, ::1] offsets,
    const long[::1] low,
    const int[:, :, ::1] lookup,
    const double[:, ::1] coordinates,
    double limit,
    long[::1] sample,
    long[::1] node,
    double[::1] squared,
):
    """How many pairs of a point and a node, `offsets` around the point's voxel, are no farther than `limit` mm^2."""
    cdef Py_ssize_t n, m, found = 0
    cdef long i, j, k
    cdef int here
    cdef double x, y, z, distance
    with nogil:
        for n in range(points.shape[0]):
            for m in range(offsets.shape[0]):
                i = centres[n, 0] + offsets[m, 0] - low[0]
                j = centres[n, 1] + offsets[m, 1] - low[1]
                k = centres[n, 2] + offsets[m, 2] - low[2]
                if not (0 <= i < lookup.shape[0] and 0 <= j < lookup.shape[1] and 0 <= k < lookup.shape[2]):
                    continue
                here = lookup[i, j, k]
                if not 0 <= here < coordinates.shape[0]:
                    continue
                x = points[n, 0] - coordinates[here, 0]
                y = points[n, 1] - coordinates[here, 1]
                z = points[n, 2] - coordinates[here, 2]
                distance = x * x + y * y + z * z
                if distance <= limit:
                    sample[found] = n
                    node[found] = here
                    squared[found] = distance
                    found += 1
    return found


def take_larger(const Chance[::1] chances, Chance[::1] best, int[::1] region, int number):
    """Where a voxel's chance is larger than the best so far, the region is `number`; False if one is not finite."""
    cdef Py_ssize_t n
    cdef bint finite = True
    with nogil:
        for n in range(chances.shape[0]):
            if Chance is float or Chance is double:
                finite &= isfinite(chances[n]) != 0
            if chances[n] > best[n]:
                best[n] = chances[n]
                region[n] = number
    return finite
