//! Writing the generated data as parquet, in the schemas of the data sets they stand in for.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Int32Array, Int64Array, ListBuilder, RecordBatch, StringArray, StringBuilder,
    TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use serde_json::json;
use tritburn_quant::fs::write_atomic;

use super::{
    CORPUS_TRAIN_DOCUMENTS, CORPUS_VALIDATION_DOCUMENTS, NLI_TRAIN_ROWS, NLI_VALIDATION_ROWS,
    REVIEW_TRAIN_ROWS, REVIEW_VALIDATION_ROWS, nli, reviews, stories,
};
use crate::dice::Dice;
use crate::error::{DataError, Result};

/// Milliseconds of 2024-01-01T00:00:00Z, the invented date of the first document.
const FIRST_TIMESTAMP: i64 = 1_704_067_200_000;
/// Milliseconds between two documents.
const TIMESTAMP_STEP: i64 = 3_600_000;
/// Number of train shards of the corpus.
const CORPUS_SHARDS: usize = 2;

/// Writes `mnli`, `sst2` and `refinedweb` below `dir` and returns the files written.
///
/// The same seed gives the same bytes. Files that exist are replaced, each in one step.
///
/// # Errors
/// If a folder or file cannot be written.
pub fn write_all(dir: &Path, seed: u64) -> Result<Vec<PathBuf>> {
    let task = nli::generate(seed, NLI_TRAIN_ROWS, NLI_VALIDATION_ROWS);
    let (train, validation) = reviews::generate(seed, REVIEW_TRAIN_ROWS, REVIEW_VALIDATION_ROWS);
    let mut written = Vec::new();
    for (name, rows) in [
        ("train", &task.train),
        ("validation_matched", &task.matched),
        ("validation_mismatched", &task.mismatched),
    ] {
        let path = dir.join(format!("mnli/{name}-00000-of-00001.parquet"));
        save(&path, &nli_batch(rows), Compression::SNAPPY)?;
        written.push(path);
    }
    for (name, rows) in [("train", &train), ("validation", &validation)] {
        let path = dir.join(format!("sst2/{name}-00000-of-00001.parquet"));
        save(&path, &review_batch(rows), Compression::SNAPPY)?;
        written.push(path);
    }
    let zstd = Compression::ZSTD(ZstdLevel::default());
    let per_shard = CORPUS_TRAIN_DOCUMENTS / CORPUS_SHARDS;
    for shard in 0..CORPUS_SHARDS {
        let path = dir.join(format!(
            "refinedweb/train-{shard:05}-of-{CORPUS_SHARDS:05}.parquet"
        ));
        let batch = corpus_batch(seed, 21 + shard as u64, shard * per_shard, per_shard);
        save(&path, &batch, zstd)?;
        written.push(path);
    }
    let path = dir.join("refinedweb/validation-00000-of-00001.parquet");
    let batch = corpus_batch(
        seed,
        31,
        CORPUS_TRAIN_DOCUMENTS,
        CORPUS_VALIDATION_DOCUMENTS,
    );
    save(&path, &batch, zstd)?;
    written.push(path);
    Ok(written)
}

/// A schema with the `huggingface` entry that the `datasets` library writes, so that it shows the
/// class names.
fn classified_schema(texts: &[&str], classes: &[&str]) -> Schema {
    let value = |dtype: &str| json!({"dtype": dtype, "_type": "Value"});
    let mut features = serde_json::Map::new();
    let mut fields = Vec::new();
    for &text in texts {
        features.insert(text.to_owned(), value("string"));
        fields.push(Field::new(text, DataType::Utf8, true));
    }
    features.insert(
        "label".to_owned(),
        json!({"names": classes, "_type": "ClassLabel"}),
    );
    features.insert("idx".to_owned(), value("int32"));
    fields.push(Field::new("label", DataType::Int64, true));
    fields.push(Field::new("idx", DataType::Int32, true));
    let info = json!({"info": {"features": features}}).to_string();
    Schema::new_with_metadata(fields, HashMap::from([("huggingface".to_owned(), info)]))
}

fn classified_batch(
    texts: Vec<(&str, Vec<&str>)>,
    labels: Vec<i64>,
    classes: &[&str],
) -> std::result::Result<RecordBatch, arrow::error::ArrowError> {
    let names: Vec<&str> = texts.iter().map(|(name, _)| *name).collect();
    let schema = classified_schema(&names, classes);
    let rows = labels.len() as i32;
    let mut columns: Vec<ArrayRef> = texts
        .into_iter()
        .map(|(_, values)| Arc::new(StringArray::from(values)) as ArrayRef)
        .collect();
    columns.push(Arc::new(Int64Array::from(labels)));
    columns.push(Arc::new(Int32Array::from_iter_values(0..rows)));
    RecordBatch::try_new(Arc::new(schema), columns)
}

type Batch = std::result::Result<RecordBatch, arrow::error::ArrowError>;

fn nli_batch(rows: &[nli::NliRow]) -> Batch {
    classified_batch(
        vec![
            (
                "premise",
                rows.iter().map(|row| row.premise.as_str()).collect(),
            ),
            (
                "hypothesis",
                rows.iter().map(|row| row.hypothesis.as_str()).collect(),
            ),
        ],
        rows.iter().map(|row| row.label).collect(),
        &["entailment", "neutral", "contradiction"],
    )
}

fn review_batch(rows: &[reviews::ReviewRow]) -> Batch {
    classified_batch(
        vec![(
            "sentence",
            rows.iter().map(|row| row.sentence.as_str()).collect(),
        )],
        rows.iter().map(|row| row.label).collect(),
        &["negative", "positive"],
    )
}

/// Documents in the schema of FALCON RefinedWeb; `first` numbers their addresses.
fn corpus_batch(seed: u64, stream: u64, first: usize, documents: usize) -> Batch {
    let mut dice = Dice::new(seed, stream);
    let content: Vec<String> = (0..documents)
        .map(|_| stories::document(&mut dice))
        .collect();
    let url = (first..first + documents)
        .map(|number| format!("https://www.example.com/stories/{number:04}"));
    let timestamp = (first..first + documents).map(|n| FIRST_TIMESTAMP + n as i64 * TIMESTAMP_STEP);
    let mut images = ListBuilder::new(ListBuilder::new(StringBuilder::new()));
    (0..documents).for_each(|_| images.append(true));
    let images = images.finish();
    let schema = Schema::new(vec![
        Field::new("content", DataType::Utf8, true),
        Field::new("url", DataType::Utf8, true),
        Field::new(
            "timestamp",
            DataType::Timestamp(TimeUnit::Millisecond, None),
            true,
        ),
        Field::new("dump", DataType::Utf8, true),
        Field::new("segment", DataType::Utf8, true),
        Field::new(
            "image_urls",
            arrow::array::Array::data_type(&images).clone(),
            true,
        ),
    ]);
    RecordBatch::try_new(
        Arc::new(schema),
        vec![
            Arc::new(StringArray::from(content)),
            Arc::new(StringArray::from_iter_values(url)),
            Arc::new(TimestampMillisecondArray::from_iter_values(timestamp)),
            Arc::new(StringArray::from(vec!["TRITBURN-SYNTH"; documents])),
            Arc::new(StringArray::from(vec!["0"; documents])),
            Arc::new(images),
        ],
    )
}

fn save(path: &Path, batch: &Batch, compression: Compression) -> Result<()> {
    let encode = || -> std::result::Result<Vec<u8>, ParquetError> {
        let batch = batch
            .as_ref()
            .map_err(|error| ParquetError::ArrowError(error.to_string()))?;
        let properties = WriterProperties::builder()
            .set_compression(compression)
            // A fixed name keeps the bytes the same when the parquet crate is updated.
            .set_created_by("tritburn".to_owned())
            .build();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties))?;
        writer.write(batch)?;
        writer.close()?;
        Ok(bytes)
    };
    let bytes = encode().map_err(|error| DataError::Io {
        path: path.to_owned(),
        action: "encode",
        source: std::io::Error::other(error),
    })?;
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder).map_err(DataError::io(folder, "make the folder"))?;
    Ok(write_atomic(path, &bytes)?)
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
