# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Kernels in C: each does what the Python code beside its caller does, to the bit, without Python's lock.

Matrices are packed by functions of the library that numcodecs brings, and compared with what the disk holds.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy
from posix.unistd cimport pread

cdef enum:
    OVERHEAD = 16  # bytes by which what blosc cannot compress grows
    STORED_MOST = 0xFFFF  # bytes of a block that is not compressed (RFC 1951, 3.2.4)
    BLOCK_HEADER = 5
    MEMBER_HEADER = 10  # RFC 1952
    MEMBER_TRAILER = 8
    AT_ONCE = 1 << 17  # bytes read back

cdef const char* GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # deflated, no name, no time, by no system

# Public functions of C-Blosc (since its version 1.5) and of zlib.
ctypedef int (*Compress)(
    int level,
    int shuffle,
    size_t type_size,
    size_t n_bytes,
    const void* source,
    void* target,
    size_t room,
    const char* compressor,
    size_t block_size,
    int n_threads,
) noexcept nogil
ctypedef int (*Decompress)(const void* source, void* target, size_t room, int n_threads) noexcept nogil
ctypedef unsigned long (*Checksum)(
    unsigned long before, const uint8_t* data, unsigned int size
) noexcept nogil


cdef class Packer:
    """Compresses the chunks of a matrix, sees that each decompresses to what it was, and wraps it by gzip.

    Parameters
    ----------
    compress, decompress, checksum : int
        Where ``blosc_compress_ctx``, ``blosc_decompress_ctx`` and ``crc32`` are in memory.
    compressor : bytes
    level, shuffle, type_size : int
        As C-Blosc has them.
    """

    cdef Compress compress
    cdef Decompress decompress
    cdef Checksum checksum
    cdef bytes compressor
    cdef int level, shuffle
    cdef size_t type_size

    def __init__(
        self,
        *,
        uintptr_t compress,
        uintptr_t decompress,
        uintptr_t checksum,
        bytes compressor,
        int level,
        int shuffle,
        size_t type_size,
    ):
        self.compress, self.decompress = <Compress>compress, <Decompress>decompress
        self.checksum = <Checksum>checksum
        self.compressor, self.level, self.shuffle, self.type_size = compressor, level, shuffle, type_size

    def pack(
        self,
        const uint8_t[:, ::1] values,
        Py_ssize_t rows,
        const uint8_t[::1] fill,
        uint8_t[::1] members,
        int64_t[::1] sizes,
    ):
        """Pack some rows of a matrix, chunk by chunk.

        Parameters
        ----------
        values : (row, byte)
        rows : int
            Of a chunk.
        fill : (byte,)
            A row of a chunk beyond the matrix's edge.
        members : (byte,)
            Where the gzip members go, one behind the other; `most_bytes` for each chunk.
        sizes : (chunk,)
            Where the bytes of each go.

        Returns
        -------
        int
            How many chunks are there: all of them, or those before one that lost something.
        """
        cdef Py_ssize_t width = fill.shape[0], size = rows * width, row = 0, column = 0, number = 0
        cdef uint8_t* end = &members[0]
        cdef uint8_t* next_end
        cdef const char* compressor = self.compressor
        cdef uint8_t* chunk
        if size < 1 or sizes.shape[0] != _parts(values.shape[0], rows) * _parts(values.shape[1], width):
            raise ValueError("one size for each chunk")
        if members.shape[0] < sizes.shape[0] * most_bytes(size):
            raise ValueError("too little room")
        chunk = <uint8_t*>malloc(3 * (size + OVERHEAD))
        if chunk == NULL:
            raise MemoryError
        with nogil:
            for number in range(sizes.shape[0]):
                _cut(values, row, column, rows, fill, chunk)
                next_end = self._append(chunk, size, compressor, end)
                if next_end == NULL:
                    break
                sizes[number] = next_end - end
                end = next_end
                column += width
                if column >= values.shape[1]:
                    row, column = row + rows, 0
            else:
                number = sizes.shape[0]
            free(chunk)
        return number

    cdef uint8_t* _append(
        self, uint8_t* chunk, Py_ssize_t size, const char* compressor, uint8_t* end
    ) noexcept nogil:
        """Append a chunk, behind which there is room for it compressed and back; the new end, or NULL."""
        cdef uint8_t* compressed = chunk + size + OVERHEAD
        cdef uint8_t* back = compressed + size + OVERHEAD
        cdef int length = self.compress(
            self.level, self.shuffle, self.type_size, size, chunk, compressed, size + OVERHEAD,
            compressor, 0, 1,
        )
        if length <= 0 or self.decompress(compressed, back, size, 1) != size or memcmp(chunk, back, size):
            return NULL
        return _append_member(end, compressed, length, self.checksum(0, compressed, length))


def most_bytes(Py_ssize_t size):
    """Bytes of a chunk, compressed as badly as can be and wrapped."""
    cdef Py_ssize_t content = size + OVERHEAD
    return MEMBER_HEADER + content + BLOCK_HEADER * _parts(content, STORED_MOST) + MEMBER_TRAILER


cdef inline Py_ssize_t _parts(Py_ssize_t whole, Py_ssize_t part) noexcept nogil:
    return (whole + part - 1) // part


cdef void _cut(
    const uint8_t[:, ::1] values,
    Py_ssize_t first,
    Py_ssize_t column,
    Py_ssize_t rows,
    const uint8_t[::1] fill,
    uint8_t* chunk,
) noexcept nogil:
    """A chunk in one piece of memory, the part beyond the matrix's edge filled."""
    cdef Py_ssize_t width = fill.shape[0], inside = min(width, values.shape[1] - column), row
    for row in range(first, first + rows):
        if row < values.shape[0]:
            memcpy(chunk, &values[row, column], inside)
            memcpy(chunk + inside, &fill[0] + inside, width - inside)
        else:
            memcpy(chunk, &fill[0], width)
        chunk += width


cdef uint8_t* _append_member(
    uint8_t* end, const uint8_t* content, uint32_t size, uint32_t checksum
) noexcept nogil:
    """Append a gzip member that holds the content as it is."""
    cdef uint32_t left = size, length
    memcpy(end, GZIP_HEADER, MEMBER_HEADER)
    end += MEMBER_HEADER
    while left:
        length = min(left, <uint32_t>STORED_MOST)
        left -= length
        end[0] = left == 0
        _put(end + 1, length, 2)
        _put(end + 3, length ^ STORED_MOST, 2)
        memcpy(end + BLOCK_HEADER, content, length)
        content += length
        end += BLOCK_HEADER + length
    _put(end, checksum, 4)
    _put(end + 4, size, 4)
    return end + MEMBER_TRAILER


cdef inline void _put(uint8_t* place, uint32_t number, int n_bytes) noexcept nogil:
    """A number, its lowest byte first."""
    cdef int i
    for i in range(n_bytes):
        place[i] = (number >> (8 * i)) & 0xFF


def reads_back(int descriptor, const uint8_t[::1] data):
    """Whether an open file holds these bytes and no others."""
    cdef Py_ssize_t place = 0, n_read = 0
    cdef uint8_t* back = <uint8_t*>malloc(AT_ONCE)
    if back == NULL:
        raise MemoryError
    with nogil:
        while True:
            n_read = pread(descriptor, back, AT_ONCE, place)
            if n_read <= 0 or n_read > data.shape[0] - place or memcmp(back, &data[0] + place, n_read) != 0:
                break
            place += n_read
        free(back)
    return n_read == 0 and place == data.shape[0]
