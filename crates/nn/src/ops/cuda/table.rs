//! Rows of a table.

use super::launch::{Buffer, Launch, Source, element};

/// Adds to `out` `[rows, cols]`, which is zero, what
/// [`Kernels::take_rows_grad`](crate::ops::Kernels::take_rows_grad) gives each row.
pub(super) fn take_rows_grad(ids: &Buffer, grad: &Buffer, out: &Buffer, [rows, cols]: [usize; 2]) {
    let count = grad.meta.shape()[0];
    Launch::new(Source::Table, "take_rows_grad", 256)
        .define("IN", element(grad.dtype))
        .buffer(ids)
        .buffer(grad)
        .buffer(out)
        .run(&out.client, count, &[count, rows, cols]);
}
