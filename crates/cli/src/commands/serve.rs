//! `tritburn serve`.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use tritburn_server::{EngineModel, ServerConfig};

use crate::engine_args::EngineArgs;
use crate::{model_path, output};

/// Arguments of `serve`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder of an export, a run, a stage or a checkpoint
    model: PathBuf,
    /// Name or address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Port to listen on; 0 picks a free one
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Key that clients must send
    #[arg(
        long,
        value_name = "KEY",
        env = "TRITBURN_API_KEY",
        hide_env_values = true
    )]
    api_key: Option<String>,
    /// A further name of the model; may be repeated
    #[arg(long = "alias", value_name = "NAME")]
    aliases: Vec<String>,
    /// Requests that may wait while one runs
    #[arg(long, value_name = "N", default_value_t = ServerConfig::default().queue)]
    queue: usize,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Serves until a signal.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let folder = model_path::resolve(&args.model)?;
    let id = model_path::name(&args.model);
    let config = ServerConfig {
        host: args.host,
        port: args.port,
        // An empty variable is as good as none.
        api_key: args.api_key.filter(|key| !key.is_empty()),
        aliases: args.aliases,
        queue: args.queue,
        ..ServerConfig::default()
    };
    // Said after the address, which scripts expect in the first line.
    let memory = Arc::new(OnceLock::new());
    let loaded = Arc::clone(&memory);
    let load = move || {
        let engine = args.engine.load(&folder)?;
        if engine.tokenizer().is_none() {
            let message = format!(
                "{}: no tokenizer.json; put the model's there",
                folder.display()
            );
            return Err(message.into());
        }
        let _ = loaded.set(output::memory(&engine));
        Ok(Arc::new(EngineModel::new(id, engine)) as _)
    };
    tritburn_server::run(config, load, |address| {
        output::say(format_args!("listening on http://{address}"));
        if let Some(memory) = memory.get() {
            output::say(memory);
        }
    })?;
    Ok(())
}
