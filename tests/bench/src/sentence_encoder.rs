//! The sentence encoder of the examples, from tokens to vectors, beside `PyTorch` with the same model and the
//! runtime of its package.

use ds_core::ErrorKind;
use ds_examples::sentence::{FETCH, SentenceEncoder, default_folder};
use serde_json::json;

use crate::{
    Result,
    peer::Peer,
    sample::{Side, Spread, alternate, mean_seconds, paired, print},
};

/// One short text; a batch of them, and one of lengths as texts have them.
pub(crate) fn figure() -> Result<()> {
    let folder = default_folder()?;
    let stream = ds_tests::cpu()?.default_stream()?;
    let encoder = match SentenceEncoder::open(stream, &folder) {
        Err(e) if e.kind() == ErrorKind::NotInstalled => {
            eprintln!("skipped: {e}; {FETCH} fetches it");
            return Ok(());
        }
        opened => opened?,
    };
    let mixed: Vec<usize> = (0..32).map(|text| 8 + 56 * (text * 11 % 32) / 31).collect();
    row(&encoder, "1 text of 16", &[16], 10)?;
    row(&encoder, "32 texts of 16", &[16; 32], 2)?;
    row(&encoder, "32 texts of 8 to 64", &mixed, 1)
}

fn row(encoder: &SentenceEncoder, what: &str, lengths: &[usize], calls: u32) -> Result<()> {
    let stream = ds_tests::cpu()?.default_stream()?;
    // Which words they are makes no difference.
    let texts: Vec<Vec<i32>> = lengths
        .iter()
        .map(|&length| (1000..).step_by(7).take(length).collect())
        .collect();
    let ids: Vec<&[i32]> = texts.iter().map(Vec::as_slice).collect();
    let mut ours = || {
        let vectors = encoder.encode_tokens(stream, &ids)?;
        vectors.to_vec::<f32>(stream)?;
        Ok(())
    };
    let config = encoder.config();
    let setup = json!({
        "weights": default_folder()?.join("model.safetensors"),
        "heads": config.num_attention_heads,
        "eps": config.layer_norm_eps,
        "texts": texts,
    });
    let mut torch = Peer::python(&format!("sentence_encoder {setup}"))?;
    let setup = json!({"folder": default_folder()?, "texts": texts});
    let mut package = match Peer::python(&format!("sentence_transformers {setup}")) {
        Err(e) => {
            eprintln!("skipped: {e}");
            None
        }
        Ok(package) => package,
    };
    let mut sides: Vec<Side<'_>> = vec![Box::new(|| mean_seconds(calls, &mut ours))];
    sides.extend(torch.as_mut().map(|torch| torch.side(calls)));
    sides.extend(package.as_mut().map(|package| package.side(calls)));
    let seconds = alternate(&mut sides)?;
    let figure = format!("sentence_encoder, {what} tokens");
    let tokens: usize = lengths.iter().sum();
    for (count, unit) in [(lengths.len(), "texts/s"), (tokens, "tokens/s")] {
        let rate = Spread::of(seconds[0].iter().map(|s| count as f64 / s));
        print(&figure, rate, unit, "", "n / s");
    }
    let limits = [("PyTorch", "1.2"), ("sentence-transformers", "")];
    for (theirs, (peer, limit)) in seconds[1..].iter().zip(limits) {
        let ratio = paired(&seconds[0], theirs, |own, theirs| theirs / own);
        print(&format!("{figure}, to {peer}"), ratio, "x", limit, "s by s");
    }
    Ok(())
}
