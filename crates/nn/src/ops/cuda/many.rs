//! One launch over many tensors: what a step does to every parameter would else be hundreds of launches,
//! each a few microseconds of the host's time.

use super::launch::{Buffer, Launch};

/// Tensors of a launch. Five pointers each, the places and some scalars stay below the 4,096 bytes that
/// parameters of a kernel may take.
const GROUP: usize = 64;
/// Values of a tensor that one block takes.
const CHUNK: usize = 16_384;

/// A tensor of a launch, with the others that belong to it.
pub(super) struct One<'a, const N: usize> {
    /// All of the same number of values.
    pub(super) buffers: [&'a Buffer; N],
    /// Where the kernel puts its values, for those that ask.
    pub(super) at: usize,
    /// A number that is up to the kernel.
    pub(super) by: f32,
}

impl<'a, const N: usize> One<'a, N> {
    pub(super) fn new(buffers: [&'a Buffer; N]) -> Self {
        Self {
            buffers,
            at: 0,
            by: 0.0,
        }
    }

    fn count(&self) -> usize {
        self.buffers[0].meta.shape().num_elements()
    }
}

/// Whether a launch can name all values of a tensor.
pub(super) fn counts(values: usize) -> bool {
    i32::try_from(values).is_ok()
}

/// Blocks that a tensor of `count` values takes.
pub(super) fn blocks(count: usize) -> usize {
    count.div_ceil(CHUNK)
}

/// Queues what `launch` makes over all tensors, with `shared` behind their pointers and `words` behind
/// their places.
pub(super) fn run<const N: usize>(
    launch: impl Fn() -> Launch,
    all: &[One<'_, N>],
    shared: &[&Buffer],
    words: &[usize],
) {
    let mut first = 0;
    for group in all.chunks(GROUP) {
        let mut end = 0;
        let mut places = vec![first];
        for i in 0..GROUP {
            // A place without a tensor has no block.
            let (count, at, by) = match group.get(i) {
                Some(one) => (one.count(), one.at, one.by),
                None => (0, 0, 0.0),
            };
            end += blocks(count);
            places.push(end | count << 32);
            places.push(at | (by.to_bits() as usize) << 32);
        }
        places.extend_from_slice(words);
        let mut queued = launch().define("CHUNK", CHUNK);
        for i in 0..GROUP {
            let one = group.get(i).unwrap_or(&group[0]);
            queued = one.buffers.into_iter().fold(queued, Launch::buffer);
        }
        let queued = shared.iter().copied().fold(queued, Launch::buffer);
        queued.run(&group[0].buffers[0].client, end, &places);
        first += end;
    }
}
