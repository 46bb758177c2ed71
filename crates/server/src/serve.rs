//! Listening, loading, and stopping in an orderly way.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::app::{App, router};
use crate::error::{BoxError, Error};
use crate::model::TextModel;
use tritburn_engine::SamplingParams;

/// After generations are told to end, connections get this long to say so to their clients.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How to serve.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Host name or address to listen on.
    pub host: String,
    /// Port to listen on; 0 picks a free one.
    pub port: u16,
    /// Key that clients must send as `Authorization: Bearer KEY` to use `/v1`.
    pub api_key: Option<String>,
    /// Further names of the model.
    pub aliases: Vec<String>,
    /// Requests that may wait while one runs; one more gets 429.
    pub queue: usize,
    /// Largest request body, in bytes.
    pub max_body_bytes: usize,
    /// Sampling where a request says nothing. Its seed is not used: without one in the request, a
    /// fresh one is drawn.
    pub sampling: SamplingParams,
    /// Time for running requests to finish after the signal to stop.
    pub shutdown_grace: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 8080,
            api_key: None,
            aliases: Vec::new(),
            queue: 64,
            max_body_bytes: 4 << 20,
            // The API's default, where the engine's is greedy.
            sampling: SamplingParams {
                temperature: 1.0,
                ..SamplingParams::default()
            },
            shutdown_grace: Duration::from_secs(10),
        }
    }
}

impl ServerConfig {
    fn check(&self) -> Result<(), Error> {
        let wrong = |field, message: &str| {
            Err(Error::Config {
                field,
                message: message.to_owned(),
            })
        };
        match &self.api_key {
            Some(key) if key.is_empty() => wrong("api_key", "is empty; leave it out for no key"),
            Some(key) if !key.bytes().all(|byte| byte.is_ascii_graphic()) => wrong(
                "api_key",
                "must be printable ASCII without spaces to fit in a header",
            ),
            _ if self.queue >= 1 << 16 => wrong("queue", "must be below 65536"),
            _ if self.aliases.iter().any(String::is_empty) => wrong(
                "aliases",
                "holds an empty name; give it a name or leave it out",
            ),
            _ => Ok(()),
        }
    }
}

/// Serves until `shutdown` completes.
///
/// Listens first, so that `/health` can say 503 while `load` runs on a blocking thread; calls
/// `on_ready` with the bound address once requests can be answered. After `shutdown`, no
/// connection is taken any more, running requests get [`ServerConfig::shutdown_grace`] to finish,
/// and those left are ended with an error.
///
/// # Errors
/// [`Error::Config`], [`Error::PortInUse`], [`Error::Bind`] or [`Error::Load`], all before it is
/// ready.
pub async fn serve<L, R, S>(
    config: ServerConfig,
    load: L,
    on_ready: R,
    shutdown: S,
) -> Result<(), Error>
where
    L: FnOnce() -> Result<Arc<dyn TextModel>, BoxError> + Send + 'static,
    R: FnOnce(SocketAddr),
    S: Future<Output = ()>,
{
    config.check()?;
    let grace = config.shutdown_grace;
    let (listener, address) = bind(&config).await?;
    let app = Arc::new(App::new(config));
    let (stop, mut stopped) = watch::channel(());
    let listener = listener.tap_io(|stream| {
        // A token at a time would otherwise wait for the acknowledgement of the last.
        let _ = stream.set_nodelay(true);
    });
    let server_future =
        axum::serve(listener, router(app.clone())).with_graceful_shutdown(async move {
            // An error means that the sender is gone, which is also a stop.
            let _ = stopped.changed().await;
        });
    let server_future = server_future.into_future();
    // A set ends its task when it is dropped, so no way out of here leaves a server behind.
    let mut server = JoinSet::new();
    server.spawn(server_future);
    let mut shutdown = std::pin::pin!(shutdown);

    let mut loading = tokio::task::spawn_blocking(load);
    let loaded = tokio::select! {
        loaded = &mut loading => loaded,
        () = &mut shutdown => return Ok(()),
    };
    match loaded {
        Ok(Ok(model)) => app.set_model(model),
        Ok(Err(source)) => return Err(Error::Load { source }),
        Err(source) => {
            return Err(Error::Load {
                source: Box::new(source),
            });
        }
    }
    on_ready(address);

    shutdown.await;
    tracing::info!(
        "stopping; running requests have {}s to finish",
        grace.as_secs()
    );
    drop(stop);
    if tokio::time::timeout(grace, server.join_next())
        .await
        .is_err()
    {
        app.scheduler.stop();
        if tokio::time::timeout(LAST_WORDS, server.join_next())
            .await
            .is_err()
        {
            tracing::warn!("stopped with connections still open");
        }
    }
    Ok(())
}

/// [`serve`] on a runtime of its own, until SIGINT or SIGTERM; a second signal ends
/// it without waiting for running requests. Blocks.
///
/// # Errors
/// As [`serve`], and [`Error::Start`] when the runtime or the signal handlers cannot be set up.
pub fn run<L, R>(config: ServerConfig, load: L, on_ready: R) -> Result<(), Error>
where
    L: FnOnce() -> Result<Arc<dyn TextModel>, BoxError> + Send + 'static,
    R: FnOnce(SocketAddr),
{
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let mut first = stop_signals().map_err(|source| Error::Start { source })?;
        let mut second = first.clone();
        let shutdown = async move {
            let _ = first.wait_for(|count| *count >= 1).await;
        };
        tokio::select! {
            result = serve(config, load, on_ready, shutdown) => result,
            _ = second.wait_for(|count| *count >= 2) => Ok(()),
        }
    });
    // A load or generation may still be at work on its thread; the process ends without it.
    runtime.shutdown_background();
    result
}

/// A server on a background thread; dropping it stops it.
#[derive(Debug)]
pub struct Handle {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

impl Handle {
    /// The bound address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops the server and waits until it has.
    ///
    /// # Errors
    /// [`Error::Start`] when the server's thread had panicked.
    pub fn stop(mut self) -> Result<(), Error> {
        self.stop_and_join()
    }

    fn stop_and_join(&mut self) -> Result<(), Error> {
        // Dropping the sender is the signal.
        self.stop = None;
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        thread.join().unwrap_or_else(|_| {
            Err(Error::Start {
                source: io::Error::other("the server's thread panicked"),
            })
        })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Err(error) = self.stop_and_join() {
            tracing::warn!(%error, "server did not stop in order");
        }
    }
}

/// Serves a loaded model from a background thread; returns once it listens.
///
/// # Errors
/// As [`serve`] up to readiness, and [`Error::Start`] when no thread or runtime can be had.
pub fn spawn(config: ServerConfig, model: Arc<dyn TextModel>) -> Result<Handle, Error> {
    let runtime = runtime()?;
    let (stop, stopped) = oneshot::channel();
    let (ready, is_ready) = oneshot::channel();
    let thread = thread::Builder::new()
        .name("tritburn-server".to_owned())
        .spawn(move || {
            let on_ready = |address| {
                let _ = ready.send(address);
            };
            let shutdown = async {
                let _ = stopped.await;
            };
            let result = runtime.block_on(serve(config, move || Ok(model), on_ready, shutdown));
            runtime.shutdown_background();
            result
        })
        .map_err(|source| Error::Start { source })?;
    let mut handle = Handle {
        address: SocketAddr::from(([0, 0, 0, 0], 0)),
        stop: Some(stop),
        thread: Some(thread),
    };
    match is_ready.blocking_recv() {
        Ok(address) => {
            handle.address = address;
            Ok(handle)
        }
        Err(_) => Err(handle
            .stop_and_join()
            .err()
            .unwrap_or_else(|| Error::Start {
                source: io::Error::other("the server stopped before it was ready"),
            })),
    }
}

fn runtime() -> Result<Runtime, Error> {
    tokio::runtime::Builder::new_multi_thread()
        // HTTP is light work; the cores belong to the model, which has its own threads.
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|source| Error::Start { source })
}

async fn bind(config: &ServerConfig) -> Result<(TcpListener, SocketAddr), Error> {
    let address = if config.host.contains(':') {
        format!("[{}]:{}", config.host, config.port)
    } else {
        format!("{}:{}", config.host, config.port)
    };
    let bound = TcpListener::bind((config.host.as_str(), config.port)).await;
    bound
        .and_then(|listener| listener.local_addr().map(|local| (listener, local)))
        .map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => Error::PortInUse { address },
            _ => Error::Bind { address, source },
        })
}

/// Counts SIGINT, and SIGTERM where there is one.
fn stop_signals() -> io::Result<watch::Receiver<usize>> {
    #[cfg(unix)]
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    #[cfg(unix)]
    let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    let (count, counted) = watch::channel(0);
    tokio::spawn(async move {
        loop {
            #[cfg(unix)]
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            #[cfg(not(unix))]
            if tokio::signal::ctrl_c().await.is_err() {
                return;
            }
            count.send_modify(|count| *count += 1);
        }
    });
    Ok(counted)
}
