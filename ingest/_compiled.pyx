# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Kernels in C: each does what the NumPy code beside its caller does, to the last bit, without Python's lock.

Rows are read from a file and parsed at once. A kernel takes the rows that are plainly right, and stops at the
first that is not: what that one is, or whether the file is no longer what it was, is for the caller to see.
"""

import sys

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcpy, memset
from posix.unistd cimport pread

if sys.byteorder != "little":
    raise ImportError("eight digits are taken at once as little-endian machines have them")

cdef enum:
    MOST_DIGITS = 19  # that an unsigned number of 64 bits always holds
    LONGEST_NUMBER = MOST_DIGITS + 3  # with sign, point and comma
    LONGEST_FLAG = 2
    PADDING = 16  # bytes behind a row that may be looked at

cdef double[MOST_DIGITS + 1] POWERS = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9,
    1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19,
]

# Parses a row of so many bytes, which ends with a comma, into so many values; whether it is plainly right.
ctypedef bint (*Parse)(
    const uint8_t* text, Py_ssize_t length, void* values, Py_ssize_t n_fields
) noexcept nogil


def find_newlines(const uint8_t[::1] text, Py_ssize_t stop, Py_ssize_t most_digits, int64_t[:, ::1] found):
    """Find the newlines of a text from its second byte on, and look at what is around them.

    Parameters
    ----------
    text : (byte,)
        With more than `most_digits` bytes behind `stop`.
    stop, most_digits : int
        Where to end, and how many digits a probe id may have.
    found : (newline, 4)
        Of each newline, as far as there is room: where it is, whether a carriage return is before it, and of
        the probe id behind it the number of digits and the value, or -1 where there is none.

    Returns
    -------
    int
        How many newlines there are.
    """
    cdef Py_ssize_t n_found = 0
    cdef const uint8_t* begin = &text[0]
    cdef const uint8_t* at
    with nogil:
        at = <const uint8_t*>memchr(begin + 1, c"\n", stop - 1)
        while at != NULL:
            if n_found < found.shape[0]:
                found[n_found, 0] = at - begin
                found[n_found, 1] = (at - 1)[0] == c"\r"
                _take_probe_id(at + 1, most_digits, &found[n_found, 2], &found[n_found, 3])
            n_found += 1
            at = <const uint8_t*>memchr(at + 1, c"\n", begin + stop - at - 1)
    return n_found


cdef void _take_probe_id(
    const uint8_t* at, Py_ssize_t most_digits, int64_t* n_digits, int64_t* probe_id
) noexcept nogil:
    cdef unsigned int digit
    n_digits[0] = probe_id[0] = 0
    while n_digits[0] <= most_digits:
        digit = at[n_digits[0]] - <unsigned int>c"0"
        if digit > 9:
            break
        probe_id[0] = 10 * probe_id[0] + digit
        n_digits[0] += 1
    if n_digits[0] == 0 or n_digits[0] > most_digits or at[n_digits[0]] != c",":
        n_digits[0] = probe_id[0] = -1


def read_numbers(int descriptor, const int64_t[::1] starts, const int64_t[::1] stops, double[:, ::1] values):
    """Read and parse the rows of numbers between some places of a file, as far as they are plainly right.

    Returns
    -------
    int
        How many rows are there. The next one is not in the file any more, has more or fewer numbers, or
        something in it that is no plain decimal of at most 19 digits, below 2**53 without its point.
    """
    cdef Py_ssize_t row
    with nogil:
        row = _read_rows(
            descriptor, starts, stops, _parse_numbers, LONGEST_NUMBER, &values[0, 0], 8, values.shape[1]
        )
    return row


def read_flags(int descriptor, const int64_t[::1] starts, const int64_t[::1] stops, uint8_t[:, ::1] values):
    """The same for rows of 0 and 1."""
    cdef Py_ssize_t row
    with nogil:
        row = _read_rows(
            descriptor, starts, stops, _parse_flags, LONGEST_FLAG, &values[0, 0], 1, values.shape[1]
        )
    return row


cdef Py_ssize_t _read_rows(
    int descriptor,
    const int64_t[::1] starts,
    const int64_t[::1] stops,
    Parse parse,
    Py_ssize_t longest_field,
    void* values,
    Py_ssize_t value_size,
    Py_ssize_t n_fields,
) noexcept nogil:
    cdef Py_ssize_t row = 0, most = longest_field * n_fields, row_size = value_size * n_fields
    cdef uint8_t* text = <uint8_t*>malloc(most + PADDING)
    if text == NULL:
        return 0
    while row < starts.shape[0] and _read(descriptor, starts[row], stops[row], text, most):
        if not parse(text, stops[row] - starts[row] + 1, <uint8_t*>values + row * row_size, n_fields):
            break
        row += 1
    free(text)
    return row


cdef bint _read(int descriptor, int64_t start, int64_t stop, uint8_t* text, Py_ssize_t most) noexcept nogil:
    """Read a row, and put a comma behind it; whether all of it is there, and no longer than it can be."""
    cdef int64_t length = stop - start
    if length < 1 or length >= most or pread(descriptor, text, length, start) != length:
        return False
    text[length] = c","
    memset(text + length + 1, 0, PADDING - 1)
    return True


cdef bint _parse_flags(
    const uint8_t* text, Py_ssize_t length, void* values, Py_ssize_t n_fields
) noexcept nogil:
    cdef uint8_t* flags = <uint8_t*>values
    cdef Py_ssize_t field
    cdef uint8_t wrong = 0
    if length != LONGEST_FLAG * n_fields:
        return False
    for field in range(n_fields):
        flags[field] = text[2 * field] ^ c"0"
        wrong |= (flags[field] & 0xFE) | (text[2 * field + 1] ^ c",")
    return wrong == 0


cdef bint _parse_numbers(
    const uint8_t* text, Py_ssize_t length, void* values, Py_ssize_t n_fields
) noexcept nogil:
    """Parse plain decimals.

    A number below 2**53 and a power of ten up to 10**22 are exact, so their quotient is correctly rounded
    (Clinger 1990, How to read floating point numbers accurately).
    """
    cdef const uint8_t* at = text
    cdef const uint8_t* begin
    cdef uint64_t number
    cdef Py_ssize_t field, n_digits, n_decimals
    cdef bint negative
    cdef double value
    for field in range(n_fields):
        negative = at[0] == c"-"
        at += negative
        begin, number = at, 0
        at = _take_digits(at, &number)
        n_digits, n_decimals = at - begin, 0
        if n_digits == 0:
            return False
        if at[0] == c".":
            begin = at + 1
            at = _take_digits(_take_eight_digits(begin, &number), &number)
            n_decimals = at - begin
            if n_decimals == 0:
                return False
        if at[0] != c"," or n_digits + n_decimals > MOST_DIGITS or number >> 53:
            return False
        value = <double>number / POWERS[n_decimals]
        (<double*>values)[field] = -value if negative else value
        at += 1
    return at == text + length


cdef inline const uint8_t* _take_digits(const uint8_t* at, uint64_t* number) noexcept nogil:
    """Append all digits from a place on to a number; the place behind them."""
    cdef unsigned int digit = at[0] - <unsigned int>c"0"
    while digit <= 9:
        number[0] = 10 * number[0] + digit
        at += 1
        digit = at[0] - <unsigned int>c"0"
    return at


cdef inline const uint8_t* _take_eight_digits(const uint8_t* at, uint64_t* number) noexcept nogil:
    """Append eight digits to a number, if that many are there: two become one number, then four, then all."""
    cdef uint64_t eight
    memcpy(&eight, at, 8)
    eight ^= 0x3030303030303030ULL
    if ((eight + 0x7676767676767676ULL) | eight) & 0x8080808080808080ULL:  # one of them is more than nine
        return at
    eight = eight * ((10 << 8) + 1) >> 8
    eight = (eight & 0x00FF00FF00FF00FFULL) * ((100 << 16) + 1) >> 16
    eight = (eight & 0x0000FFFF0000FFFFULL) * ((10000ULL << 32) + 1) >> 32
    number[0] = 100_000_000 * number[0] + eight
    return at + 8
