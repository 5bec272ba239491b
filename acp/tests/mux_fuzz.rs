//! The corpus of the multiplexer's fuzz target, and inputs that are made of its lines.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "../fuzz/mux.rs"]
mod target;

fn corpus() -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/mux");
    let files = std::fs::read_dir(corpus).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<_> = files.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    files.sort();
    files
}

#[test]
fn every_corpus_file_of_the_multiplexer_passes_its_target() {
    let files = corpus();
    assert!(files.len() >= 8);
    for (path, data) in files {
        println!("{}", path.display());
        target::mux(&data);
    }
}

/// Lines of the corpus in all orders that a seeded generator comes to. `SESSIONCAP_CASES` multiplies them.
#[test]
fn lines_of_the_corpus_in_any_order_pass_the_target() {
    use rand::{Rng, SeedableRng};
    let files = corpus();
    let lines: Vec<&[u8]> = files.iter().flat_map(|(_, data)| data.split(|byte| *byte == b'\n')).collect();
    let mut rng = rand::rngs::StdRng::seed_from_u64(1);
    let times: u32 = std::env::var("SESSIONCAP_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    for _ in 0..times * 5_000 {
        let mut data = files[rng.gen_range(0..files.len())].1.clone();
        for _ in 0..rng.gen_range(1..40) {
            data.push(b'\n');
            data.extend_from_slice(lines[rng.gen_range(0..lines.len())]);
        }
        target::mux(&data);
    }
}
