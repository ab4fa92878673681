"""Documents from Parquet, a few rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from aya_jax.config import UserError
from aya_jax.data.sources import storage
from aya_jax.data.sources.record import BadRecord, Record, make_record, missing_field

_ROWS = 512  # rows decoded at a time within a row group


def read(file: storage.File, wanted: Callable[[int], bool], text_field: str | None) -> Iterator[Record | BadRecord]:
    """The rows whose number (from 0, over the whole file) is wanted, row group by row group.

    Raises:
      UserError: no Parquet, damaged, or without a text column of that name.
    """
    try:
        with storage.open_raw(file) as raw, pq.ParquetFile(raw) as table:
            if text_field is not None:
                _check_column(file, table.schema_arrow, text_field)
            if table.metadata.num_rows == 0 and wanted(0):
                yield BadRecord(file.path, "the file has no rows")
            row = 0
            for group in range(table.num_row_groups):
                for batch in table.iter_batches(batch_size=_ROWS, row_groups=[group]):
                    picked = [i for i in range(batch.num_rows) if wanted(row + i)]
                    yield from _rows(file, batch, picked, row, text_field)
                    row += batch.num_rows
    except pa.ArrowException as error:
        raise UserError(f"{file.path}: not a readable Parquet file: {error}") from error
    except OSError as error:
        raise UserError(f"{file.path}: cannot be read: {error.strerror or error}") from error


def _check_column(file: storage.File, schema: pa.Schema, text_field: str) -> None:
    if text_field not in schema.names:
        raise UserError(f"{file.path}: {missing_field(text_field, tuple(schema.names))}")
    kind = schema.field(text_field).type
    values = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(values) or pa.types.is_large_string(values) or pa.types.is_string_view(values)):
        raise UserError(f"{file.path}: column {text_field!r} holds {kind}, not strings")


def _rows(
    file: storage.File, batch: pa.RecordBatch, picked: list[int], first: int, text_field: str | None
) -> Iterator[Record | BadRecord]:
    for i in picked:
        number = first + i + 1
        location = f"{file.path}:{number}"
        fields = _row(location, batch, i)
        if isinstance(fields, BadRecord):
            yield fields
        else:
            yield make_record(f"{file.name}:{number}", location, fields, text_field)


def _row(location: str, batch: pa.RecordBatch, i: int) -> Mapping[str, Any] | BadRecord:
    """One row as Python values; Arrow does not check that strings are UTF-8 before they are asked for."""
    fields = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            fields[name] = column[i].as_py()
        except UnicodeDecodeError as error:
            return BadRecord(location, f"field {name!r} is not valid UTF-8 at byte {error.start}")
    return fields
