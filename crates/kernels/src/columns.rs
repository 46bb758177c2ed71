//! Hands columns of an output matrix to tasks that run at the same time.

use std::marker::PhantomData;

/// A row major matrix of which each task writes columns of some rows.
#[derive(Debug)]
pub(crate) struct Columns<'a, T> {
    data: *mut T,
    rows: usize,
    cols: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: the only access is `strip`, whose callers promise disjoint parts of rows; `T` may be sent.
#[allow(unsafe_code)]
unsafe impl<T: Send> Sync for Columns<'_, T> {}

impl<'a, T> Columns<'a, T> {
    /// Over `data`, `[rows, cols]`.
    ///
    /// # Panics
    /// Where `data` has another length.
    pub(crate) fn new(data: &'a mut [T], rows: usize, cols: usize) -> Self {
        assert_eq!(Some(data.len()), rows.checked_mul(cols), "a full matrix");
        Self {
            data: data.as_mut_ptr(),
            rows,
            cols,
            borrow: PhantomData,
        }
    }

    /// Where a column of a row lies; that may be outside.
    pub(crate) fn address(&self, row: usize, column: usize) -> *const T {
        self.data.wrapping_add(row * self.cols + column)
    }

    /// One row.
    ///
    /// # Panics
    /// Where there is no such row.
    ///
    /// # Safety
    /// As [`Self::strip`].
    #[allow(unsafe_code, clippy::mut_from_ref)]
    pub(crate) unsafe fn row(&self, row: usize) -> &mut [T] {
        // SAFETY: the caller's promise.
        unsafe { self.strip(row, 0, self.cols) }
    }

    /// Up to `n` columns of one row from `first` on, fewer at the end of the row.
    ///
    /// # Panics
    /// Where row or column lie outside.
    ///
    /// # Safety
    /// No two strips that exist at the same time may share a column of a row.
    #[allow(unsafe_code, clippy::mut_from_ref)]
    pub(crate) unsafe fn strip(&self, row: usize, first: usize, n: usize) -> &mut [T] {
        assert!(row < self.rows && first <= self.cols, "inside the matrix");
        let n = n.min(self.cols - first);
        // SAFETY: the range lies within the matrix that `data` points to for as long as `self`
        // lives, and the caller promises that nobody else has it.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(row * self.cols + first), n) }
    }
}
