//! Benchmarks run and say what they measured; how fast is not tested.
use tritburn_engine::bench::{
    BenchOptions, BenchRow, Limits, MemorySpeed, Phase, Profile, SHAPES, profile, run, shape,
};
use tritburn_engine::{Engine, EngineOptions, Format};
use tritburn_quant::config::QuantizationMode;
use tritburn_quant::scheme::{QuantScheme, WeightQuant};

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
        let in_turn = |row: &BenchRow| [row.roofline_share_in_turn, row.weights_gb_s];
        assert_eq!(in_turn(&rows[0]), [None; 2]);
        assert!(in_turn(&rows[1]).into_iter().all(|v| v > Some(0.0)));
        let what = |row: &BenchRow| (row.phase, row.tokens, row.depth);
        assert_eq!(what(&rows[0]), (Phase::Prefill, 20, 0));
        assert_eq!(what(&rows[1]), (Phase::Decode, 4, 7));
        for phase in [Phase::Prefill, Phase::Decode] {
            let shares = profile(&engine, phase, &small).unwrap().ops;
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

#[test]
fn formats_and_scales_of_random_models() {
    let mut config = shape("bitnet-large").unwrap();
    (config.num_hidden_layers, config.vocab_size) = (1, 300);
    (config.hidden_size, config.intermediate_size) = (256, 384);
    (config.num_attention_heads, config.num_key_value_heads) = (4, 2);
    for (weights, name) in [
        (WeightQuant::Absmean, "tensor"),
        (WeightQuant::AbsmeanRow, "row"),
        (WeightQuant::AbsmeanGroup128, "group128"),
    ] {
        let scheme = QuantScheme {
            weights,
            ..QuantScheme::default()
        };
        config.set_quant(Some(scheme), QuantizationMode::Offline);
        // The packing of weights changes no bit of what a model says.
        let [two, base3, lookup] = [Format::TwoBit, Format::Base3, Format::Lookup].map(|format| {
            let options = EngineOptions {
                format,
                ..EngineOptions::default()
            };
            let engine = Engine::random(&config, 4, options).unwrap();
            let limits = MemorySpeed::measure(&EngineOptions::default()).unwrap();
            let limits = Limits::measure(&engine, limits).unwrap();
            let few = BenchOptions {
                prefill_tokens: 3,
                decode_tokens: 1,
                depth: 0,
                runs: 1,
            };
            let rows = run(&engine, "small", &few, &limits).unwrap();
            assert_eq!(rows[0].scales, Some(name));
            assert!(rows[0].memory_gb_s > 0.0 && rows[0].kernel_gop_s > 0.0);
            let mut session = engine.new_session(16);
            let mut all = session.prefill_all(&[1, 2, 3, 4, 5]).unwrap();
            all.extend(session.decode(6).unwrap());
            all
        });
        assert!(two == base3 && two == lookup, "{name}");
    }
}

#[test]
fn a_profile_counts_barriers() {
    let mut config = shape("smollm2-135m").unwrap();
    (config.num_hidden_layers, config.vocab_size) = (2, 300);
    for (threads, some) in [(1, false), (2, true)] {
        let options = EngineOptions {
            threads: Some(threads),
            ..EngineOptions::default()
        };
        let engine = Engine::random(&config, 1, options).unwrap();
        let Profile { regions, .. } =
            profile(&engine, Phase::Decode, &BenchOptions::default()).unwrap();
        assert_eq!(regions.per_token > 1.0, some);
        assert_eq!(regions.per_layer, regions.per_token / 2.0);
        assert_eq!(regions.share > 0.0, some);
    }
}
