//! Kernels in CUDA C++ on the stream and in the memory of burn's CUDA backend.
//!
//! Sources are compiled by NVRTC at the first launch for the definitions at hand and kept by CubeCL,
//! which also keeps the result on disk where its compilation cache is on.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, OnceLock};

use burn::tensor::{DType, Shape};
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::client::ComputeClient;
use cubecl::cuda::{CudaCompiler, CudaComputeKernel, CudaDevice, CudaRuntime};
use cubecl::prelude::{
    CompiledKernel, CubeCount, CubeDim, CubePrimitive, KernelId, KernelMetadata,
};
use cubecl::server::{KernelArguments, MetadataBindingInfo, TensorMapBinding, TensorMapMeta};
use cubecl::{CompilationError, CubeTask, ExecutionMode};
use cubecl_cpp::shared::{Body, ComputeKernel, Elem, Flags, Item, SharedMemory};

/// A tensor of burn's CUDA backend.
pub(super) type Buffer = CubeTensor<CudaRuntime>;

/// A file of kernels with all that it needs before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// Attention by products of one warp.
    AttentionWarp,
    /// Attention by products of a warpgroup.
    AttentionGroup,
    Gemm,
    Optim,
    Quantise,
    QuantiseWeights,
    Reduce,
    Relation,
    Rows,
    Table,
    Vocab,
}

impl Source {
    /// Tells the sources of different releases apart.
    fn version(self) -> u64 {
        static VERSIONS: [OnceLock<u64>; 11] = [const { OnceLock::new() }; 11];
        *VERSIONS[self as usize].get_or_init(|| {
            let mut hasher = DefaultHasher::new();
            self.parts().hash(&mut hasher);
            hasher.finish()
        })
    }

    fn parts(self) -> &'static [&'static str] {
        const PRELUDE: &str = include_str!("kernels/prelude.cuh");
        const WARP: &str = include_str!("kernels/warp.cuh");
        const HOPPER: &str = include_str!("kernels/hopper.cuh");
        const ATTENTION: &str = include_str!("kernels/attention.cu");
        const MANY: &str = include_str!("kernels/many.cuh");
        match self {
            Self::AttentionWarp => &[
                PRELUDE,
                WARP,
                include_str!("kernels/tiles_warp.cuh"),
                ATTENTION,
            ],
            Self::AttentionGroup => &[
                PRELUDE,
                WARP,
                HOPPER,
                include_str!("kernels/tiles_group.cuh"),
                ATTENTION,
            ],
            Self::Gemm => &[
                PRELUDE,
                HOPPER,
                include_str!("kernels/wgmma.cuh"),
                include_str!("kernels/gemm.cu"),
            ],
            Self::Optim => &[PRELUDE, MANY, include_str!("kernels/optim.cu")],
            Self::Quantise => &[PRELUDE, include_str!("kernels/quantise.cu")],
            Self::QuantiseWeights => &[PRELUDE, MANY, include_str!("kernels/quantise_weights.cu")],
            Self::Reduce => &[PRELUDE, include_str!("kernels/reduce.cu")],
            Self::Relation => &[PRELUDE, WARP, include_str!("kernels/relation.cu")],
            Self::Rows => &[PRELUDE, include_str!("kernels/rows.cu")],
            Self::Table => &[PRELUDE, include_str!("kernels/table.cu")],
            Self::Vocab => &[PRELUDE, include_str!("kernels/vocab.cu")],
        }
    }
}

/// One kernel for one set of definitions; `version` tells sources of different releases apart in a
/// cache on disk.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    source: Source,
    entry: &'static str,
    defines: Vec<(&'static str, String)>,
    threads: u32,
    shared_bytes: usize,
    version: u64,
}

struct Kernel(Key);

impl KernelMetadata for Kernel {
    fn name(&self) -> &'static str {
        self.0.entry
    }

    fn id(&self) -> KernelId {
        KernelId::new::<Self>()
            .info(self.0.clone())
            .cube_dim(CubeDim::new_1d(self.0.threads))
    }

    fn address_type(&self) -> cubecl::ir::StorageType {
        u32::as_type_native_unchecked().storage_type()
    }
}

impl CubeTask<CudaCompiler> for Kernel {
    fn compile(
        &self,
        _compiler: &mut CudaCompiler,
        _options: &cubecl_cpp::shared::CompilationOptions,
        _mode: ExecutionMode,
        _address_type: cubecl::ir::StorageType,
    ) -> Result<CompiledKernel<CudaCompiler>, CompilationError> {
        let key = &self.0;
        let defines = key.defines.iter();
        let mut source: String = defines.map(|(k, v)| format!("#define {k} {v}\n")).collect();
        // Files compile the entry that is asked for alone.
        source.push_str(&format!("#define ENTRY_{}\n", key.entry));
        source.extend(key.source.parts().iter().copied());
        let cube_dim = CubeDim::new_1d(key.threads);
        Ok(CompiledKernel {
            entrypoint_name: key.entry.into(),
            debug_name: Some(key.entry),
            source,
            repr: Some(description(cube_dim, key)),
            cube_dim,
            debug_info: None,
        })
    }
}

/// What CubeCL wants to know of a kernel that it did not generate: its shared memory.
fn description(cube_dim: CubeDim, key: &Key) -> CudaComputeKernel {
    let byte = Item::scalar(Elem::U8, true);
    let shared = (key.shared_bytes > 0).then_some(SharedMemory::Array {
        index: 0,
        item: byte,
        length: key.shared_bytes,
        align: 128,
        offset: 0,
    });
    ComputeKernel {
        tensor_maps: Vec::new(),
        buffers: Vec::new(),
        scalars: Vec::new(),
        info: Default::default(),
        meta_static_len: 0,
        body: Body {
            instructions: Vec::new(),
            shared_memories: shared.into_iter().collect(),
            pipelines: Vec::new(),
            barriers: Vec::new(),
            const_arrays: Vec::new(),
            local_arrays: Vec::new(),
            info_by_ptr: false,
            has_dynamic_meta: false,
            address_type: byte,
        },
        cube_dim,
        cluster_dim: None,
        extensions: Vec::new(),
        flags: Flags::default(),
        items: HashSet::new(),
        kernel_name: key.entry.into(),
    }
}

/// A launch in the making. Parameters of the kernel are the tensor maps, a pointer for each of them,
/// the buffers, and one struct of 64-bit words.
pub(super) struct Launch {
    key: Key,
    maps: Vec<(Buffer, TensorMapMeta)>,
    buffers: Vec<Buffer>,
}

impl Launch {
    pub(super) fn new(source: Source, entry: &'static str, threads: u32) -> Self {
        Self {
            key: Key {
                source,
                entry,
                defines: Vec::new(),
                threads,
                shared_bytes: 0,
                version: source.version(),
            },
            maps: Vec::new(),
            buffers: Vec::new(),
        }
    }

    pub(super) fn define(mut self, name: &'static str, value: impl ToString) -> Self {
        self.key.defines.push((name, value.to_string()));
        self
    }

    pub(super) fn shared(mut self, bytes: usize) -> Self {
        self.key.shared_bytes = bytes;
        self
    }

    pub(super) fn map(mut self, tensor: &Buffer, map: TensorMapMeta) -> Self {
        self.maps.push((tensor.clone(), map));
        self
    }

    pub(super) fn buffer(mut self, tensor: &Buffer) -> Self {
        self.buffers.push(tensor.clone());
        self
    }

    /// Queues the kernel on `blocks` blocks, with `words` as its last parameter.
    pub(super) fn run(self, client: &ComputeClient<CudaRuntime>, blocks: usize, words: &[usize]) {
        let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
        let words: Vec<u64> = words.iter().map(|&w| w as u64).collect();
        let length = words.len();
        let maps = self.maps.into_iter().map(|(tensor, map)| TensorMapBinding {
            binding: tensor.handle.binding(),
            map,
        });
        let buffers = self.buffers.into_iter().map(|b| b.handle.binding());
        let arguments = KernelArguments::new()
            .with_tensor_maps(maps.collect())
            .with_buffers(buffers.collect())
            .with_info(MetadataBindingInfo::new(words, length));
        client.launch(
            Box::new(Kernel(self.key)),
            CubeCount::Static(blocks, 1, 1),
            arguments,
        );
    }
}

/// A new tensor beside `like`, not filled.
pub(super) fn empty<const D: usize>(like: &Buffer, shape: [usize; D], dtype: DType) -> Buffer {
    let (client, device) = (like.client.clone(), like.device.clone());
    empty_device_contiguous_dtype(client, device, Shape::from(shape), dtype)
}

/// The name of a float type in the kernels.
pub(super) fn element(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "float",
        DType::F16 => "f16",
        DType::I8 => "i8",
        _ => "u16",
    }
}

/// A scalar as a word of a kernel's last parameter.
pub(super) fn word(x: f32) -> usize {
    x.to_bits() as usize
}

/// Streaming multiprocessors of the device where it is a Hopper GPU, whose instructions the kernels
/// use; none on others.
pub(super) fn hopper(device: &CudaDevice, client: &ComputeClient<CudaRuntime>) -> Option<u32> {
    static KINDS: Mutex<BTreeMap<usize, bool>> = Mutex::new(BTreeMap::new());
    let mut kinds = KINDS.lock().unwrap_or_else(|e| e.into_inner());
    let is_hopper = *kinds.entry(device.index).or_insert_with(|| {
        let context = cudarc::driver::CudaContext::new(device.index);
        let capability = context.and_then(|c| c.compute_capability());
        capability.is_ok_and(|(major, _)| major == 9)
    });
    let count = client.properties().hardware.num_streaming_multiprocessors;
    count.filter(|_| is_hopper)
}
