//! `tritburn export`: a run as a packed Hugging Face folder or a GGUF file.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tritburn_nn::device::DeviceKind;
use tritburn_quant::gguf::{GgufEmbedding, GgufTernary, write_gguf};

use crate::model_path;
use crate::output::say;

/// Formats that can be written.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    /// Hugging Face folder with packed ternary weights
    Hf,
    /// Hugging Face folder with the master weights, to continue training elsewhere
    SafetensorsLatent,
    /// GGUF file, 2 bits a ternary weight, of Microsoft's bitnet.cpp
    #[value(name = "gguf-i2_s")]
    GgufI2S,
    /// GGUF file, 1.69 bits a ternary weight, of llama.cpp
    #[value(name = "gguf-tq1_0")]
    GgufTq1,
    /// GGUF file, 2.06 bits a ternary weight, of llama.cpp
    #[value(name = "gguf-tq2_0")]
    GgufTq2,
    /// GGUF file, 2.25 bits a ternary weight, of llama.cpp since July 2026; for scales of groups
    #[value(name = "gguf-q2_0")]
    GgufQ2,
}

/// Write a run as a folder that the engine and others load
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run, stage or checkpoint folder; a GGUF file in full precision for safetensors-latent
    run: PathBuf,
    /// Folder to write; for GGUF a folder that gets a model.gguf, or a name that ends in .gguf
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// What to write
    #[arg(long, value_enum, default_value = "hf")]
    format: Format,
    /// How embedding and output head are stored in a GGUF file: f16, q8_0 or q6_k [default: f16]
    #[arg(long, value_name = "NAME", value_parser = embedding)]
    embedding_type: Option<GgufEmbedding>,
    /// Where codes are computed: cpu, ndarray, wgpu or cuda
    #[arg(long, default_value = "cpu")]
    device: String,
}

/// A type of embeddings by name.
fn embedding(name: &str) -> Result<GgufEmbedding, String> {
    let known = GgufEmbedding::ALL.into_iter().find(|e| e.name() == name);
    known.ok_or_else(|| {
        let names = GgufEmbedding::ALL.map(GgufEmbedding::name).join(", ");
        format!("no type of this name; there are {names}")
    })
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let device = DeviceKind::named(&args.device)?;
    let folder = model_path::resolve(&args.run)?;
    if folder.is_file() && !matches!(args.format, Format::SafetensorsLatent) {
        bail!(
            "{}: is a GGUF file already; --format safetensors-latent makes a folder of it, to train \
             from",
            folder.display()
        );
    }
    let embedding = args.embedding_type;
    let gguf = |ternary| {
        let embedding = embedding.unwrap_or_default();
        gguf(&folder, args.out.clone(), device, ternary, embedding)
    };
    let out = match args.format {
        Format::GgufI2S => gguf(GgufTernary::I2S)?,
        Format::GgufTq1 => gguf(GgufTernary::Tq1_0)?,
        Format::GgufTq2 => gguf(GgufTernary::Tq2_0)?,
        Format::GgufQ2 => gguf(GgufTernary::Q2_0)?,
        Format::Hf | Format::SafetensorsLatent if embedding.is_some() => bail!(
            "--embedding-type is for GGUF files; embedding and head of a folder keep their type"
        ),
        Format::Hf => {
            tritburn_train::export_hf(&folder, &args.out, device)?;
            args.out
        }
        Format::SafetensorsLatent if folder.is_file() => {
            tritburn_train::import_gguf(&folder, &args.out)?;
            args.out
        }
        Format::SafetensorsLatent => {
            tritburn_train::export_latent(&folder, &args.out)?;
            args.out
        }
    };
    say(format!("{} → {}", folder.display(), out.display()));
    Ok(())
}

/// Writes the file by way of a folder that does not outlive the call; returns the file's name.
fn gguf(
    folder: &Path,
    out: PathBuf,
    device: DeviceKind,
    ternary: GgufTernary,
    embedding: GgufEmbedding,
) -> anyhow::Result<PathBuf> {
    let named = out
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("gguf"));
    let file = if named { out } else { out.join("model.gguf") };
    let parent = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(parent)
        .with_context(|| format!("cannot make the folder {}", parent.display()))?;
    let aside = tempfile::Builder::new()
        .prefix(".export-")
        .tempdir_in(parent);
    let aside = aside.with_context(|| format!("cannot write to {}", parent.display()))?;
    let packed = aside.path().join("hf");
    tritburn_train::export_hf(folder, &packed, device)?;
    write_gguf(&packed, &file, ternary, embedding)
        .map_err(|error| error.of_original(&packed, folder))?;
    Ok(file)
}
