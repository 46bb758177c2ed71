#![allow(clippy::unwrap_used)]
use super::*;
use crate::synth::SEED;
use crate::{RowReader, column_names};

fn checked_in() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data")
}

#[test]
fn same_seed_same_bytes_and_another_seed_other_text() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let first = write_all(dirs[0].path(), SEED).unwrap();
    let again = write_all(dirs[1].path(), SEED).unwrap();
    for (a, b) in first.iter().zip(&again) {
        assert_eq!(
            std::fs::read(a).unwrap(),
            std::fs::read(b).unwrap(),
            "{}",
            a.display()
        );
    }
    let other = write_all(dirs[1].path(), SEED + 1).unwrap();
    assert_ne!(
        std::fs::read(&first[0]).unwrap(),
        std::fs::read(&other[0]).unwrap()
    );
}

#[test]
fn checked_in_files_are_what_the_generator_makes() {
    let dir = tempfile::tempdir().unwrap();
    let mut total = 0;
    for made in write_all(dir.path(), SEED).unwrap() {
        let kept = checked_in().join(made.strip_prefix(dir.path()).unwrap());
        total += std::fs::metadata(&kept).unwrap().len();
        let columns = column_names(&made).unwrap();
        assert_eq!(columns, column_names(&kept).unwrap());
        let texts: Vec<&str> = ["premise", "hypothesis", "sentence", "content", "url"]
            .into_iter()
            .filter(|name| columns.iter().any(|column| column == name))
            .collect();
        let label = columns
            .iter()
            .any(|column| column == "label")
            .then_some("label");
        let rows = |path: &Path| -> Vec<_> {
            RowReader::open(&[path.to_owned()], &texts, label)
                .unwrap()
                .map(|row| row.map(|row| (row.texts, row.label)).unwrap())
                .collect()
        };
        assert!(
            rows(&made) == rows(&kept),
            "{} differs; run tritburn data synth",
            kept.display()
        );
    }
    assert!(total < 1_000_000, "{total} bytes");
}
