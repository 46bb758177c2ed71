//! Tokenizers that went into a GGUF file and came out again, against the `tokenizers` crate on the
//! `tokenizer.json` that they came from.
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::json;
use tokenizers::Tokenizer;
use tritburn_engine::{Engine, EngineOptions, TextTokenizer, gguf_tokenizer};
use tritburn_quant::config::SubNorm;
use tritburn_quant::gguf::{GgufEmbedding, GgufTernary, write_gguf};

use crate::common::{Form, config, tensors, write};

/// Characters in a run of the same character.
const RUN: usize = 1 << 20;

/// Folders with a tokenizer.json: the one of the project's data, and those that
/// `TRITBURN_TOKENIZERS` names, separated by colons.
fn folders() -> Vec<PathBuf> {
    let data = std::env::var_os("TRITBURN_DATA_DIR").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")),
        PathBuf::from,
    );
    let more = std::env::var_os("TRITBURN_TOKENIZERS").unwrap_or_default();
    let mut all = vec![data.join("tokenizers/smollm2-135m-instruct")];
    all.extend(std::env::split_paths(&more));
    all.retain(|p| p.join("tokenizer.json").exists());
    if all.is_empty() {
        eprintln!("skipped: no tokenizers in {}", data.display());
    }
    all
}

/// Texts on which tokenizers tend to differ.
fn corpus(special: &[String]) -> Vec<String> {
    let mut all: Vec<String> = [
        "",
        " ",
        "  ",
        "\n",
        "\r\n\r\n",
        "\t \t\n  \n",
        "Hello, world!",
        " leading and trailing ",
        "a  b   c    d",
        "line\n\n\nline\r\nline\r",
        "It's we'll I'VE THEY'RE don\u{2019}t 'S",
        "1 12 123 1234 12345 3.14 1,000,000 0x1F",
        "\u{660}\u{661}\u{662} \u{0967}\u{0968} \u{2160}\u{00bd}\u{00b2}",
        "caf\u{e9} cafe\u{301} \u{1e9b}\u{323} \u{fb01}ne A\u{30a}\u{212b}",
        "\u{1F600}\u{1F468}\u{200D}\u{1F469}\u{200D}\u{1F467}\u{1F3FD}\u{1F1E9}\u{1F1EA}\u{2764}\u{FE0F}",
        "\u{4f60}\u{597d}\u{ff0c}\u{4e16}\u{754c}\u{3002} \u{65e5}\u{672c}\u{8a9e}\u{30c6}\u{30b9}\u{30c8} \u{d55c}\u{ae00} \u{1112}\u{1161}\u{11ab}",
        "\u{0645}\u{0631}\u{062d}\u{0628}\u{0627} \u{202e}abc\u{202c} \u{05d0}\u{05b8}",
        "Z\u{0351}\u{036b}\u{0343}\u{036a}\u{0302}a\u{0320}\u{0317}l\u{0329}g\u{033b}o",
        "\0\u{1}\u{2}\u{7}\u{8}\u{b}\u{c}\u{1b}[31m\u{7f}\u{80}\u{85}\u{9f}",
        "\u{a0}nbsp\u{2003}em\u{200b}zero\u{feff}bom\u{3000}wide\u{2028}line\u{2029}par",
        "\u{fffd}\u{fffe}\u{ffff}\u{10ffff}\u{e000}\u{1d54f}",
        "fn main() {\n    println!(\"{}\", 1 + 2);\n}\n",
        "<|im_start|>user\nhi<|im_end|>\n<|endoftext|><|endoftext|>x",
        "$a+b=c<d>^e~f|g`h_i-j/k\\l@m#n%o&p*q(r)s[t]u{v}w;x:y\"z",
        "supercalifragilisticexpialidocious antidisestablishmentarianism",
        "ALLCAPS mixedCase snake_case kebab-case dot.case",
        "https://example.org/a?b=c&d=%20#e",
        "\u{0e2a}\u{0e27}\u{0e31}\u{0e2a}\u{0e14}\u{0e35} \u{0928}\u{092e}\u{0938}\u{094d}\u{0924}\u{0947} \u{1200}\u{1208}",
    ]
    .map(str::to_owned)
    .into();
    for text in special {
        all.push(text.clone());
        all.push(format!("a{text}b {text} {text}{text}"));
        all.push(text.chars().skip(1).collect());
    }
    // Every character of the first planes in groups, and pseudo-random mixtures.
    let scalars: Vec<char> = (0..0x3000).filter_map(char::from_u32).collect();
    all.extend(scalars.chunks(61).map(|c| c.iter().collect()));
    let mut seed = 7u64;
    for _ in 0..300 {
        let mut next = |n: usize| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % n
        };
        let some = 1 + next(40);
        let pools = [
            "aeiou",
            " \n\t\r",
            "0123456789",
            ".,!?'\"-_",
            "\u{301}\u{1F600}\u{4e2d}\u{e9}\u{200d}",
        ];
        let pick = |_| {
            let pool: Vec<char> = pools[next(pools.len())].chars().collect();
            pool[next(pool.len())]
        };
        all.push((0..some).map(pick).collect());
    }
    all
}

/// The tokenizer after a way through a GGUF file.
fn through_gguf(folder: &Path, theirs: &Tokenizer) -> Engine {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(SubNorm::None, Form::Dense);
    config["num_hidden_layers"] = json!(1);
    config["tie_word_embeddings"] = json!(true);
    config.as_object_mut().unwrap().remove("eos_token_id");
    let mut all = tensors(&config, Form::Dense);
    let largest = theirs.get_vocab(true).into_values().max().unwrap() as usize;
    let width = config["hidden_size"].as_u64().unwrap() as usize;
    config["vocab_size"] = json!(largest + 1);
    let embedding = all
        .iter_mut()
        .find(|t| t.name.contains("embed_tokens"))
        .unwrap();
    embedding.shape = vec![largest + 1, width];
    embedding.bytes = vec![0; 4 * (largest + 1) * width];
    write(dir.path(), &config, &all);
    std::fs::copy(
        folder.join("tokenizer.json"),
        dir.path().join("tokenizer.json"),
    )
    .unwrap();
    let path = dir.path().join("model.gguf");
    write_gguf(dir.path(), &path, GgufTernary::Tq2_0, GgufEmbedding::F16).unwrap();
    Engine::load(&path, EngineOptions::default()).unwrap()
}

/// Tokens of every text of the corpus, with `added` tokens in some, and texts of those tokens, at once
/// and piece by piece.
fn compare(ours: &TextTokenizer, theirs: &Tokenizer, what: &str, added: &[String]) {
    let corpus = corpus(added);
    for text in &corpus {
        for around in [true, false] {
            let want = theirs.encode(text.as_str(), around).unwrap();
            let got = ours.encode(text, around).unwrap();
            assert_eq!(got, want.get_ids(), "{what} {text:?}");
        }
        // Back to text, and so that what is shown piece by piece is the same text.
        let ids = ours.encode(text, false).unwrap();
        let want = theirs.decode(&ids, true).unwrap();
        assert_eq!(ours.decode(&ids).unwrap(), want, "{what} {text:?}");
        let mut decoder = ours.incremental_decoder();
        let mut shown = String::new();
        for &id in &ids {
            shown += &decoder.push(id).unwrap();
        }
        shown += &decoder.finish().unwrap();
        assert_eq!(shown, want, "{what} {text:?}");
    }
    eprintln!("{what}: {} texts", corpus.len());
}

#[test]
fn gguf_tokenizers_give_the_tokens_of_the_folder() {
    for folder in folders() {
        let theirs = Tokenizer::from_file(folder.join("tokenizer.json")).unwrap();
        let ours = through_gguf(&folder, &theirs);
        let what = folder.display().to_string();
        let added = theirs.get_added_tokens_decoder();
        let added: Vec<String> = added.values().map(|t| t.content.clone()).take(20).collect();
        compare(ours.tokenizer().unwrap(), &theirs, &what, &added);
    }
}

/// GGUF files that others wrote, against the `tokenizer.json` of the same models: pairs of a file and
/// a folder in `TRITBURN_GGUF_TOKENIZERS`, all separated by colons.
#[test]
fn published_gguf_tokenizers_give_the_tokens_of_the_folder() {
    let pairs = std::env::var_os("TRITBURN_GGUF_TOKENIZERS").unwrap_or_default();
    let pairs: Vec<PathBuf> = std::env::split_paths(&pairs).collect();
    let (pairs, rest) = pairs.as_chunks::<2>();
    if pairs.is_empty() {
        eprintln!("skipped: TRITBURN_GGUF_TOKENIZERS names no files and folders ({rest:?})");
    }
    for [file, folder] in pairs {
        let [json, _] = gguf_tokenizer(file).unwrap().unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
        let ours = TextTokenizer::load(dir.path(), usize::MAX)
            .unwrap()
            .unwrap();
        let theirs = Tokenizer::from_file(folder.join("tokenizer.json")).unwrap();
        // Which added tokens there are, and which of them are text, is often said in another way there.
        compare(&ours, &theirs, &file.display().to_string(), &[]);
    }
}

/// A megabyte of one character takes seconds, not hours.
#[test]
fn long_runs_come_to_an_end() {
    for folder in folders() {
        let theirs = Tokenizer::from_file(folder.join("tokenizer.json")).unwrap();
        let ours = through_gguf(&folder, &theirs);
        for text in [
            "a",
            " ",
            "\n",
            "0",
            ".",
            "\u{e9}",
            "\u{4e2d}",
            "\u{1F600}",
            "\u{301}",
            "\0",
            "a ",
            "\r\n",
        ] {
            let long = text.repeat(RUN / text.len());
            let start = Instant::now();
            let got = ours.encode(&long, false).unwrap();
            let took = start.elapsed();
            eprintln!(
                "{} {text:?}: {} tokens, {took:.1?}",
                folder.display(),
                got.len()
            );
            assert_eq!(
                got,
                theirs.encode(long, false).unwrap().get_ids(),
                "{text:?}"
            );
            assert!(took.as_secs() < 120, "{text:?} {took:?}");
        }
    }
}
