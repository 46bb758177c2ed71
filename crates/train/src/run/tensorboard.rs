//! Event files that TensorBoard reads: scalars in `tb/`.
//!
//! A file is a row of records (length, its checksum, data, its checksum), each an `Event` in
//! protocol buffers: wall time, step, and a summary of one named value.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::dir::make_dir;
use crate::error::{Result, TrainError};

/// Writes one event file.
#[derive(Debug)]
pub(super) struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// A new file in `folder` for a run that stands at `step`: of what earlier files say, later steps
    /// are void.
    pub(super) fn create(folder: &Path, step: usize) -> Result<Self> {
        make_dir(folder)?;
        let seconds = now() as u64;
        let mut n = 0;
        let (path, file) = loop {
            let name = format!("events.out.tfevents.{seconds:010}.tritburn.{step}.{n}");
            let path = folder.join(name);
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => break (path, file),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => n += 1,
                Err(source) => return Err(TrainError::Io { path, source }),
            }
        };
        let mut this = Self { path, file };
        let mut version = event(0);
        bytes(&mut version, 3, b"brain.Event:2");
        this.record(&version)?;
        // Session log, status START: steps from here on replace those of earlier files.
        let mut start = event(step as u64 + 1);
        bytes(&mut start, 7, &[0x08, 0x01]);
        this.record(&start)?;
        Ok(this)
    }

    /// Writes every number of a line of `metrics.jsonl` but its step, each under its key; keys of a
    /// stage stand below its name.
    pub(super) fn append(&mut self, line: &Map<String, Value>) -> Result<()> {
        let step = line.get("step").and_then(Value::as_u64).unwrap_or(0);
        let mut summary = Vec::new();
        for (key, value) in line.iter().filter(|(key, _)| *key != "step") {
            let Some(number) = value.as_f64() else {
                continue;
            };
            let mut scalar = Vec::new();
            bytes(&mut scalar, 1, key.as_bytes());
            scalar.push(2 << 3 | 5);
            #[allow(clippy::cast_possible_truncation)]
            scalar.extend((number as f32).to_le_bytes());
            bytes(&mut summary, 1, &scalar);
        }
        let mut data = event(step);
        bytes(&mut data, 5, &summary);
        self.record(&data)
    }

    fn record(&mut self, data: &[u8]) -> Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(data.len() + 16);
        record.extend(length);
        record.extend(masked_crc(&length).to_le_bytes());
        record.extend(data);
        record.extend(masked_crc(data).to_le_bytes());
        self.file
            .write_all(&record)
            .map_err(|source| TrainError::Io {
                path: self.path.clone(),
                source,
            })
    }
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |d| d.as_secs_f64())
}

/// An event with its time and step.
fn event(step: u64) -> Vec<u8> {
    let mut out = vec![1 << 3 | 1];
    out.extend(now().to_le_bytes());
    out.push(2 << 3);
    varint(&mut out, step);
    out
}

/// A field of bytes.
fn bytes(out: &mut Vec<u8>, field: u8, data: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, data.len() as u64);
    out.extend(data);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// CRC-32C (Castagnoli), rotated and shifted as TFRecord files have it.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn crc32c(data: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                crc >> 1 ^ 0x82f6_3b78
            } else {
                crc >> 1
            };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn checksums_are_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn records_are_whole_and_hold_tag_and_value() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = EventFile::create(dir.path(), 4).unwrap();
        let line = json!({"step": 300, "stage": "base", "loss": 0.5});
        file.append(line.as_object().unwrap()).unwrap();
        let data = std::fs::read(&file.path).unwrap();
        let mut records = Vec::new();
        let mut rest = data.as_slice();
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
            assert_eq!(word(8), masked_crc(&rest[..8]));
            let body = &rest[12..12 + length];
            assert_eq!(word(12 + length), masked_crc(body));
            records.push(body.to_vec());
            rest = &rest[16 + length..];
        }
        assert_eq!(records.len(), 3);
        let find = |record: &[u8], what: &[u8]| record.windows(what.len()).any(|w| w == what);
        assert!(find(&records[0], b"brain.Event:2"));
        assert!(
            find(&records[1], &[0x10, 5, 0x3a, 2, 8, 1]),
            "step 5, session start"
        );
        assert!(find(&records[2], &[0x10, 0xac, 0x02]), "step 300");
        let mut scalar = b"\x0a\x04loss\x15".to_vec();
        scalar.extend(0.5f32.to_le_bytes());
        assert!(find(&records[2], &scalar));
        assert!(!find(&records[2], b"stage"));
    }
}
