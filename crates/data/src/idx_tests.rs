#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;

fn small() -> LabelledImages {
    LabelledImages {
        rows: 2,
        cols: 3,
        pixels: (0..24).collect(),
        labels: vec![3, 1, 4, 1],
    }
}

fn plain(sizes: &[u32], data: &[u8]) -> Vec<u8> {
    let mut out = vec![0, 0, UBYTE, sizes.len() as u8];
    out.extend(sizes.iter().flat_map(|s| s.to_be_bytes()));
    out.extend(data);
    out
}

#[test]
fn what_is_written_is_read_plain_or_packed() {
    let dir = tempfile::tempdir().unwrap();
    write_labelled(dir.path(), "t", &small()).unwrap();
    assert_eq!(read_labelled(dir.path(), "t").unwrap(), small());
    let pixels: Vec<u8> = (0..24).collect();
    let images = dir.path().join("p-images-idx3-ubyte");
    std::fs::write(images, plain(&[4, 2, 3], &pixels)).unwrap();
    let labels = dir.path().join("p-labels-idx1-ubyte");
    std::fs::write(labels, plain(&[4], &[3, 1, 4, 1])).unwrap();
    assert_eq!(read_labelled(dir.path(), "p").unwrap(), small());
}

#[test]
fn lies_of_the_header_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let images = dir.path().join("x-images-idx3-ubyte");
    let labels = dir.path().join("x-labels-idx1-ubyte");
    let good = plain(&[2, 2, 2], &[0; 8]);
    std::fs::write(&labels, plain(&[2], &[0; 2])).unwrap();
    let huge = u32::MAX;
    for (bytes, words) in [
        (vec![], ["magic number", "ends before"]),
        (good[..3].to_vec(), ["magic number", "ends before"]),
        (good[..9].to_vec(), ["rows", "ends before"]),
        (good[..15].to_vec(), ["columns", "ends before"]),
        (good[..20].to_vec(), ["data", "4 bytes"]),
        ([&good[..], &[1]].concat(), ["data", "go on behind"]),
        (
            plain(&[2, 2], &[0; 4]),
            ["magic number", "IDX file of images"],
        ),
        (b"PK\x03\x04 no idx".to_vec(), ["magic number", "fetch"]),
        (
            plain(&[huge, huge, huge], &[]),
            ["number of items", "damaged"],
        ),
        (plain(&[2, huge, 2], &[]), ["rows", "damaged"]),
        // Under the limit, but not there: nothing is allocated for it.
        (
            plain(&[1 << 10, 1 << 10, 1 << 10], &[0; 4]),
            ["data", "header asks"],
        ),
        (plain(&[0, 2, 2], &[]), ["number of labels", "one source"]),
        (
            plain(&[3, 2, 2], &[0; 12]),
            ["number of labels", "one source"],
        ),
    ] {
        std::fs::write(&images, &bytes).unwrap();
        let error = read_labelled(dir.path(), "x").unwrap_err().to_string();
        assert!(error.contains("x-"), "{error}");
        // A wrong kind of file has its remedy in other words.
        let words = if bytes.starts_with(b"PK") {
            ["magic number", "pass an IDX file"]
        } else {
            words
        };
        for word in words {
            assert!(error.contains(word), "{word} is missing in {error}");
        }
    }
    std::fs::write(&images, plain(&[2, 0, 2], &[])).unwrap();
    let error = read_labelled(dir.path(), "x").unwrap_err().to_string();
    assert!(error.contains("hold nothing"), "{error}");
    std::fs::remove_file(&labels).unwrap();
    let error = read_labelled(dir.path(), "x").unwrap_err().to_string();
    assert!(
        error.contains("x-labels-idx1-ubyte") && error.contains("tritburn data mnist"),
        "{error}"
    );
}

#[test]
fn damaged_gzip_is_an_error_and_a_bomb_stays_small() {
    let dir = tempfile::tempdir().unwrap();
    let [images, _] = write_labelled(dir.path(), "x", &small()).unwrap();
    let bytes = std::fs::read(&images).unwrap();
    std::fs::write(&images, &bytes[..bytes.len() - 9]).unwrap();
    let error = read_labelled(dir.path(), "x").unwrap_err().to_string();
    assert!(error.contains("x-images"), "{error}");
    // A header of 24 bytes of data, and 64 MiB of zeros behind it.
    let data = vec![0; 64 << 20];
    write(&images, &[4, 2, 3], &data).unwrap();
    let error = read_labelled(dir.path(), "x").unwrap_err().to_string();
    assert!(error.contains("go on behind the 24 bytes"), "{error}");
}

#[test]
fn held_out_images_are_a_seeded_choice_of_their_own() {
    let all = LabelledImages {
        rows: 1,
        cols: 1,
        pixels: (0..100).collect(),
        labels: (0..100).collect(),
    };
    let (train, held) = all.hold_out(10, 1).unwrap();
    assert_eq!((train.len(), held.len()), (90, 10));
    let mut seen: Vec<u8> = train.labels.iter().chain(&held.labels).copied().collect();
    seen.sort_unstable();
    assert_eq!(seen, all.labels);
    assert_eq!(held, all.hold_out(10, 1).unwrap().1);
    assert_ne!(held, all.hold_out(10, 2).unwrap().1);
    assert_ne!(held.labels, (0..10).collect::<Vec<u8>>());
    assert_eq!(held.pixels, held.labels);
    assert!(all.hold_out(100, 1).is_err());
}

/// MNIST itself, where it is there.
#[test]
fn golden_mnist_is_read() {
    let data = std::env::var("TRITBURN_DATA_DIR").map_or_else(
        |_| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
        PathBuf::from,
    );
    let dir = data.join("mnist");
    if !dir.is_dir() {
        eprintln!("skipped: no {}", dir.display());
        return;
    }
    let mnist = read_labelled(&dir, "t10k").unwrap();
    assert_eq!((mnist.len(), mnist.rows, mnist.cols), (10_000, 28, 28));
    let mut counts = [0; 10];
    mnist
        .labels
        .iter()
        .for_each(|&l| counts[usize::from(l)] += 1);
    assert_eq!(
        counts,
        [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    );
    assert_eq!(&mnist.labels[..5], &[7, 2, 1, 0, 4]);
}

proptest! {
    /// Whatever is done to a file, the reader answers.
    #[test]
    fn damaged_files_are_errors_or_harmless(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
        packed in any::<bool>(),
        labels in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let files = write_labelled(dir.path(), "x", &small()).unwrap();
        let mut path = files[usize::from(labels)].clone();
        let mut bytes = std::fs::read(&path).unwrap();
        if !packed {
            std::fs::remove_file(&path).unwrap();
            path.set_extension("");
            let pixels: Vec<u8> = (0..24).collect();
            bytes = if labels { plain(&[4], &[3, 1, 4, 1]) } else { plain(&[4, 2, 3], &pixels) };
        }
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        std::fs::write(&path, bytes).unwrap();
        if let Ok(read) = read_labelled(dir.path(), "x") {
            prop_assert_eq!(read.pixels.len(), read.len() * read.rows * read.cols);
        }
    }
}
