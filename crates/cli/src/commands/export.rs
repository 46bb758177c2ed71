//! `tritburn export`: a run as a packed Hugging Face folder.

use std::path::PathBuf;

use tritburn_nn::device::DeviceKind;

use crate::model_path;
use crate::output::say;

/// Formats that can be written.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    /// Hugging Face folder with packed ternary weights
    Hf,
}

/// Write a run as a folder that the engine and others load
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run, stage or checkpoint folder
    run: PathBuf,
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// What to write
    #[arg(long, value_enum, default_value = "hf")]
    format: Format,
    /// Where codes are computed: cpu, ndarray, wgpu or cuda
    #[arg(long, default_value = "cpu")]
    device: String,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let device = DeviceKind::named(&args.device)?;
    let folder = model_path::resolve(&args.run)?;
    match args.format {
        Format::Hf => tritburn_train::export_hf(&folder, &args.out, device)?,
    }
    say(format!("{} → {}", folder.display(), args.out.display()));
    Ok(())
}
