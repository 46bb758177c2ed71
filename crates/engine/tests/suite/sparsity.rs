//! Leaving zeros out changes no bit.
use tritburn_engine::bench::{BenchOptions, Limits, MemorySpeed, Phase, profile, run, shape};
use tritburn_engine::{Engine, EngineOptions, ModelConfig, Sparsity};
use tritburn_kernels::available;
use tritburn_quant::config::{HiddenAct, QuantizationMode, SubNorm};
use tritburn_quant::scheme::{Preset, QuantScheme};

/// A small model of these quantisers.
fn config(scheme: QuantScheme, act: HiddenAct, sub_norm: SubNorm) -> ModelConfig {
    let mut config = shape("bitnet-2b4t").unwrap();
    (config.num_hidden_layers, config.vocab_size) = (2, 70);
    (config.hidden_size, config.intermediate_size) = (256, 320);
    (config.num_attention_heads, config.num_key_value_heads) = (4, 2);
    config.hidden_act = act;
    config.set_quant(Some(scheme), QuantizationMode::Offline);
    config.set_sub_norm(sub_norm);
    assert!(config.problems().is_empty(), "{:?}", config.problems());
    config
}

fn engine(config: &ModelConfig, sparsity: Sparsity) -> Engine {
    let options = EngineOptions {
        sparsity,
        ..EngineOptions::default()
    };
    Engine::random(config, 3, options).unwrap()
}

/// Logits after a prompt in one piece, then token by token and by threes.
fn logits(engine: &Engine) -> Vec<Vec<u32>> {
    let mut session = engine.new_session(64);
    let mut all = vec![session.prefill(&[1, 2, 3, 4, 5, 6, 7]).unwrap().to_vec()];
    for token in 8..14 {
        all.push(session.decode(token).unwrap().to_vec());
    }
    for some in [[20, 21, 22], [9, 60, 69]] {
        all.push(session.prefill_all(&some).unwrap());
    }
    let bits = |v: &Vec<f32>| v.iter().map(|v| v.to_bits()).collect();
    all.iter().map(bits).collect()
}

#[test]
fn every_scheme_and_kernel_gives_the_bits_of_dense_products() {
    for (preset, act) in [
        (Preset::B158, HiddenAct::Relu2),
        (Preset::A48, HiddenAct::Relu2),
        (Preset::A48Fp4, HiddenAct::Relu2),
        (Preset::QSparse, HiddenAct::Silu),
        (Preset::QSparse, HiddenAct::Relu2),
        (Preset::V2, HiddenAct::Relu2),
        (Preset::B158, HiddenAct::Silu),
    ] {
        for sub_norm in [
            SubNorm::None,
            SubNorm::SubLn,
            SubNorm::All,
            SubNorm::LayerNorm,
        ] {
            let config = config(preset.into(), act, sub_norm);
            let dense = logits(&engine(&config, Sparsity::Off));
            let sparse = engine(&config, Sparsity::On);
            for kernel in available() {
                for threads in [1, 3] {
                    let options = EngineOptions {
                        kernel: Some(kernel.name().into()),
                        threads: Some(threads),
                        ..EngineOptions::default()
                    };
                    assert!(
                        logits(&sparse.with_options(&options).unwrap()) == dense,
                        "{preset:?} {act:?} {sub_norm:?} {} {threads}",
                        kernel.name()
                    );
                }
            }
        }
    }
}

#[test]
fn a_gate_in_full_precision_leaves_up_its_own_input() {
    let mut config = config(Preset::B158.into(), HiddenAct::Relu2, SubNorm::SubLn);
    let excluded = vec!["lm_head".into(), "gate_proj".into()];
    let quantization = config.quantization_config.as_mut().unwrap();
    quantization.modules_to_not_convert = Some(excluded);
    let dense = logits(&engine(&config, Sparsity::Off));
    assert!(logits(&engine(&config, Sparsity::On)) == dense);
}

#[test]
fn the_bench_tells_what_was_left_out() {
    let config = config(Preset::A48.into(), HiddenAct::Relu2, SubNorm::None);
    let what = BenchOptions {
        prefill_tokens: 9,
        decode_tokens: 3,
        runs: 1,
        ..BenchOptions::default()
    };
    let memory = MemorySpeed::measure(&EngineOptions::default()).unwrap();
    let left_out = |sparsity| {
        let engine = engine(&config, sparsity);
        let limits = Limits::measure(&engine, memory).unwrap();
        let rows = run(&engine, "small", &what, &limits).unwrap();
        let ops = profile(&engine, Phase::Decode, &what).unwrap().ops;
        let of = |name: &str| ops.iter().find(|o| o.op == name).unwrap().left_out;
        let shares = [
            "norm + q, k, v",
            "norm + o",
            "norm + gate, up, act, norm",
            "down",
        ]
        .map(of);
        (rows[1].left_out, shares)
    };
    let (whole, [qkv, o, gate_up, down]) = left_out(Sparsity::On);
    assert!(0.05 < whole && whole < 0.8, "{whole}");
    assert_eq!(qkv, 0.0);
    assert!((o - 0.5).abs() < 0.01, "{o}");
    assert!(0.15 < gate_up && gate_up < 0.35, "{gate_up}");
    assert!(0.4 < down && down < 0.9, "{down}");
    assert_eq!(left_out(Sparsity::Off), (0.0, [0.0; 4]));
}
