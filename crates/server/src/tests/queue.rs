//! One at a time, the others in a bounded queue, and no one in it who has left.

use std::sync::atomic::Ordering;

use serde_json::json;

use super::*;
use mock::{Gate, Log};

fn gated(queue: usize) -> (Arc<App>, Router, Arc<Gate>, Arc<Log>) {
    let gate = Arc::new(Gate::default());
    let model = Mock {
        gate: Some(gate.clone()),
        ..Mock::default()
    };
    let log = model.log.clone();
    let (app, router) = app(
        ServerConfig {
            queue,
            ..ServerConfig::default()
        },
        Some(model),
    );
    (app, router, gate, log)
}

fn body() -> Value {
    json!({"model": "org/mock", "prompt": "ab"})
}

fn gauge(app: &App, name: &str, value: usize) -> bool {
    app.metrics
        .render()
        .contains(&format!("\ntritburn_num_requests_{name} {value}\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_gets_429_and_the_others_are_served() {
    let (app, router, gate, log) = gated(2);
    let mut requests = Vec::new();
    for waiting in 0..3 {
        let router = router.clone();
        requests.push(tokio::spawn(async move {
            send(&router, post("/v1/completions", body()))
                .await
                .status()
        }));
        eventually("queued", || {
            gauge(&app, "running", 1) && gauge(&app, "waiting", waiting)
        })
        .await;
    }
    let response = send(&router, post("/v1/completions", body())).await;
    assert_eq!(response.headers()["retry-after"], "1");
    let (status, error) = json(response).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(error["error"]["code"], "queue_full");
    assert_eq!(log.started.load(Ordering::SeqCst), 1);
    gate.open();
    for request in requests {
        assert_eq!(request.await.unwrap(), StatusCode::OK);
    }
    assert_eq!(log.finished.load(Ordering::SeqCst), 3);
    eventually("idle", || {
        gauge(&app, "running", 0) && gauge(&app, "waiting", 0)
    })
    .await;
    assert_eq!(
        send(&router, post("/v1/completions", body()))
            .await
            .status(),
        StatusCode::OK
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_the_queue_frees_its_place() {
    let (app, router, gate, log) = gated(1);
    let running = tokio::spawn({
        let router = router.clone();
        async move {
            send(&router, post("/v1/completions", body()))
                .await
                .status()
        }
    });
    eventually("running", || gauge(&app, "running", 1)).await;
    let waiting = tokio::spawn({
        let router = router.clone();
        async move { send(&router, post("/v1/completions", body())).await }
    });
    eventually("waiting", || gauge(&app, "waiting", 1)).await;
    waiting.abort();
    eventually("place freed", || gauge(&app, "waiting", 0)).await;
    let next = tokio::spawn({
        let router = router.clone();
        async move {
            send(&router, post("/v1/completions", body()))
                .await
                .status()
        }
    });
    eventually("waiting again", || gauge(&app, "waiting", 1)).await;
    gate.open();
    assert_eq!(running.await.unwrap(), StatusCode::OK);
    assert_eq!(next.await.unwrap(), StatusCode::OK);
    assert_eq!(log.started.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_ends_generations_and_admits_no_more() {
    let model = Mock {
        endless: true,
        ..Mock::default()
    };
    let log = model.log.clone();
    let (app, router) = app(ServerConfig::default(), Some(model));
    let running = tokio::spawn({
        let router = router.clone();
        async move { json(send(&router, post("/v1/completions", body())).await).await }
    });
    eventually("running", || log.started.load(Ordering::SeqCst) == 1).await;
    app.scheduler.stop();
    let (status, error) = running.await.unwrap();
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(error["error"]["code"], "shutting_down");
    let (status, _) = json(send(&router, post("/v1/completions", body())).await).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
}
