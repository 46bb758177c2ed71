//! Sums over several GPUs by NCCL, through the collectives of burn's CUDA runtime.

use burn::backend::Cuda;
use burn::tensor::Shape;
use cubecl::Runtime;
use cubecl::cuda::CudaRuntime;
use cubecl::server::ReduceOperation;

use super::launch::{Buffer, empty};
use super::optim::{gather, owned};
use crate::ranks::Rank;
use crate::{NnError, Result};

/// Whether NCCL is there. It is loaded when it is first called, and the runtime panics without it.
pub(super) fn check() -> Result<()> {
    match std::panic::catch_unwind(cudarc::nccl::result::get_nccl_version) {
        Ok(Ok(_)) => Ok(()),
        _ => Err(NnError::Devices {
            message: "numbers: NCCL, which adds over several GPUs, is not found as libnccl.so; install it \
                      (Debian: libnccl-dev) or put its folder into LD_LIBRARY_PATH"
                .to_owned(),
        }),
    }
}

/// Values that are summed at once, 32 MiB of them: below, the start of a sum counts more than its bytes.
const BUCKET: usize = 8 << 20;
/// Places in a bucket are multiples of this, 256 bytes.
const ALIGN: usize = 64;

/// Tensors that are summed as one.
#[derive(Debug, Default, PartialEq, Eq)]
struct Bucket {
    /// Their numbers, and their places.
    members: Vec<(usize, usize)>,
    size: usize,
}

/// Shares tensors of `counts` values among buckets, in their order. One that fills a bucket is alone in its own.
fn buckets(counts: impl Iterator<Item = usize>) -> Vec<Bucket> {
    let mut all = Vec::new();
    let mut open = Bucket::default();
    for (i, count) in counts.enumerate() {
        if count >= BUCKET {
            all.push(Bucket {
                members: vec![(i, 0)],
                size: count,
            });
            continue;
        }
        if open.size + count > BUCKET {
            all.push(std::mem::take(&mut open));
        }
        open.members.push((i, open.size));
        open.size += count.next_multiple_of(ALIGN);
    }
    if !open.members.is_empty() {
        all.push(open);
    }
    all
}

/// Starts to sum each of `tensors` over the ranks.
///
/// Ranks first meet on the host: one that has failed would leave the others waiting inside of NCCL,
/// where nothing wakes them. The runtime's stream of communication starts on a bucket once what
/// computes it is done.
pub(super) fn all_reduce(tensors: Vec<Buffer>, rank: &Rank) -> Result<Vec<Buffer>> {
    rank.wait()?;
    if rank.count() == 1 {
        return Ok(tensors);
    }
    let devices = rank.device_ids::<Cuda>();
    let mut client = CudaRuntime::client(&rank.device::<Cuda>());
    let count = |x: &Buffer| x.meta.shape().num_elements();
    let all = buckets(tensors.iter().map(count));
    let mut tensors: Vec<Option<Buffer>> = tensors.into_iter().map(Some).collect();
    let mut sums: Vec<Option<Buffer>> = tensors.iter().map(|_| None).collect();
    for Bucket { members, size } in all {
        let parts: Vec<_> = (members.iter())
            .filter_map(|&(i, at)| Some((i, at, tensors[i].take()?)))
            .collect();
        let whole = match <[_; 1]>::try_from(parts) {
            Ok([(i, _, alone)]) => {
                let alone = owned(alone);
                sums[i] = Some(alone.clone());
                alone
            }
            Err(parts) => {
                let whole = empty(&parts[0].2, [size], parts[0].2.dtype);
                let from: Vec<_> = parts.iter().map(|(_, at, part)| (part, *at)).collect();
                gather(&from, &whole);
                for (i, at, part) in &parts {
                    sums[*i] = Some(part_of(&whole, *at, count(part)));
                }
                whole
            }
        };
        client.all_reduce(
            whole.handle.clone(),
            whole.handle.clone(),
            whole.dtype.into(),
            devices.clone(),
            ReduceOperation::Sum,
        );
    }
    Ok(sums.into_iter().flatten().collect())
}

/// `count` values of `whole`, which is in f32, from the place `at` on.
fn part_of(whole: &Buffer, at: usize, count: usize) -> Buffer {
    let size = whole.meta.shape().num_elements();
    let bytes = |values: usize| 4 * values as u64;
    let handle = whole.handle.clone();
    let handle = handle
        .offset_start(bytes(at))
        .offset_end(bytes(size - at - count));
    let (client, device) = (whole.client.clone(), whole.device.clone());
    Buffer::new_contiguous(client, device, Shape::from([count]), handle, whole.dtype)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_full_and_places_do_not_overlap() {
        let counts = [70, BUCKET - 200, 5, 64, BUCKET, 3, BUCKET + 1, 1];
        let all = buckets(counts.into_iter());
        let members: Vec<_> = all.iter().map(|b| b.members.clone()).collect();
        let expected = [
            vec![(0, 0), (1, 128)],
            vec![(4, 0)],
            vec![(6, 0)],
            vec![(2, 0), (3, 64), (5, 128), (7, 192)],
        ];
        for bucket in expected {
            assert!(members.contains(&bucket), "{bucket:?} of {members:?}");
        }
        assert_eq!(members.len(), 4);
        for Bucket { members, size } in all {
            let ends = members.iter().map(|(i, at)| at + counts[*i]);
            let begins = members.iter().skip(1).map(|(_, at)| *at).chain([size]);
            assert!(ends.zip(begins).all(|(end, begin)| end <= begin));
        }
    }
}
