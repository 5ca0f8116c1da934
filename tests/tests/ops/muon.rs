//! Muon, held against a composition of its own in f64.

use ds_core::{DType, ErrorKind, Tensor};
use ds_ops::muon::{MuonConfig, MuonTensors, muon_step, newton_schulz};
use ds_tests::{
    cases::{Numbers, tensor},
    compare::values,
};

use crate::stream;

/// A matrix in f64, row by row.
#[derive(Clone)]
struct Matrix {
    rows: usize,
    columns: usize,
    values: Vec<f64>,
}

impl Matrix {
    fn of(tensor: &Tensor) -> Self {
        let extent = |dim: usize| usize::try_from(tensor.shape()[dim]).unwrap();
        Self {
            rows: extent(0),
            columns: extent(1),
            values: values(stream(), tensor).unwrap(),
        }
    }

    fn turned(&self) -> Self {
        let at = |i: usize| self.values[i % self.rows * self.columns + i / self.rows];
        Self {
            rows: self.columns,
            columns: self.rows,
            values: (0..self.values.len()).map(at).collect(),
        }
    }

    fn times(&self, other: &Self) -> Self {
        let dot = |row: usize, column: usize| -> f64 {
            (0..self.columns)
                .map(|k| {
                    self.values[row * self.columns + k] * other.values[k * other.columns + column]
                })
                .sum()
        };
        let at = |i: usize| dot(i / other.columns, i % other.columns);
        Self {
            rows: self.rows,
            columns: other.columns,
            values: (0..self.rows * other.columns).map(at).collect(),
        }
    }

    /// `a` of this and `b` of the other.
    fn mixed(&self, a: f64, other: &Self, b: f64) -> Self {
        let both = self.values.iter().zip(&other.values);
        Self {
            values: both.map(|(x, y)| a * x + b * y).collect(),
            ..self.clone()
        }
    }

    /// Upstream's way: the matrix itself is turned where it has more rows.
    fn orthogonal(&self, steps: usize) -> Self {
        if self.rows > self.columns {
            return self.turned().orthogonal(steps).turned();
        }
        let norm = self.values.iter().map(|v| v * v).sum::<f64>().sqrt() + 1e-7;
        let mut x = self.mixed(1.0 / norm, self, 0.0);
        for _ in 0..steps {
            let a = x.times(&x.turned());
            let b = a.mixed(-4.7750, &a.times(&a), 2.0315);
            x = x.mixed(3.4445, &b.times(&x), 1.0);
        }
        x
    }

    fn largest_difference(&self, other: &Self) -> f64 {
        let both = self.values.iter().zip(&other.values);
        both.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    }
}

#[test]
fn newton_schulz_is_that_of_f64_for_wide_tall_and_square() {
    for shape in [[5, 9], [40, 17], [33, 33], [1, 8], [64, 192]] {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let x = Numbers::new(31).tensor(stream(), dtype, &shape).unwrap();
            let want = Matrix::of(&x).orthogonal(5);
            let got = newton_schulz(stream(), &x, 5, DType::F32).unwrap();
            assert_eq!(got.shape(), shape);
            // Iterations magnify an error by 3.4445^5, about 500; f32 has 6e-8.
            let far = Matrix::of(&got).largest_difference(&want);
            assert!(far < 1e-4, "{shape:?} from {dtype}: {far}");
            let got = newton_schulz(stream(), &x, 5, DType::BF16).unwrap();
            // Small singular values carry the error of bf16, magnified; upstream lives with it.
            let far = Matrix::of(&got).largest_difference(&want);
            assert!(far < 0.15, "{shape:?} from {dtype} in bf16: {far}");
        }
    }
}

#[test]
fn an_orthogonal_result_has_singular_values_near_1() {
    let x = Numbers::new(32)
        .tensor(stream(), DType::F32, &[16, 128])
        .unwrap();
    let u = Matrix::of(&newton_schulz(stream(), &x, 5, DType::F32).unwrap());
    let gram = u.times(&u.turned());
    for (i, value) in gram.values.iter().enumerate() {
        if i % 17 == 0 {
            // Squares of 0.68 to 1.13, the range of the quintic's fifth iterate.
            assert!((0.4..1.4).contains(value), "{value}");
        } else {
            assert!(value.abs() < 0.35, "{value}");
        }
    }
}

#[test]
fn a_matrix_of_zeros_stays_one_and_what_is_no_matrix_is_refused() {
    let zeros = tensor(stream(), DType::F32, &[3, 5], &[0.0; 15]).unwrap();
    let got = newton_schulz(stream(), &zeros, 5, DType::F32).unwrap();
    assert_eq!(values(stream(), &got).unwrap(), [0.0; 15]);
    let vector = zeros.reshape(&[15]).unwrap();
    let error = newton_schulz(stream(), &vector, 5, DType::F32).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("has 1 dimensions"), "{error}");
}

#[test]
fn a_step_moves_parameters_and_momentum_as_f64_does() {
    let config = MuonConfig {
        ns_dtype: DType::F32,
        weight_decay: 0.1,
        ..MuonConfig::default()
    };
    for nesterov in [true, false] {
        let config = MuonConfig { nesterov, ..config };
        let mut numbers = Numbers::new(33);
        let mut draw = |shape: &[i64]| numbers.tensor(stream(), DType::F32, shape).unwrap();
        let shapes: [&[i64]; 3] = [&[24, 10], &[6, 20], &[8, 3, 2, 2]];
        let all: Vec<[Tensor; 3]> = (shapes.iter())
            .map(|shape| [draw(shape), draw(shape), draw(shape)])
            .collect();
        let want: Vec<(Matrix, Matrix)> = all.iter().map(|t| expected(t, &config)).collect();
        let list = |index: usize| all.iter().map(|t| &t[index]).collect::<Vec<_>>();
        let (params, grads, momentum) = (list(0), list(1), list(2));
        let tensors = MuonTensors {
            params: &params,
            grads: &grads,
            momentum: &momentum,
        };
        muon_step(stream(), tensors, &config).unwrap();
        for ([param, _, momentum], (want_param, want_momentum)) in all.iter().zip(&want) {
            let flat = |t: &Tensor| Matrix::of(&flat(t));
            assert!(flat(param).largest_difference(want_param) < 1e-5);
            assert!(flat(momentum).largest_difference(want_momentum) < 1e-6);
        }
    }
}

/// A filter's dimensions but the first as one.
fn flat(tensor: &Tensor) -> Tensor {
    let rows = tensor.shape()[0];
    tensor.reshape(&[rows, tensor.elements() / rows]).unwrap()
}

/// Parameter and momentum after a step.
fn expected([param, grad, momentum]: &[Tensor; 3], config: &MuonConfig) -> (Matrix, Matrix) {
    let [p, g, m] = [param, grad, momentum].map(|t| Matrix::of(&flat(t)));
    let m = m.mixed(config.momentum, &g, 1.0 - config.momentum);
    let update = if config.nesterov {
        m.mixed(config.momentum, &g, 1.0 - config.momentum)
    } else {
        m.clone()
    };
    let last = &param.shape()[param.shape().len() - 2..];
    #[allow(clippy::cast_precision_loss, reason = "extents are small")]
    let scale = (last[0] as f64 / last[1] as f64).max(1.0).sqrt();
    let kept = 1.0 - config.lr * config.weight_decay;
    (p.mixed(kept, &update.orthogonal(5), -config.lr * scale), m)
}

#[test]
fn gradients_that_are_not_finite_change_nothing() {
    let mut numbers = Numbers::new(34);
    let mut draw = || numbers.tensor(stream(), DType::F32, &[6, 7]).unwrap();
    let (params, momentum) = ([draw(), draw()], [draw(), draw()]);
    let mut bad = [1.0; 42];
    bad[41] = f64::INFINITY;
    let grads = [draw(), tensor(stream(), DType::F32, &[6, 7], &bad).unwrap()];
    let held = |list: &[Tensor; 2]| list.each_ref().map(|t| t.to_bytes(stream()).unwrap());
    let before = [held(&params), held(&momentum)];
    let [p, g, m] = [&params, &grads, &momentum].map(<[Tensor; 2]>::each_ref);
    let tensors = MuonTensors {
        params: &p,
        grads: &g,
        momentum: &m,
    };
    muon_step(stream(), tensors, &MuonConfig::default()).unwrap();
    assert_eq!([held(&params), held(&momentum)], before);
    let short = MuonTensors {
        grads: &g[..1],
        ..tensors
    };
    let error = muon_step(stream(), short, &MuonConfig::default()).unwrap_err();
    assert!(error.to_string().contains("grads 1"), "{error}");
}
