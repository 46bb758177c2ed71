//! What a product runs on.

use crate::columns::Columns;
use crate::dispatch;
use crate::error::Result;
use crate::kernel::Kernel;
use crate::numa::{Numa, Topology};
use crate::pool::{Pool, check_threads};

/// Values below which [`Exec::light_rows`] stays on its thread.
const MIN_PARALLEL: usize = 1 << 13;

/// A kernel and the threads that run it. Shared by reference; results depend on neither.
#[derive(Debug)]
pub struct Exec {
    /// The instruction set.
    pub kernel: &'static dyn Kernel,
    /// The threads.
    pub pool: Pool,
}

impl Exec {
    /// With the kernel of that name, else `TRITBURN_KERNEL`, else the best; and so many threads, else
    /// [`Topology::threads`], that run where the system lets them.
    ///
    /// # Errors
    /// [`crate::KernelError::Unavailable`] or [`crate::KernelError::Threads`].
    pub fn new(kernel: Option<&str>, threads: Option<usize>) -> Result<Self> {
        Self::placed(kernel, threads, Numa::Off)
    }

    /// [`Self::new`] with threads bound to nodes as [`Topology::place`] and [`Pool::placed`] say.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn placed(kernel: Option<&str>, threads: Option<usize>, numa: Numa) -> Result<Self> {
        check_threads(threads.unwrap_or(1))?;
        Ok(Self {
            kernel: dispatch::select(kernel)?,
            pool: Pool::placed(&Topology::of_system().place(threads, numa))?,
        })
    }

    /// Threads that compute.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Calls `row` with the number and the values of each row of `data`, `[rows, width]`, on all
    /// threads.
    ///
    /// # Panics
    /// Where `data` is no whole number of rows.
    pub fn rows<T: Send>(
        &self,
        data: &mut [T],
        width: usize,
        row: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let rows = data.len().checked_div(width).unwrap_or(0);
        let data = Columns::new(data, rows, width);
        self.pool.run(rows, &|r| {
            // SAFETY: each task has a row of its own.
            #[allow(unsafe_code)]
            let values = unsafe { data.strip(r, 0, width) };
            row(r, values);
        });
    }

    /// [`Self::rows`] where a value takes no more than a few operations: a few of them are not worth
    /// asking other threads.
    ///
    /// # Panics
    /// As [`Self::rows`].
    pub fn light_rows<T: Send>(
        &self,
        data: &mut [T],
        width: usize,
        row: impl Fn(usize, &mut [T]) + Sync,
    ) {
        if data.len() >= MIN_PARALLEL {
            return self.rows(data, width, row);
        }
        let rows = data.chunks_exact_mut(width.max(1)).enumerate();
        rows.for_each(|(r, values)| row(r, values));
    }
}
