//! Columns of lists of numbers, as any program writes them: chooses the column and reads its rows as [`Values`].

use std::ops::Range;

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{
        ArrowPrimitiveType, DataType, Fields, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
        Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
};

use crate::{Error, Result, StorageDtype, Values};

/// A row that cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadRow {
    /// Row in the array.
    pub(super) row: usize,
    pub(super) found: String,
}

/// The column of `file` that holds the vectors: the named one, or the only column of lists of numbers.
pub(super) fn choose(fields: &Fields, named: Option<&str>, file: &str) -> Result<String> {
    let usable = fields.iter().filter(|field| item_type(field.data_type()).is_some());
    let mut usable: Vec<_> = usable.map(|field| field.name().clone()).collect();
    let expected = match named {
        Some(name) if usable.iter().any(|usable| usable == name) => return Ok(name.to_string()),
        Some(name) => format!("a column `{name}` of lists of numbers"),
        None if usable.len() == 1 => return Ok(usable.remove(0)),
        None if usable.is_empty() => "a column of lists of numbers".to_string(),
        None => return Err(Error::invalid("`column`", format!("one of {}", usable.join(", ")), "none")),
    };
    let columns: Vec<_> = fields.iter().map(|field| format!("{} ({})", field.name(), field.data_type())).collect();
    let hint = "Name a column of lists with `column`, or write the numbers of a row as one list";
    Err(Error::malformed(file, expected, format!("the columns {}", columns.join(", ")), hint))
}

/// Type of the numbers in a column of lists; `None` for any other column.
fn item_type(column: &DataType) -> Option<&DataType> {
    match column {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            Some(item.data_type()).filter(|kind| kind.is_floating() || kind.is_integer())
        }
        _ => None,
    }
}

/// Type of the column's numbers in memory: half precision stays f16, all others become f32.
pub(super) fn dtype_of(column: &DataType) -> StorageDtype {
    match item_type(column) {
        Some(DataType::Float16) => StorageDtype::F16,
        _ => StorageDtype::F32,
    }
}

/// Length of the first list; `None` if there is none.
pub(super) fn width_of(column: &ArrayRef) -> Option<usize> {
    let (ranges, _) = lists(column);
    ranges.first().filter(|_| column.is_valid(0)).map(ExactSizeIterator::len)
}

/// The rows of a column of lists. Each must have `width` finite numbers.
///
/// # Shapes
/// The result: `[n, width]`
pub(super) fn values_of(column: &ArrayRef, width: usize, dtype: StorageDtype) -> std::result::Result<Values, BadRow> {
    let (ranges, numbers) = lists(column);
    for (row, range) in ranges.iter().enumerate() {
        match (column.is_valid(row), range.len()) {
            (true, length) if length == width => {}
            (true, length) => return Err(BadRow { row, found: format!("{length} numbers") }),
            (false, _) => return Err(BadRow { row, found: "no list".to_string() }),
        }
    }
    let first = ranges.first().map_or(0, |range| range.start);
    let numbers = numbers.slice(first, ranges.len() * width);
    if let Some(place) = (0..numbers.len()).find(|place| numbers.is_null(*place)) {
        return Err(BadRow { row: place / width, found: format!("a null at index {}", place % width) });
    }
    let values = as_values(&numbers, dtype).map_err(|found| BadRow { row: 0, found })?;
    match values.first_not_finite() {
        None => Ok(values),
        Some(place) => {
            let found = format!("a NaN or an infinity at index {}", place % width);
            Err(BadRow { row: place / width, found })
        }
    }
}

/// The range of each list's numbers, and the numbers of all lists.
fn lists(column: &ArrayRef) -> (Vec<Range<usize>>, ArrayRef) {
    match column.data_type() {
        DataType::FixedSizeList(..) => {
            let lists = column.as_fixed_size_list();
            let range = |row| {
                let start = lists.value_offset(row) as usize;
                start..start + lists.value_length() as usize
            };
            ((0..lists.len()).map(range).collect(), lists.values().clone())
        }
        DataType::LargeList(_) => {
            let lists = column.as_list::<i64>();
            let ends = lists.value_offsets().windows(2);
            (ends.map(|ends| ends[0] as usize..ends[1] as usize).collect(), lists.values().clone())
        }
        _ => {
            let lists = column.as_list::<i32>();
            let ends = lists.value_offsets().windows(2);
            (ends.map(|ends| ends[0] as usize..ends[1] as usize).collect(), lists.values().clone())
        }
    }
}

/// Numbers without nulls as f16 or f32. Numbers that f32 cannot hold are rounded.
fn as_values(numbers: &ArrayRef, dtype: StorageDtype) -> std::result::Result<Values, String> {
    // arrow's `cast` does this too, but arrow-cast is built without optimization.
    Ok(Values::F32(match numbers.data_type() {
        DataType::Float16 if dtype == StorageDtype::F16 => {
            return Ok(Values::F16(numbers.as_primitive::<Float16Type>().values().to_vec()));
        }
        DataType::Float16 => to_f32::<Float16Type>(numbers, f32::from),
        DataType::Float32 => numbers.as_primitive::<Float32Type>().values().to_vec(),
        DataType::Float64 => to_f32::<Float64Type>(numbers, |x| x as f32),
        DataType::Int8 => to_f32::<Int8Type>(numbers, f32::from),
        DataType::Int16 => to_f32::<Int16Type>(numbers, f32::from),
        DataType::Int32 => to_f32::<Int32Type>(numbers, |x| x as f32),
        DataType::Int64 => to_f32::<Int64Type>(numbers, |x| x as f32),
        DataType::UInt8 => to_f32::<UInt8Type>(numbers, f32::from),
        DataType::UInt16 => to_f32::<UInt16Type>(numbers, f32::from),
        DataType::UInt32 => to_f32::<UInt32Type>(numbers, |x| x as f32),
        DataType::UInt64 => to_f32::<UInt64Type>(numbers, |x| x as f32),
        other => return Err(format!("{other} items")),
    }))
}

fn to_f32<T: ArrowPrimitiveType>(numbers: &ArrayRef, convert: impl Fn(T::Native) -> f32) -> Vec<f32> {
    numbers.as_primitive::<T>().values().iter().map(|number| convert(*number)).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{FixedSizeListArray, ListArray},
        datatypes::Field,
    };

    use super::*;

    fn list<T: ArrowPrimitiveType>(rows: Vec<Option<Vec<Option<T::Native>>>>) -> ArrayRef {
        Arc::new(ListArray::from_iter_primitive::<T, _, _>(rows))
    }

    #[test]
    fn numbers_of_any_type_become_values() {
        let bytes = list::<UInt8Type>(vec![Some(vec![Some(0), Some(255)]), Some(vec![Some(7), Some(1)])]);
        assert_eq!(values_of(&bytes, 2, StorageDtype::F32), Ok(Values::F32(vec![0.0, 255.0, 7.0, 1.0])));
        let whole = list::<Int64Type>(vec![Some(vec![Some(-3)]), Some(vec![Some(1 << 40)])]);
        assert_eq!(values_of(&whole, 1, StorageDtype::F32), Ok(Values::F32(vec![-3.0, (1u64 << 40) as f32])));
        let half = FixedSizeListArray::from_iter_primitive::<Float16Type, _, _>(
            [Some([Some(half::f16::ONE), Some(half::f16::ZERO)])],
            2,
        );
        let half: ArrayRef = Arc::new(half);
        assert_eq!(dtype_of(half.data_type()), StorageDtype::F16);
        assert_eq!(values_of(&half, 2, StorageDtype::F16).unwrap().to_f32().as_ref(), [1.0, 0.0]);
        assert_eq!(values_of(&half, 2, StorageDtype::F32), Ok(Values::F32(vec![1.0, 0.0])));
        // A slice of an array, as in a batch of a file.
        assert_eq!(values_of(&bytes.slice(1, 1), 2, StorageDtype::F32), Ok(Values::F32(vec![7.0, 1.0])));
    }

    #[test]
    fn a_row_that_cannot_be_used_is_told() {
        let good = || Some(vec![Some(1.0), Some(2.0)]);
        let bad = |row| values_of(&list::<Float64Type>(vec![good(), row]), 2, StorageDtype::F32).unwrap_err();
        let found = |row| {
            let bad = bad(row);
            assert_eq!(bad.row, 1);
            bad.found
        };
        assert_eq!(found(None), "no list");
        assert_eq!(found(Some(vec![Some(1.0)])), "1 numbers");
        assert_eq!(found(Some(vec![Some(1.0), None])), "a null at index 1");
        assert_eq!(found(Some(vec![Some(f64::NAN), Some(1.0)])), "a NaN or an infinity at index 0");
        assert_eq!(found(Some(vec![Some(1.0), Some(1e300)])), "a NaN or an infinity at index 1");
    }

    #[test]
    fn the_only_column_of_lists_is_meant_and_of_several_one_must_be_named() {
        let field = |name: &str, kind| Field::new(name, kind, true);
        let of = |item| DataType::new_list(item, true);
        let fields = |fields: Vec<Field>| Fields::from(fields);
        let one = fields(vec![field("label", DataType::Int64), field("pixels", of(DataType::UInt8))]);
        assert_eq!(choose(&one, None, "a.parquet").unwrap(), "pixels");
        let message = |fields: &Fields, named| choose(fields, named, "a.parquet").unwrap_err().to_string();
        let wrong = message(&one, Some("pixel"));
        assert!(wrong.contains("`pixel`") && wrong.contains("label (Int64), pixels (List("), "{wrong}");
        assert!(message(&one, Some("label")).contains("a column `label` of lists of numbers"));
        let texts = fields(vec![field("words", of(DataType::Utf8))]);
        assert!(message(&texts, None).contains("a.parquet: expected a column of lists of numbers"));
        let two = fields(vec![field("a", of(DataType::Float32)), field("b", of(DataType::Float64))]);
        assert_eq!(message(&two, None), "`column`: expected one of a, b, found none");
    }
}
