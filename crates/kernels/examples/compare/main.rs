//! Compares ways to compute the same thing on one thread, in turn, so that what else the machine
//! does falls on all of them: `cargo run --release -p tritburn-kernels --example compare [formats|head|kv|sparse]`.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod formats;
mod head;
mod kv;
mod sparse;
mod turns;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let parts: [(&str, fn()); 4] = [
        ("formats", formats::run),
        ("head", head::run),
        ("kv", kv::run),
        ("sparse", sparse::run),
    ];
    for (name, run) in parts {
        if wanted.is_empty() || wanted.iter().any(|w| w == name) {
            println!("# {name}");
            run();
        }
    }
}
