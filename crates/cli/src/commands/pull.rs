//! `tritburn pull`: brings a model of the Hugging Face hub into the cache.

use anyhow::bail;
use tritburn_hub::ModelName;

use crate::hub;
use crate::output::print;

/// Download a model of the Hugging Face hub, or what is new of it, and print where it is
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// ORG/NAME, with @REVISION and :FILE.gguf where one is meant
    model: String,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let Some(name) = ModelName::parse(&args.model) else {
        bail!(
            "{}: no name of a model of the hub; these look like ORG/NAME, ORG/NAME@REVISION and \
             ORG/NAME:FILE.gguf",
            args.model
        );
    };
    let path = hub::pull(&name)?;
    print(format_args!("{}\n", path.display()))?;
    Ok(())
}
