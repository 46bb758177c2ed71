//! `tritburn export`: a run as a packed Hugging Face folder.

use std::path::{Path, PathBuf};

use tritburn_nn::device::{DeviceKind, OnDevice};
use tritburn_nn::ops::{Kernels, Ops};
use tritburn_train::TrainError;
use tritburn_train::export::export_hf;

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
    let device: DeviceKind = args.device.parse()?;
    let folder = model_path::resolve(&args.run)?;
    match args.format {
        Format::Hf => export(&folder, &args.out, device)?,
    }
    say(format!("{} → {}", folder.display(), args.out.display()));
    Ok(())
}

/// Packs the master weights of `folder` into `out`.
pub(crate) fn export(folder: &Path, out: &Path, device: DeviceKind) -> anyhow::Result<()> {
    struct Work<'a>(&'a Path, &'a Path);
    impl OnDevice for Work<'_> {
        type Out = Result<(), TrainError>;
        fn run<B: Kernels + Ops>(self, device: &B::Device) -> Self::Out {
            export_hf::<B>(self.0, self.1, device)
        }
    }
    Ok(device.run(Work(folder, out))??)
}
