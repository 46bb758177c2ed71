//! The choice of a kernel, made once.

use std::sync::OnceLock;

#[cfg(target_arch = "aarch64")]
use crate::aarch64::Neon;
use crate::error::{KernelError, Result};
use crate::kernel::Kernel;
use crate::scalar::Scalar;
#[cfg(target_arch = "x86_64")]
use crate::x86_64::{Amx, Avx2, Avx512Vnni, AvxVnni};

/// Environment variable that names the kernel to use.
pub const KERNEL_ENV: &str = "TRITBURN_KERNEL";

/// The kernels that this processor can run, best first. The last is the scalar reference.
pub fn available() -> &'static [Box<dyn Kernel>] {
    static ALL: OnceLock<Vec<Box<dyn Kernel>>> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut all: Vec<Box<dyn Kernel>> = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(Amx::detect().map(|k| Box::new(k) as Box<dyn Kernel>));
            all.extend(Avx512Vnni::detect().map(|k| Box::new(k) as Box<dyn Kernel>));
            all.extend(AvxVnni::detect().map(|k| Box::new(k) as Box<dyn Kernel>));
            all.extend(Avx2::detect().map(|k| Box::new(k) as Box<dyn Kernel>));
        }
        #[cfg(target_arch = "aarch64")]
        for kernel in Neon::detect() {
            all.push(Box::new(kernel));
        }
        all.push(Box::new(Scalar));
        all
    })
}

/// The kernel of that name, or [`default_kernel`] for `None`.
///
/// # Errors
/// [`KernelError::Unavailable`] where there is none of that name on this machine.
pub fn select(name: Option<&str>) -> Result<&'static dyn Kernel> {
    let Some(name) = name else {
        return default_kernel();
    };
    let found = available().iter().find(|k| k.name() == name);
    found.map(AsRef::as_ref).ok_or_else(|| {
        let names: Vec<&str> = available().iter().map(|k| k.name()).collect();
        KernelError::Unavailable {
            name: name.to_owned(),
            available: names.join(", "),
        }
    })
}

/// The kernel that [`KERNEL_ENV`] names, else the best; decided at the first call.
///
/// # Errors
/// [`KernelError::Unavailable`] where the variable names a kernel that this machine lacks.
pub fn default_kernel() -> Result<&'static dyn Kernel> {
    static NAME: OnceLock<String> = OnceLock::new();
    let name = NAME.get_or_init(|| match std::env::var_os(KERNEL_ENV) {
        Some(name) if !name.is_empty() => name.to_string_lossy().into_owned(),
        _ => available()[0].name().to_owned(),
    });
    select(Some(name))
}
