//! Which of two layouts the tensors of number 42 have.
//!
//! Upstream's Q2_0 has a scale for 64 weights. PrismML's fork had the number first, for blocks of 128,
//! and the files of the first Ternary-Bonsai models have it so; nothing in their metadata says which is
//! meant. What says it is the place that a file gives a tensor: up to the next tensor there are the
//! bytes of the one or of the other layout, and what alignment adds. All tensors of a file are of the
//! same, since the places of small ones may fit both.

use std::collections::HashMap;

use super::cursor::Parsed;
use super::file::TensorInfo;
use super::kind::TensorKind;

/// In this order where all tensors fit both: then the file is as small as no model is.
const LAYOUTS: [TensorKind; 2] = [TensorKind::Q2_0, TensorKind::Pq2_0];

/// Gives all tensors that were read as [`TensorKind::Q2_0`] the layout that fits their places. Their
/// starts are offsets into the data, which is `data` bytes long.
///
/// # Errors
/// Where neither layout fits all of them.
pub(super) fn resolve(
    infos: &mut HashMap<String, TensorInfo>,
    data: usize,
    alignment: usize,
) -> Parsed<()> {
    let mut starts: Vec<usize> = infos.values().map(|info| info.start).collect();
    starts.sort_unstable();
    let mut all: Vec<(&String, &mut TensorInfo)> = infos
        .iter_mut()
        .filter(|(_, info)| info.kind == TensorKind::Q2_0)
        .collect();
    all.sort_by_key(|(_, info)| info.start);
    // What speaks against each layout.
    let mut against: [Option<String>; 2] = [None, None];
    for (name, info) in &all {
        let next = starts.get(starts.partition_point(|&start| start <= info.start));
        let room = next.map_or(data, |&next| next).saturating_sub(info.start);
        for (layout, against) in LAYOUTS.into_iter().zip(&mut against) {
            let bytes = bytes(layout, info);
            // Anything may stand behind the last tensor.
            let fits = |bytes: usize| match next {
                Some(_) => bytes.checked_next_multiple_of(alignment) == Some(room),
                None => bytes <= room,
            };
            if !bytes.as_ref().is_ok_and(|&bytes| fits(bytes)) {
                let why = || match bytes {
                    Ok(bytes) => format!("`{name}` takes {bytes} bytes and has {room}"),
                    Err(why) => format!("`{name}` {why}"),
                };
                against.get_or_insert_with(why);
            }
        }
    }
    let layout = match against {
        [None, _] => TensorKind::Q2_0,
        [_, None] => TensorKind::Pq2_0,
        [Some(small), Some(large)] => {
            return Err(format!(
                "tensors of type Q2_0 (number 42) have scales for 64 or for 128 values, but fit their \
                 places in the file neither way: with 64 {small}, with 128 {large}; the file is \
                 damaged, download it again"
            ));
        }
    };
    for (name, info) in all {
        info.kind = layout;
        info.bytes = bytes(layout, info).map_err(|e| format!("`{name}` {e}"))?;
    }
    Ok(())
}

fn bytes(layout: TensorKind, info: &TensorInfo) -> Parsed<usize> {
    let (cols, outer) = info.shape.split_last().unwrap_or((&1, &[]));
    layout.tensor_bytes(outer.iter().product(), *cols)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Tensors of number 42 of these shapes, one behind the other in that layout.
    fn laid_out(shapes: &[[usize; 2]], layout: TensorKind) -> (HashMap<String, TensorInfo>, usize) {
        let mut start = 0;
        let mut infos = HashMap::new();
        for (i, [rows, cols]) in shapes.iter().enumerate() {
            let bytes = |kind: TensorKind| kind.tensor_bytes(*rows, *cols).unwrap();
            let info = TensorInfo {
                kind: TensorKind::Q2_0,
                shape: vec![*rows, *cols],
                start,
                bytes: bytes(TensorKind::Q2_0),
            };
            infos.insert(format!("t{i}"), info);
            start += bytes(layout).next_multiple_of(32);
        }
        (infos, start)
    }

    fn layout_of(shapes: &[[usize; 2]], layout: TensorKind, behind: usize) -> Parsed<TensorKind> {
        let (mut infos, end) = laid_out(shapes, layout);
        resolve(&mut infos, end + behind, 32)?;
        let kind = infos["t0"].kind;
        for info in infos.values() {
            let [rows, cols] = info.shape[..] else {
                panic!("a matrix")
            };
            let want = (kind, kind.tensor_bytes(rows, cols).unwrap());
            assert_eq!((info.kind, info.bytes), want);
        }
        Ok(kind)
    }

    #[test]
    fn places_tell_the_layout_of_all_tensors() {
        let (large, small) = ([32, 256], [1, 128]);
        for layout in LAYOUTS {
            for shapes in [&[large, large][..], &[small, large, small], &[large, small]] {
                for behind in [0, 32] {
                    assert_eq!(layout_of(shapes, layout, behind), Ok(layout), "{shapes:?}");
                }
            }
            assert_eq!(layout_of(&[large], layout, 0), Ok(layout));
            // 34 and 36 bytes are both 64 with what alignment adds.
            assert_eq!(layout_of(&[small, small], layout, 0), Ok(TensorKind::Q2_0));
        }
        assert_eq!(layout_of(&[[3, 64], large], LAYOUTS[0], 0), Ok(LAYOUTS[0]));
    }

    #[test]
    fn places_for_neither_layout_are_an_error() {
        let error = |change: fn(&mut HashMap<String, TensorInfo>), data: usize| {
            let (mut infos, _) = laid_out(&[[32, 256]; 2], TensorKind::Q2_0);
            change(&mut infos);
            resolve(&mut infos, data, 32).unwrap_err()
        };
        let start = |infos: &mut HashMap<String, TensorInfo>, start| {
            infos.get_mut("t1").unwrap().start = start;
        };
        // The first takes 2304 or 2176 bytes; what is behind the second is cut off.
        for (text, words) in [
            (error(|_| (), 2304 + 2300), ["`t1` takes 2304", "has 2300"]),
            (error(|_| (), 2304 + 2000), ["`t1` takes 2304", "has 2000"]),
            (error(|_| (), 0), ["`t1` takes 2304", "`t0` takes 2176"]),
            (
                error(|i| i.get_mut("t1").unwrap().start = 2240, 8000),
                ["takes 2304 bytes and has 2240", "takes 2176"],
            ),
        ] {
            for word in words.into_iter().chain(["64", "128", "download"]) {
                assert!(text.contains(word), "{word}: {text}");
            }
        }
        // Rows of 64 values are none of 128.
        let (mut infos, end) = laid_out(&[[2, 64], [32, 256]], TensorKind::Q2_0);
        start(&mut infos, 128);
        let error = resolve(&mut infos, end + 64, 32).unwrap_err();
        assert!(error.contains("blocks of 128"), "{error}");
    }
}
