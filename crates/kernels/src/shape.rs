//! Checks of shapes that all matrices share.

use crate::error::{KernelError, Result};

/// Widest matrix of integer weights: sums of a byte with activations, `255 · 128 · MAX_COLS`, stay
/// within i32.
pub const MAX_COLS: usize = 1 << 16;

/// That a matrix of `what` is not too wide.
pub(crate) fn check_width(what: &str, cols: usize) -> Result<()> {
    if cols <= MAX_COLS {
        return Ok(());
    }
    Err(KernelError::Shape(format!(
        "a matrix of {what} with {cols} columns: at most {MAX_COLS} can be summed in i32"
    )))
}

/// That `values` values fill a matrix.
pub(crate) fn check_fill(values: usize, rows: usize, cols: usize) -> Result<()> {
    if rows.checked_mul(cols) == Some(values) {
        return Ok(());
    }
    Err(KernelError::Shape(format!(
        "{values} values cannot fill a matrix of {rows} × {cols}"
    )))
}

/// # Panics
/// Where activations and matrix differ in width.
pub(crate) fn assert_width(activations: usize, cols: usize) {
    assert_eq!(activations, cols, "activations as wide as the matrix");
}
