"""The text of matrix rows -> numbers, correctly rounded, and 0/1 calls.

A row of text is what follows the probe id: ``value,value,..,``, with a comma for its line end too. Rows that
are not what they should be are an `IrregularError`; what is wrong with them, and where, is for
`ingest.matrix_faults` to say.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
from numpy.typing import NDArray

_BLANK, _COMMA, _DOT, _ZERO, _NINE = b" ,.09"
_COMMA_TO_NEWLINE = bytes.maketrans(b",", b"\n")
_SHORTEST_PLAIN = len("1.5,")

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]
Positions = NDArray[np.int64]


class IrregularError(Exception):
    """Some rows are not what they should be."""


def parse_numbers(text: Bytes, row_ends: Positions, values: Floats) -> None:
    """Parse rows of numbers.

    Parameters
    ----------
    text : (byte,) uint8 array
        Is overwritten.
    row_ends : (row,) int64 array
        Where the last comma of each row is.
    values : (row, sample) float64 array
        Where the numbers go.

    Raises
    ------
    IrregularError
        If a row has more or fewer fields, or one of them is not a finite number.
    """
    ends = np.flatnonzero(text == _COMMA)
    if len(ends) != values.size or np.any(ends.reshape(values.shape)[:, -1] != row_ends):
        raise IrregularError
    offsets = np.zeros(len(ends) + 1, np.int32)
    offsets[1:] = ends + 1
    parsed = _parse_plain(text, offsets) if _are_plain(text, offsets) else _parse_any(text)
    if len(parsed) != values.size or not np.isfinite(parsed).all():
        raise IrregularError
    values[:] = parsed.reshape(values.shape)


def _are_plain(text: Bytes, offsets: NDArray[np.int32]) -> bool:
    """Whether each field has a decimal point, at least one digit, and no exponent.

    Without letters and with as many points as fields, a field that parses has exactly one point.
    """
    return bool(
        text.max() <= _NINE
        and np.count_nonzero(text == _DOT) == len(offsets) - 1
        and np.diff(offsets).min() >= _SHORTEST_PLAIN
    )


def _parse_plain(text: Bytes, offsets: NDArray[np.int32]) -> Floats:
    """Parse numbers with a decimal point and no exponent.

    Arrow's strings lie end to end, with nothing between them. So that the text can be taken as it is, the
    separators become zeros, which mean nothing at the end of a decimal fraction. Three times as fast as
    Arrow's CSV reader, and the same correctly rounded parser.

    Parameters
    ----------
    text : (byte,) uint8 array
        Is overwritten.
    offsets : (field + 1,) int32 array
        Where each field begins, and where the last ends.
    """
    text[offsets[1:] - 1] = _ZERO
    strings = pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(text))
    try:
        values: Floats = pa.compute.cast(strings, pa.float64()).to_numpy()
    except pa.ArrowInvalid as error:
        raise IrregularError from error
    return values


def _parse_any(text: Bytes) -> Floats:
    """Parse numbers of any form: a CSV of one column, with every comma made a newline."""
    if text.min() <= _BLANK:  # which Arrow would pass over
        raise IrregularError
    column = text.tobytes().translate(_COMMA_TO_NEWLINE)
    try:
        table = pa.csv.read_csv(
            pa.BufferReader(column),
            read_options=pa.csv.ReadOptions(
                column_names=["value"], use_threads=False, block_size=len(column) + 1
            ),
            parse_options=pa.csv.ParseOptions(quote_char=False, ignore_empty_lines=False),
            convert_options=pa.csv.ConvertOptions(column_types={"value": pa.float64()}, null_values=[""]),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise IrregularError from error
    if table.column(0).null_count:
        raise IrregularError
    values: Floats = table.column(0).to_numpy()
    return values


def parse_flags(text: Bytes, row_ends: Positions, values: NDArray[np.bool_]) -> None:
    """Parse rows of 0/1, all of which have the same width; the parameters are those of `parse_numbers`.

    Raises
    ------
    IrregularError
        If a row has more or fewer fields, or one of them is not 0 or 1.
    """
    if np.any(np.diff(row_ends, prepend=-1) != 2 * values.shape[1]):  # "0,1,..,1,"
        raise IrregularError
    flags = text.view("<u2") - np.uint16(_ZERO + (_COMMA << 8))
    if flags.max() > 1:
        raise IrregularError
    values[:] = flags.reshape(values.shape)
