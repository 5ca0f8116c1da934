//! What the model means, a token at a time, in f64.

use super::{HEADS, HIDDEN, LAYERS, Tensors};

type Rows = Vec<Vec<f64>>;

/// The embedding of a text.
pub(crate) fn embedding(model: &Tensors, ids: &[i32]) -> Vec<f64> {
    let mut x = embedded(model, ids);
    for layer in 0..LAYERS {
        let name = |part: &str| format!("encoder.layer.{layer}.{part}");
        let attended = attention(model, &x, &name("attention.self"));
        let attended = linear(model, &attended, &name("attention.output.dense"));
        x = norm_of_sum(model, &attended, &x, &name("attention.output.LayerNorm"));
        let mut inner = linear(model, &x, &name("intermediate.dense"));
        inner.iter_mut().flatten().for_each(|v| *v = gelu(*v));
        let outer = linear(model, &inner, &name("output.dense"));
        x = norm_of_sum(model, &outer, &x, &name("output.LayerNorm"));
    }
    let sum: Vec<f64> = (0..HIDDEN)
        .map(|i| x.iter().map(|row| row[i]).sum())
        .collect();
    let length = sum.iter().map(|v| v * v).sum::<f64>().sqrt();
    sum.iter().map(|v| v / length).collect()
}

fn embedded(model: &Tensors, ids: &[i32]) -> Rows {
    let table = |name: &str| rows(model, &format!("embeddings.{name}_embeddings.weight"));
    let (words, places, segments) = (table("word"), table("position"), table("token_type"));
    let places: Rows = places.iter().map(|row| sum(row, &segments[0])).collect();
    let words: Rows = ids
        .iter()
        .map(|&id| words[id.unsigned_abs() as usize].clone())
        .collect();
    norm_of_sum(model, &words, &places, "embeddings.LayerNorm")
}

fn attention(model: &Tensors, x: &Rows, name: &str) -> Rows {
    let [q, k, v] =
        ["query", "key", "value"].map(|part| linear(model, x, &format!("{name}.{part}")));
    let width = HIDDEN / HEADS;
    #[allow(clippy::cast_precision_loss, reason = "a small number")]
    let scale = (width as f64).sqrt();
    let mut out = vec![vec![0.0; HIDDEN]; x.len()];
    for head in 0..HEADS {
        let part = head * width..(head + 1) * width;
        for (token, out) in out.iter_mut().enumerate() {
            let scores: Vec<f64> = k
                .iter()
                .map(|k| (dot(&q[token][part.clone()], &k[part.clone()]) / scale).exp())
                .collect();
            let total: f64 = scores.iter().sum();
            for (score, v) in scores.iter().zip(&v) {
                for i in part.clone() {
                    out[i] += score / total * v[i];
                }
            }
        }
    }
    out
}

fn linear(model: &Tensors, x: &Rows, name: &str) -> Rows {
    let weight = rows(model, &format!("{name}.weight"));
    let bias = &rows(model, &format!("{name}.bias"))[0];
    let of = |x: &Vec<f64>| {
        weight
            .iter()
            .zip(bias)
            .map(|(w, b)| dot(w, x) + b)
            .collect()
    };
    x.iter().map(of).collect()
}

/// `b` may be longer than `a`.
fn norm_of_sum(model: &Tensors, a: &Rows, b: &Rows, name: &str) -> Rows {
    let weight = &rows(model, &format!("{name}.weight"))[0];
    let bias = &rows(model, &format!("{name}.bias"))[0];
    let norm = |x: Vec<f64>| {
        #[allow(clippy::cast_precision_loss, reason = "a small number")]
        let count = x.len() as f64;
        let mean = x.iter().sum::<f64>() / count;
        let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count;
        let rstd = 1.0 / (variance + 1e-12).sqrt();
        let scaled = x.iter().zip(weight).zip(bias);
        scaled
            .map(|((v, w), b)| (v - mean) * rstd * w + b)
            .collect()
    };
    a.iter().zip(b).map(|(a, b)| norm(sum(a, b))).collect()
}

fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2))
}

/// Its Maclaurin series, whose terms stay far below 2^53 within 4; beyond, it is 1 to 1e-8.
fn erf(x: f64) -> f64 {
    if x.abs() > 4.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..100 {
        let n = f64::from(n);
        term *= -x * x / n;
        sum += term / (2.0 * n + 1.0);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

fn rows(model: &Tensors, name: &str) -> Rows {
    let (shape, elements) = &model[name];
    let width = *shape.last().unwrap_or(&1);
    let elements: Vec<f64> = elements.iter().copied().map(f64::from).collect();
    elements.chunks(width).map(<[f64]>::to_vec).collect()
}

fn sum(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
