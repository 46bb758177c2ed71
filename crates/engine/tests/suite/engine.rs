//! Loading, sessions, generation and scoring on small models.
use std::ops::ControlFlow;

use crate::common::{EOS, Form, VOCAB, config, tensors, write, write_tokenizer};
use tritburn_engine::{
    ChatMessage, Engine, EngineError, EngineOptions, Event, FinishReason, GenerationParams,
    SamplingParams,
};
use tritburn_quant::config::SubNorm;

const LAYOUTS: [SubNorm; 3] = [SubNorm::None, SubNorm::SubLn, SubNorm::All];

fn options(threads: usize) -> EngineOptions {
    EngineOptions {
        threads: Some(threads),
        ..EngineOptions::default()
    }
}

fn engine(sub_norm: SubNorm, form: Form, threads: usize) -> Engine {
    let dir = tempfile::tempdir().unwrap();
    let config = config(sub_norm, form);
    write(dir.path(), &config, &tensors(&config, form));
    write_tokenizer(dir.path());
    Engine::load(dir.path(), options(threads)).unwrap()
}

fn prompt(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| (i * 37 + 11) % 256).collect()
}

fn generate(engine: &Engine, params: &GenerationParams) -> (tritburn_engine::Generation, String) {
    let mut streamed = String::new();
    let generation = engine
        .generate(&prompt(9), params, &mut |event| {
            if let Event::Text(text) = event {
                assert!(!text.is_empty());
                streamed.push_str(text);
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    (generation, streamed)
}

#[test]
fn the_three_ternary_forms_are_one_model() {
    for layout in LAYOUTS {
        let logits = |form| {
            engine(layout, form, 2)
                .new_session(64)
                .prefill_all(&prompt(20))
                .unwrap()
        };
        let online = logits(Form::Online);
        assert!(online.iter().all(|v| v.is_finite()));
        assert_eq!(online, logits(Form::AutoBitLinear));
        // 1 / (1 / s) is s but for a rounding.
        let largest = online.iter().fold(0f32, |m, v| m.max(v.abs()));
        for (a, b) in online.iter().zip(logits(Form::BitLinear)) {
            assert!((a - b).abs() < 0.02 * largest, "{a} {b}");
        }
        assert_ne!(online, logits(Form::Dense));
    }
}

#[test]
fn cache_threads_and_cuts_change_no_bit() {
    for (layout, form) in [
        (SubNorm::SubLn, Form::AutoBitLinear),
        (SubNorm::All, Form::Dense),
    ] {
        let one = engine(layout, form, 1);
        let tokens = prompt(40);
        let all = one.new_session(64).prefill_all(&tokens).unwrap();
        let other = engine(layout, form, 3);
        assert_eq!(all, other.new_session(64).prefill_all(&tokens).unwrap());
        let mut session = other.new_session(64);
        for cut in [[0, 1], [1, 17], [17, 18], [18, 40]] {
            let logits = session.prefill(&tokens[cut[0]..cut[1]]).unwrap();
            assert_eq!(logits, &all[(cut[1] - 1) * VOCAB..cut[1] * VOCAB]);
        }
        session.truncate(5);
        assert_eq!(session.len(), 5);
        let logits = session.decode(tokens[5]).unwrap();
        assert_eq!(logits, &all[5 * VOCAB..6 * VOCAB]);
    }
}

#[test]
fn long_prompts_go_through_in_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(SubNorm::SubLn, Form::AutoBitLinear);
    config["max_position_embeddings"] = 700.into();
    write(dir.path(), &config, &tensors(&config, Form::AutoBitLinear));
    let engine = Engine::load(dir.path(), options(2)).unwrap();
    let tokens = prompt(600);
    let all = engine.new_session(700).prefill_all(&tokens).unwrap();
    let mut session = engine.new_session(700);
    for (token, want) in tokens.iter().zip(all.chunks(VOCAB)) {
        assert_eq!(session.decode(*token).unwrap(), want);
    }
}

#[test]
fn generation_streams_what_it_returns() {
    let engine = engine(SubNorm::SubLn, Form::AutoBitLinear, 2);
    let hot = SamplingParams {
        temperature: 1.5,
        seed: 3,
        ..SamplingParams::default()
    };
    let params = GenerationParams {
        sampling: hot,
        max_tokens: 40,
        ..GenerationParams::default()
    };
    let (first, streamed) = generate(&engine, &params);
    assert_eq!(first.text, streamed);
    assert_eq!(first.completion_tokens, first.tokens.len());
    assert_eq!(first.prompt_tokens, 9);
    assert!(first.prompt_seconds > 0.0 && first.decode_seconds > 0.0);
    let (again, _) = generate(&engine, &params);
    assert_eq!((&first.tokens, &first.text), (&again.tokens, &again.text));
    // Bytes drawn at random are seldom UTF-8: what is shown is what a whole decode shows, but
    // where bad bytes stand, their number may differ.
    let whole = engine.tokenizer().unwrap().decode(&first.tokens).unwrap();
    let plain = |s: &str| s.replace(char::REPLACEMENT_CHARACTER, "");
    assert_eq!(plain(&streamed), plain(&whole));
}

#[test]
fn greedy_is_the_argmax_at_every_step() {
    let engine = engine(SubNorm::None, Form::Online, 2);
    let params = GenerationParams {
        max_tokens: 12,
        ignore_eos: true,
        ..GenerationParams::default()
    };
    let (generation, _) = generate(&engine, &params);
    let mut tokens = prompt(9);
    for &next in &generation.tokens {
        let mut session = engine.new_session(64);
        let logits = session.prefill(&tokens).unwrap();
        assert!(logits.iter().all(|&v| v <= logits[next as usize]));
        tokens.push(next);
    }
    let (score, greedy) = engine
        .loglikelihood(&prompt(9), &generation.tokens)
        .unwrap();
    assert!(greedy && score < 0.0);
    let logprobs = engine.token_logprobs(&tokens).unwrap();
    assert_eq!(logprobs.len(), tokens.len() - 1);
    let tail: f64 = logprobs[8..].iter().map(|&l| f64::from(l)).sum();
    assert!((tail - score).abs() < 1e-4, "{tail} {score}");
    let other: Vec<u32> = generation.tokens.iter().map(|t| (t + 1) % 256).collect();
    assert!(!engine.loglikelihood(&prompt(9), &other).unwrap().1);
}

#[test]
fn everything_that_can_end_a_generation_does() {
    let engine = engine(SubNorm::None, Form::Online, 1);
    let base = GenerationParams {
        max_tokens: 12,
        ignore_eos: true,
        ..GenerationParams::default()
    };
    let (full, _) = generate(&engine, &base);
    assert_eq!(
        (full.finish_reason, full.tokens.len()),
        (FinishReason::Length, 12)
    );

    let stop = GenerationParams {
        stop_token_ids: vec![full.tokens[3]],
        ..base.clone()
    };
    let (stopped, _) = generate(&engine, &stop);
    let at = full
        .tokens
        .iter()
        .position(|&t| t == full.tokens[3])
        .unwrap();
    assert_eq!(stopped.finish_reason, FinishReason::Stop);
    assert_eq!(stopped.tokens, full.tokens[..at]);

    let none = GenerationParams {
        max_tokens: 0,
        ..base.clone()
    };
    let (empty, _) = generate(&engine, &none);
    assert_eq!(
        (empty.finish_reason, empty.tokens.len()),
        (FinishReason::Length, 0)
    );

    let endless = GenerationParams {
        max_tokens: usize::MAX,
        ..base.clone()
    };
    let (long, _) = generate(&engine, &endless);
    assert_eq!(
        (long.finish_reason, long.tokens.len()),
        (FinishReason::Length, 64 - 9)
    );

    let mut seen = 0;
    let cancelled = engine
        .generate(&prompt(9), &base, &mut |event| match event {
            Event::Token(_) if seen == 2 => ControlFlow::Break(()),
            Event::Token(_) => {
                seen += 1;
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Continue(()),
        })
        .unwrap();
    assert_eq!(
        (cancelled.finish_reason, cancelled.tokens.len()),
        (FinishReason::Cancelled, 3)
    );
    let early = engine
        .generate(&prompt(9), &base, &mut |_| ControlFlow::Break(()))
        .unwrap();
    assert_eq!(
        (early.finish_reason, early.tokens.len()),
        (FinishReason::Cancelled, 0)
    );
}

#[test]
fn a_stop_string_ends_the_text_before_it() {
    let engine = engine(SubNorm::SubLn, Form::AutoBitLinear, 1);
    let hot = SamplingParams {
        temperature: 1.0,
        seed: 5,
        ..SamplingParams::default()
    };
    let params = GenerationParams {
        sampling: hot,
        max_tokens: 50,
        ignore_eos: true,
        ..GenerationParams::default()
    };
    let (full, _) = generate(&engine, &params);
    let letters: Vec<char> = full.text.chars().collect();
    let stop: String = letters[letters.len() / 2..][..2].iter().collect();
    let params = GenerationParams {
        stop: vec![stop.clone()],
        ..params
    };
    let (stopped, streamed) = generate(&engine, &params);
    assert_eq!(stopped.finish_reason, FinishReason::Stop);
    assert_eq!(stopped.text, full.text[..full.text.find(&stop).unwrap()]);
    assert_eq!(streamed, stopped.text);
}

#[test]
fn the_end_of_text_token_ends_unless_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(SubNorm::None, Form::Online);
    write(dir.path(), &config, &tensors(&config, Form::Online));
    let engine = Engine::load(dir.path(), options(1)).unwrap();
    assert_eq!(engine.eos_token_ids(), [EOS]);
    let base = GenerationParams {
        max_tokens: 5,
        ignore_eos: true,
        ..GenerationParams::default()
    };
    let first = generate(&engine, &base).0.tokens[0];
    let text = format!("{{\"eos_token_id\": [{first}, 2]}}");
    std::fs::write(dir.path().join("generation_config.json"), text).unwrap();
    let engine = Engine::load(dir.path(), options(1)).unwrap();
    assert_eq!(generate(&engine, &base).0.tokens.len(), 5);
    let (ended, _) = generate(
        &engine,
        &GenerationParams {
            ignore_eos: false,
            ..base
        },
    );
    assert_eq!(
        (ended.finish_reason, ended.tokens.len()),
        (FinishReason::Stop, 0)
    );
}

#[test]
fn text_comes_in_whole_characters() {
    let engine = engine(SubNorm::None, Form::Online, 1);
    let tokenizer = engine.tokenizer().unwrap();
    let text = "né 字🙂 ok";
    let tokens = engine.encode(text, true).unwrap();
    assert_eq!(tokens.len(), text.len());
    let mut decoder = tokenizer.incremental_decoder();
    let mut pieces = Vec::new();
    for token in tokens {
        pieces.push(decoder.push(token).unwrap());
    }
    pieces.push(decoder.finish().unwrap());
    assert_eq!(pieces.concat(), text);
    assert!(
        pieces
            .iter()
            .all(|p| !p.contains(char::REPLACEMENT_CHARACTER))
    );
    // A character cut short shows up at the end only.
    let mut decoder = tokenizer.incremental_decoder();
    assert_eq!(decoder.push(0xE5).unwrap(), "");
    assert_eq!(decoder.finish().unwrap(), "\u{FFFD}");
    // Bytes that never make a character do not pile up.
    let mut decoder = tokenizer.incremental_decoder();
    let shown: usize = (0..100)
        .map(|_| decoder.push(0x80).unwrap().chars().count())
        .sum();
    assert!(shown >= 90);
}

#[test]
fn conversations_become_tokens() {
    let engine = engine(SubNorm::None, Form::Online, 1);
    let message = ChatMessage {
        role: "user".into(),
        content: "Hi".into(),
    };
    let text = engine.render_chat(std::slice::from_ref(&message)).unwrap();
    assert_eq!(text, "User: Hi\nAssistant:");
    let tokens = engine.encode_chat(&[message]).unwrap();
    assert_eq!(engine.tokenizer().unwrap().decode(&tokens).unwrap(), text);
}

#[test]
fn bad_requests_are_errors_and_leave_the_session_whole() {
    let engine = engine(SubNorm::None, Form::Online, 1);
    let mut session = engine.new_session(1000);
    assert_eq!(session.max_len(), 64);
    session.prefill(&prompt(3)).unwrap();
    assert!(matches!(
        session.prefill(&[]),
        Err(EngineError::EmptyPrompt)
    ));
    let error = session.decode(VOCAB as u32).unwrap_err();
    assert!(matches!(
        error,
        EngineError::TokenOutOfRange { token: 260, .. }
    ));
    let error = session.prefill(&prompt(62)).unwrap_err();
    assert!(matches!(
        error,
        EngineError::ContextTooLong {
            tokens: 65,
            max: 64
        }
    ));
    assert_eq!(session.len(), 3);
    session.prefill(&prompt(61)).unwrap();
    let mut quiet = |_: Event<'_>| ControlFlow::Continue(());
    let params = GenerationParams::default();
    assert!(engine.generate(&[], &params, &mut quiet).is_err());
    assert!(engine.generate(&prompt(64), &params, &mut quiet).is_err());
    assert!(engine.generate(&[999], &params, &mut quiet).is_err());
    let empty_stop = GenerationParams {
        stop: vec![String::new()],
        ..params
    };
    assert!(
        engine
            .generate(&prompt(3), &empty_stop, &mut quiet)
            .is_err()
    );
    assert!(engine.loglikelihood(&[], &[1]).is_err());
    assert!(engine.token_logprobs(&[1, 999]).is_err());
    assert!(engine.token_logprobs(&[7]).unwrap().is_empty());
}
