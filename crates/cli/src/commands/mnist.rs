//! `tritburn data mnist`: fetches MNIST.

use std::path::PathBuf;

use anyhow::{Context, Result};
use tritburn_data::mnist::FILES;

use crate::output::say;
use crate::{http, output};

/// A public mirror. What comes is known by its SHA-256, so plain HTTP will do.
const MIRROR: &str = "http://storage.googleapis.com/cvdf-datasets/mnist";

/// Which files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Split {
    /// The 10,000 test images, 1.6 MB
    T10k,
    /// The 60,000 training images, 9.9 MB
    Train,
    /// Both
    All,
}

/// Fetch MNIST's IDX files; what is there is not fetched again
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder to write to
    #[arg(long, value_name = "DIR", default_value = "data/mnist")]
    out: PathBuf,
    /// Which files
    #[arg(long, value_enum, default_value = "all")]
    split: Split,
    /// http:// folder that holds the files
    #[arg(long, value_name = "URL", default_value = MIRROR)]
    url: String,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<()> {
    let wanted = FILES.iter().filter(|file| match args.split {
        Split::T10k => file.name.starts_with("t10k"),
        Split::Train => file.name.starts_with("train"),
        Split::All => true,
    });
    for file in wanted {
        let name = file.packed_name();
        let path = args.out.join(&name);
        let there = std::fs::read(&path).is_ok_and(|bytes| file.matches(&bytes).is_ok());
        if !there {
            let url = format!("{}/{name}", args.url.trim_end_matches('/'));
            say(format!("fetching {url}"));
            let bytes = http::get(&url, file.most_packed_bytes()).with_context(|| {
                format!(
                    "cannot fetch {url}; name another mirror with --url, or put {name} into {} by \
                     other means",
                    args.out.display()
                )
            })?;
            file.save(&args.out, &bytes)?;
        }
        output::print(format_args!("{}\n", path.display()))?;
    }
    Ok(())
}
