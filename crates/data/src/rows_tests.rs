#![allow(clippy::unwrap_used)]
use std::fs::File;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Float32Array, Int32Array, Int64Array, LargeStringArray, StringArray,
    StringViewArray,
};
use parquet::arrow::ArrowWriter;

use super::*;

fn write(dir: &Path, name: &str, columns: Vec<(&str, ArrayRef)>) -> PathBuf {
    let path = dir.join(name);
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer =
        ArrowWriter::try_new(File::create(&path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    path
}

fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn first_error(path: &Path, columns: &[&str], label: Option<&str>) -> DataError {
    match RowReader::open(&[path.to_owned()], columns, label) {
        Err(error) => error,
        Ok(mut rows) => rows.find_map(|row| row.err()).unwrap(),
    }
}

#[test]
fn reads_shards_in_order_whatever_the_string_type() {
    let dir = tempfile::tempdir().unwrap();
    let a = write(
        dir.path(),
        "a.parquet",
        vec![
            ("label", Arc::new(Int64Array::from(vec![2, 0]))),
            ("t", Arc::new(LargeStringArray::from(vec!["one", "two"]))),
        ],
    );
    let b = write(
        dir.path(),
        "b.parquet",
        vec![
            ("t", Arc::new(StringViewArray::from(vec!["three"]))),
            ("label", Arc::new(Int32Array::from(vec![-1]))),
        ],
    );
    let c = write(
        dir.path(),
        "c.parquet",
        vec![("t", texts(&["four"])), ("label", texts(&["x"]))],
    );
    let rows = RowReader::open(&[a, b, c], &["t"], Some("label")).unwrap();
    let rows: Vec<Row> = rows.collect::<Result<_>>().unwrap();
    let seen: Vec<_> = rows
        .iter()
        .map(|r| (r.row, r.texts[0].as_str(), r.label.clone().unwrap()))
        .collect();
    assert_eq!(
        seen,
        [
            (0, "one", Label::Int(2)),
            (1, "two", Label::Int(0)),
            (0, "three", Label::Int(-1)),
            (0, "four", Label::Text("x".to_owned())),
        ]
    );
}

#[test]
fn many_rows_cross_batch_boundaries() {
    let dir = tempfile::tempdir().unwrap();
    let values: Vec<String> = (0..3 * BATCH_ROWS + 7)
        .map(|i| format!("row {i}"))
        .collect();
    let column = StringArray::from(values.clone());
    let path = write(dir.path(), "m.parquet", vec![("t", Arc::new(column))]);
    let rows = RowReader::open(std::slice::from_ref(&path), &["t"], None).unwrap();
    for (index, row) in rows.enumerate() {
        let row = row.unwrap();
        assert_eq!((row.row, &row.texts[0]), (index as u64, &values[index]));
    }
    assert_eq!(count_rows(&[path]).unwrap(), values.len() as u64);
}

#[test]
fn schema_errors_name_file_and_column() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(
        dir.path(),
        "s.parquet",
        vec![
            ("t", texts(&["a"])),
            ("score", Arc::new(Float32Array::from(vec![0.5]))),
        ],
    );
    let message = first_error(&path, &["premise"], None).to_string();
    assert!(
        message.contains("no column \"premise\"; columns present: t, score"),
        "{message}"
    );
    assert!(message.contains("s.parquet"), "{message}");
    let message = first_error(&path, &["score"], None).to_string();
    assert!(
        message.contains("type Float32, expected a string"),
        "{message}"
    );
    let message = first_error(&path, &["t"], Some("score")).to_string();
    assert!(
        message.contains("expected an integer or a string"),
        "{message}"
    );
}

#[test]
fn empty_null_and_missing_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "e.parquet", vec![("t", texts(&[]))]);
    assert!(matches!(
        first_error(&path, &["t"], None),
        DataError::Empty { .. }
    ));
    let column = StringArray::from(vec![Some("a"), None]);
    let path = write(dir.path(), "n.parquet", vec![("t", Arc::new(column))]);
    assert!(matches!(
        first_error(&path, &["t"], None),
        DataError::Null { row: 1, .. }
    ));
    let gone = dir.path().join("gone.parquet");
    assert!(matches!(
        first_error(&gone, &["t"], None),
        DataError::Io { .. }
    ));
}

#[test]
fn text_that_is_not_utf8_is_located() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("u.parquet");
    // Writers that declare a string column and store other bytes: a valid file is written with
    // unmistakable ASCII, which is then overwritten in place (no compression, no dictionary).
    let mut values = vec!["fine"; 300];
    values[270] = "BADBADBAD";
    let batch = RecordBatch::try_from_iter(vec![("t", texts(&values))]).unwrap();
    let properties = parquet::file::properties::WriterProperties::builder()
        .set_dictionary_enabled(false)
        .set_statistics_enabled(parquet::file::properties::EnabledStatistics::None)
        .build();
    let mut writer = ArrowWriter::try_new(
        File::create(&path).unwrap(),
        batch.schema(),
        Some(properties),
    )
    .unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes
        .windows(9)
        .position(|window| window == b"BADBADBAD")
        .unwrap();
    bytes[at..at + 3].copy_from_slice(&[0xff, 0xfe, 0xff]);
    std::fs::write(&path, bytes).unwrap();
    let error = first_error(&path, &["t"], None);
    assert!(matches!(&error, DataError::NotUtf8 { row: 270, column, .. } if column == "t"));
    assert!(error.to_string().contains("row 270: not valid UTF-8"));
}

#[test]
fn binary_columns_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let column = BinaryArray::from(vec![&b"\xff"[..]]);
    let path = write(dir.path(), "b.parquet", vec![("t", Arc::new(column))]);
    assert!(
        first_error(&path, &["t"], None)
            .to_string()
            .contains("type Binary")
    );
}

#[test]
fn truncated_and_foreign_files_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let values: Vec<String> = (0..2000).map(|i| format!("row {i}")).collect();
    let column = StringArray::from(values);
    let path = write(dir.path(), "t.parquet", vec![("t", Arc::new(column))]);
    let whole = std::fs::read(&path).unwrap();
    for keep in [0, 3, 8, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..keep]).unwrap();
        let error = first_error(&path, &["t"], None);
        assert!(
            matches!(error, DataError::NotParquet { .. }),
            "{keep}: {error}"
        );
    }
    std::fs::write(&path, "premise,hypothesis\nsome,csv\n").unwrap();
    let message = first_error(&path, &["t"], None).to_string();
    assert!(message.contains("not a complete parquet file"), "{message}");
}

#[test]
fn corrupt_bytes_never_panic() {
    let dir = tempfile::tempdir().unwrap();
    let values: Vec<String> = (0..600).map(|i| format!("some text {}", i % 97)).collect();
    let path = write(
        dir.path(),
        "c.parquet",
        vec![("t", Arc::new(StringArray::from(values)))],
    );
    let whole = std::fs::read(&path).unwrap();
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    for at in (0..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x5a;
        std::fs::write(&path, &bytes).unwrap();
        if let Ok(rows) = RowReader::open(std::slice::from_ref(&path), &["t"], None) {
            let _ = rows.collect::<Result<Vec<_>>>();
        }
    }
    std::panic::set_hook(hook);
}
