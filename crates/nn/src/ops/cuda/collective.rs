//! Sums over several GPUs by NCCL, through the collectives of burn's CUDA runtime.

use burn::backend::Cuda;
use cubecl::Runtime;
use cubecl::cuda::CudaRuntime;
use cubecl::server::ReduceOperation;

use super::launch::Buffer;
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

/// Sums each of `tensors` over the ranks, in place.
///
/// Ranks first meet on the host: one that has failed would leave the others waiting inside of NCCL,
/// where nothing wakes them. The runtime's stream of communication starts on a tensor once what
/// computes it is done, and later work waits for all of them.
pub(super) fn all_reduce(
    tensors: impl Iterator<Item = Buffer>,
    rank: &Rank,
) -> Result<Vec<Buffer>> {
    rank.wait()?;
    if rank.count() == 1 {
        return Ok(tensors.collect());
    }
    let devices = rank.device_ids::<Cuda>();
    let mut client = CudaRuntime::client(&rank.device::<Cuda>());
    let sums = tensors.map(|tensor| {
        // A buffer that something else still looks at is left as it is.
        let tensor = if tensor.handle.can_mut() {
            tensor
        } else {
            tensor.copy()
        };
        client.all_reduce(
            tensor.handle.clone(),
            tensor.handle.clone(),
            tensor.dtype.into(),
            devices.clone(),
            ReduceOperation::Sum,
        );
        tensor
    });
    let sums = sums.collect();
    client.sync_collective();
    Ok(sums)
}
