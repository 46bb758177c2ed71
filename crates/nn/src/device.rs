//! The one place where a backend is chosen at run time.

use std::collections::BTreeSet;

use burn::tensor::backend::DeviceOps;

use crate::ops::{Kernels, Ops};
use crate::{NnError, Result};

/// A device that training and evaluation can run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// The fast CPU backend (burn-flex).
    Cpu,
    /// The plain CPU backend (burn-ndarray): every operation in its reference form.
    NdArray,
    /// Vulkan, Metal or DirectX (burn-wgpu).
    Wgpu,
    /// NVIDIA (burn-cuda).
    Cuda,
}

/// Names that [`DeviceKind`] parses.
pub const DEVICE_NAMES: &str = "cpu, ndarray, wgpu, cuda";

impl std::str::FromStr for DeviceKind {
    type Err = NnError;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "cpu" => Ok(Self::Cpu),
            "ndarray" => Ok(Self::NdArray),
            "wgpu" => Ok(Self::Wgpu),
            "cuda" => Ok(Self::Cuda),
            _ => Err(NnError::UnknownDevice {
                name: name.into(),
                known: DEVICE_NAMES,
            }),
        }
    }
}

impl DeviceKind {
    /// Name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::NdArray => "ndarray",
            Self::Wgpu => "wgpu",
            Self::Cuda => "cuda",
        }
    }

    /// The device called `name`, if this binary was built with it.
    ///
    /// # Errors
    /// [`NnError::UnknownDevice`] or [`NnError::NotCompiled`].
    pub fn named(name: &str) -> Result<Self> {
        let kind: Self = name.parse()?;
        if kind.is_compiled() {
            Ok(kind)
        } else {
            Err(NnError::NotCompiled { name: kind.name() })
        }
    }

    /// Whether this binary was built with the backend.
    #[must_use]
    pub fn is_compiled(self) -> bool {
        match self {
            Self::Cpu | Self::NdArray => true,
            Self::Wgpu => cfg!(feature = "wgpu"),
            Self::Cuda => cfg!(feature = "cuda"),
        }
    }
}

/// Devices of one backend, a replica of the model on each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Devices {
    /// Their backend.
    pub kind: DeviceKind,
    /// Their numbers, as the backend counts them.
    pub numbers: Vec<usize>,
}

impl From<DeviceKind> for Devices {
    fn from(kind: DeviceKind) -> Self {
        Self {
            kind,
            numbers: vec![0],
        }
    }
}

impl Devices {
    /// Those with `numbers` of the backend called `name`.
    ///
    /// # Errors
    /// As [`DeviceKind::named`]; [`NnError::Devices`] where a number stands twice, or there is none.
    pub fn named(name: &str, numbers: &[usize]) -> Result<Self> {
        let kind = DeviceKind::named(name)?;
        let distinct: BTreeSet<_> = numbers.iter().collect();
        if numbers.is_empty() || distinct.len() < numbers.len() {
            return Err(NnError::Devices {
                message: format!("{numbers:?}: name each device once, as in `--devices 0,1`"),
            });
        }
        Ok(Self {
            kind,
            numbers: numbers.to_vec(),
        })
    }

    /// Refuses numbers that the machine has no device for, and several where nothing adds over them. The CPU holds as many replicas as are
    /// wanted, which lets a recipe for several GPUs be tried on it.
    ///
    /// # Errors
    /// [`NnError::Devices`].
    pub fn check<B: Kernels>(&self) -> Result<()> {
        if self.numbers.len() > 1 {
            B::check_all_reduce()?;
        }
        let count = B::device_count(B::Device::default().id().type_id);
        let missing = self.numbers.iter().find(|n| !B::ON_HOST && **n >= count);
        missing.map_or(Ok(()), |missing| {
            let name = self.kind.name();
            Err(NnError::Devices {
                message: format!("{missing}: this machine has {count} for {name}, counted from 0"),
            })
        })
    }
}

/// Work that runs on whichever backend was chosen.
pub trait OnDevice {
    /// What it returns.
    type Out;

    /// Does the work.
    fn run<B: Kernels + Ops>(self, device: &B::Device) -> Self::Out;
}

impl DeviceKind {
    /// Runs `work` on this device.
    ///
    /// # Errors
    /// [`NnError::NotCompiled`] where the binary lacks the backend, [`NnError::Unavailable`] where
    /// the machine lacks the device.
    pub fn run<W: OnDevice>(self, work: W) -> Result<W::Out> {
        match self {
            Self::Cpu => Ok(work.run::<burn::backend::Flex>(&Default::default())),
            Self::NdArray => Ok(work.run::<burn::backend::NdArray>(&Default::default())),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => guarded(self, || {
                work.run::<burn::backend::Wgpu>(&Default::default())
            }),
            #[cfg(feature = "cuda")]
            Self::Cuda => guarded(self, || {
                work.run::<burn::backend::Cuda>(&Default::default())
            }),
            #[allow(unreachable_patterns)]
            _ => Err(NnError::NotCompiled { name: self.name() }),
        }
    }
}

/// Buffers of tensors that are gone are kept by their size for the next of that size, as the same step
/// is made again and again; the default looks through every piece of memory for each new tensor.
/// `persistent_memory = "disabled"` in the `[memory]` section of a `cubecl.toml` has its way.
#[cfg(feature = "cuda")]
fn configure_memory() {
    use cubecl::config::memory::PersistentMemory;
    use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
        if matches!(config.memory.persistent_memory, PersistentMemory::Enabled) {
            config.memory.persistent_memory = PersistentMemory::Enforced;
        }
        CubeClRuntimeConfig::set(config);
    });
}

/// GPU runtimes panic where there is no driver: ask for a first tensor before the work starts.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
fn guarded<T>(kind: DeviceKind, work: impl FnOnce() -> T) -> Result<T> {
    let probe = std::panic::catch_unwind(|| match kind {
        #[cfg(feature = "cuda")]
        DeviceKind::Cuda => {
            configure_memory();
            probe::<burn::backend::Cuda>()
        }
        #[cfg(feature = "wgpu")]
        DeviceKind::Wgpu => probe::<burn::backend::Wgpu>(),
        _ => true,
    });
    if probe.is_ok_and(|works| works) {
        return Ok(work());
    }
    let reason = match kind {
        DeviceKind::Cuda => "no NVIDIA driver answered; check `nvidia-smi`",
        _ => {
            "no Vulkan, Metal or DirectX 12 device answered; install a driver \
              (on Debian without a GPU: mesa-vulkan-drivers)"
        }
    };
    Err(NnError::Unavailable {
        name: kind.name(),
        reason: reason.into(),
    })
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
fn probe<B: Kernels>() -> bool {
    let one = burn::tensor::Tensor::<B, 1>::ones([1], &B::Device::default());
    one.into_data().iter::<f32>().eq([1.0])
}
