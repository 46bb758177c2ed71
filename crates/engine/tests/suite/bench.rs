//! Benchmarks run and say what they measured; how fast is not tested.
use tritburn_engine::bench::{
    BenchOptions, BenchRow, Limits, MemorySpeed, Phase, SHAPES, profile, run, shape,
};
use tritburn_engine::{Engine, EngineOptions};

#[test]
fn every_shape_is_a_valid_configuration() {
    for name in SHAPES {
        let config = shape(name).unwrap();
        assert!(config.problems().is_empty(), "{name}");
        assert!(config.is_ternary());
    }
    assert!(
        shape("gpt")
            .unwrap_err()
            .to_string()
            .contains("bitnet-2b4t")
    );
}

#[test]
fn rows_of_small_random_models() {
    for (name, ternary) in [
        ("smollm2-135m", true),
        ("smollm2-135m", false),
        ("qwen3-0.6b", true),
    ] {
        let mut config = shape(name).unwrap();
        (config.num_hidden_layers, config.vocab_size) = (2, 300);
        if !ternary {
            config.quantization_config = None;
        }
        let built = Engine::random(&config, 1, EngineOptions::default()).unwrap();
        let options = EngineOptions {
            threads: Some(1),
            ..EngineOptions::default()
        };
        let engine = built.with_options(&options).unwrap();
        let limits = Limits::measure(&engine, MemorySpeed::measure(&options).unwrap()).unwrap();
        let small = BenchOptions {
            prefill_tokens: 20,
            decode_tokens: 4,
            depth: 7,
            runs: 1,
        };
        let rows = run(&engine, "small", &small, &limits).unwrap();
        assert_eq!(rows.len(), 2);
        for row in &rows {
            assert_eq!((row.shape.as_str(), row.threads), ("small", 1));
            assert_eq!(row.format, if ternary { "ternary-2bit" } else { "f32" });
            assert!(row.peak_bytes >= row.rss_bytes);
            assert!(row.tok_s > 0.0 && row.gb_s > 0.0 && row.roofline_share > 0.0);
        }
        let what = |row: &BenchRow| (row.phase, row.tokens, row.depth);
        assert_eq!(what(&rows[0]), (Phase::Prefill, 20, 0));
        assert_eq!(what(&rows[1]), (Phase::Decode, 4, 7));
        for phase in [Phase::Prefill, Phase::Decode] {
            let shares = profile(&engine, phase, &small).unwrap();
            let whole: f64 = shares.iter().map(|s| s.share).sum();
            assert!((whole - 1.0).abs() < 1e-6, "{whole}");
            assert!(shares.iter().any(|s| s.op == "head" && s.seconds > 0.0));
        }
        let none = BenchOptions { runs: 0, ..small };
        assert!(run(&engine, "small", &none, &limits).is_err());
        let first = BenchOptions { depth: 0, ..small };
        assert_eq!(run(&engine, "small", &first, &limits).unwrap()[1].depth, 0);
        let long = BenchOptions {
            depth: usize::MAX,
            ..small
        };
        let error = run(&engine, "small", &long, &limits).unwrap_err();
        assert!(error.to_string().contains("context"), "{error}");
        assert!(profile(&engine, Phase::Decode, &long).is_err());
        // A seed is a model.
        let logits = |seed| {
            let engine = Engine::random(&config, seed, options.clone()).unwrap();
            engine.new_session(9).prefill(&[1, 2, 3]).unwrap().to_vec()
        };
        assert_eq!(logits(5), logits(5));
        assert_ne!(logits(5), logits(6));
        assert!(logits(5).iter().all(|v| v.is_finite()));
    }
}
